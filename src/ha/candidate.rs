//! Who takes over: the same answer on every node that has the same reports.

use std::cmp::Reverse;
use std::time::Duration;

use pgherd_raft::model::{Intent, MemberId, MemberKind, WalPosition};

use super::facts::Observation;
use super::failsafe;
use super::member_report::MemberReport;
use super::report::own_report;

/// A report older than this is silence. Reports are exchanged about every half second.
pub const REPORT_FRESH: Duration = Duration::from_millis(1500);

/// The end of a sentence about a member that needs a watchdog device.
pub(super) const NO_WATCHDOG: &str = "needs a watchdog device, and has none that works";

/// A member that could take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub id: MemberId,
    /// Its position.
    pub position: WalPosition,
    /// Its priority among equals.
    pub priority: i64,
    /// Its report.
    pub report: MemberReport,
}

/// Why a member cannot take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Who.
    pub id: MemberId,
    /// A sentence's end: "NAME `why`".
    pub why: String,
}

/// All data members, the best candidate first, and the others with their reasons.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ranking {
    /// Best first.
    pub candidates: Vec<Candidate>,
    /// Cannot take over.
    pub unfit: Vec<Unfit>,
}

impl Ranking {
    /// The place of a member: 0 is the best.
    pub fn place_of(&self, id: MemberId) -> Option<usize> {
        self.candidates.iter().position(|candidate| candidate.id == id)
    }

    /// Why a member cannot take over, if it cannot.
    pub fn unfit_reason(&self, id: MemberId) -> Option<&str> {
        self.unfit.iter().find(|unfit| unfit.id == id).map(|unfit| unfit.why.as_str())
    }
}

/// Ranks the data members other than `without`: highest (timeline, received position) first, then
/// `failover_priority`, then the name. One that recently failed to become writable stands behind the others.
pub fn rank(o: &Observation, without: Option<MemberId>) -> Ranking {
    let mine = own_report(o);
    let last_report = without.and_then(|id| o.peers.get(&id)).and_then(|fact| fact.of_any_age()?.position);
    let last_known = last_report.or(o.cluster.lease.left_at);
    let named = o.cluster.intent.as_ref().and_then(|pending| match pending.intent {
        Intent::Failover { to, .. } => Some(to),
        Intent::Switchover { .. } => None,
    });
    let mut ranking = Ranking::default();
    for (id, member) in &o.cluster.members {
        if member.kind != MemberKind::Data || Some(*id) == without {
            continue;
        }
        let report = if *id == o.me { Some(&mine) } else { o.report(*id, REPORT_FRESH) };
        // Whom an operator names for a failover may lie behind: it is the operator who says what may be lost.
        let ahead = last_known.filter(|_| named != Some(*id));
        let found = match failsafe::is_listed(o, *id) {
            true => fitness(o, member, report, ahead),
            false => Err(failsafe::NOT_LISTED.to_owned()),
        };
        match found {
            Ok((position, report)) => ranking.candidates.push(Candidate {
                id: *id,
                position,
                priority: member.tags.failover_priority(),
                report: report.clone(),
            }),
            Err(why) => ranking.unfit.push(Unfit { id: *id, why }),
        }
    }
    ranking.candidates.sort_by_cached_key(|candidate| {
        let name = o.cluster.name_of(candidate.id);
        (candidate.report.stands_back, Reverse((candidate.position, candidate.priority)), name)
    });
    ranking
}

fn fitness<'a>(
    o: &Observation,
    member: &pgherd_raft::model::Member,
    report: Option<&'a MemberReport>,
    last_known: Option<WalPosition>,
) -> Result<(WalPosition, &'a MemberReport), String> {
    if !member.tags.may_be_promoted() {
        return Err("is not allowed to be promoted (tag nofailover, or failover_priority 0)".to_owned());
    }
    let report = report.ok_or("does not answer")?;
    if report.watchdog_failed {
        return Err(NO_WATCHDOG.to_owned());
    }
    if report.shutting_down {
        return Err("is shutting down".to_owned());
    }
    if !report.has_data {
        return Err("has no data".to_owned());
    }
    if o.cluster.system_identifier.is_some() && report.system_identifier != o.cluster.system_identifier {
        return Err("belongs to another database system, or its system identifier is not known".to_owned());
    }
    let position = report.position.ok_or("does not know its WAL position")?;
    if let Some(last) = last_known {
        if o.policy.check_timeline && position.timeline < last.timeline {
            let (own, last) = (position.timeline, last.timeline);
            return Err(format!("is on timeline {own}, and the primary was on {last} (check_timeline)"));
        }
        let lag = last.lsn.bytes_after(position.lsn);
        if position.timeline <= last.timeline && lag > o.policy.maximum_lag_on_failover {
            let limit = o.policy.maximum_lag_on_failover;
            return Err(format!("lies {lag} bytes behind the primary's last known position (limit {limit})"));
        }
    }
    Ok((position, report))
}
