//! The timelines that the cluster has left behind, for people. Nothing is decided on it.

use serde::{Deserialize, Serialize};

use super::command::Rejection;
use super::ids::{Epoch, MemberName, TimelineId};
use super::lsn::Lsn;
use super::state::ClusterState;
use super::takeover::expect_epoch;

/// As many are kept: one a promotion, and every copy of the state has them.
pub const MAX_HISTORY: usize = 300;
/// The longest reason in bytes; PostgreSQL's have about thirty.
pub const MAX_HISTORY_REASON_BYTES: usize = 200;

/// Where a timeline ended, and who went on from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEnd {
    /// The timeline which ended.
    pub timeline: TimelineId,
    /// Where.
    pub lsn: Lsn,
    /// PostgreSQL's reason, for example `no recovery target specified`.
    pub reason: String,
    /// When, in milliseconds since 1970; none: nobody saw it.
    pub at_ms: Option<u64>,
    /// Who was promoted; none: nobody saw it.
    pub leader: Option<MemberName>,
}

/// The holder tells what its PostgreSQL's history is.
pub(super) fn set(state: &mut ClusterState, epoch: Epoch, history: &[TimelineEnd]) -> Result<(), Rejection> {
    expect_epoch(state, epoch)?;
    if state.lease.tenure.is_none() {
        return Err(Rejection::Tenure);
    }
    let is_long = history.iter().any(|end| end.reason.len() > MAX_HISTORY_REASON_BYTES);
    if history.len() > MAX_HISTORY || is_long {
        return Err(Rejection::Limit {
            what: format!(
                "the history has at most {MAX_HISTORY} timelines, with reasons of at most \
                 {MAX_HISTORY_REASON_BYTES} bytes"
            ),
        });
    }
    state.history = history.to_vec();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Lease, MemberId, Session, Tenure};
    use super::*;

    #[test]
    fn only_the_present_holder_writes_it_and_within_limits() {
        let tenure =
            Tenure { holder: MemberId(1), session: Session(1), ttl_ms: 5000, wait_ms: 5000, pinned: false };
        let lease = Lease { epoch: Epoch(3), tenure: Some(tenure), ..Lease::default() };
        let mut state = ClusterState { lease, ..ClusterState::default() };
        let end = TimelineEnd {
            timeline: TimelineId(1),
            lsn: Lsn(0x0300_0000),
            reason: "no recovery target specified".to_owned(),
            at_ms: Some(1),
            leader: None,
        };
        assert_eq!(set(&mut state, Epoch(3), std::slice::from_ref(&end)), Ok(()));
        assert_eq!(state.history, std::slice::from_ref(&end));
        assert!(matches!(set(&mut state, Epoch(2), &[]), Err(Rejection::Epoch { .. })));
        let many = vec![end.clone(); MAX_HISTORY + 1];
        assert!(matches!(set(&mut state, Epoch(3), &many), Err(Rejection::Limit { .. })));
        let long = TimelineEnd { reason: "x".repeat(MAX_HISTORY_REASON_BYTES + 1), ..end };
        assert!(matches!(set(&mut state, Epoch(3), &[long]), Err(Rejection::Limit { .. })));
        state.lease.tenure = None;
        assert_eq!(set(&mut state, Epoch(3), &[]), Err(Rejection::Tenure));
        assert_eq!(state.history.len(), 1);
    }
}
