//! This node's voter of the lease: the pure voter, the applied record, and the durable floor brought together.
//!
//! Promises that no acknowledgement and no close leaves this node before the floor behind it is on disk, also when
//! several questions are answered at once.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::lease::{
    Answer, BootTime, CloseRequest, CloseVerdict, Renewal, RenewalAnswer, RenewalVerdict, Voter,
};
use crate::model::{Epoch, Lease, MemberId};
use crate::state_machine::Applied;
use crate::store::Store;

/// This node's voter.
#[derive(Debug)]
pub(crate) struct LeaseVoter {
    me: MemberId,
    voter: Mutex<Voter>,
    store: Store,
    applied: watch::Receiver<Arc<Applied>>,
}

impl LeaseVoter {
    pub(crate) fn new(me: MemberId, store: Store, applied: watch::Receiver<Arc<Applied>>) -> Self {
        let voter = Mutex::new(Voter::new(store.floor(), clock::now()));
        Self { me, voter, store, applied }
    }

    fn voter(&self) -> MutexGuard<'_, Voter> {
        self.voter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The applied record moved: the quiet time of a new epoch begins.
    pub(crate) fn learn(&self, lease: &Lease) {
        self.voter().learn(lease, clock::now());
    }

    pub(crate) fn quiet_for(&self, now: BootTime) -> Duration {
        self.voter().quiet_for(now)
    }

    pub(crate) async fn renew(&self, request: &Renewal) -> io::Result<RenewalAnswer> {
        let Answer { floor, verdict } = {
            let mut voter = self.voter();
            let applied = Arc::clone(&self.applied.borrow());
            let lease = &applied.state.lease;
            if lease.epoch == request.epoch && !lease.voters.contains(&self.me) {
                voter.overhear(lease, request, clock::now());
                Answer { floor: None, verdict: RenewalVerdict::NotAVoter }
            } else {
                voter.renewal(lease, request, clock::now())
            }
        };
        self.ensure_durable(floor).await?;
        let Renewal { epoch, incarnation, round, .. } = *request;
        Ok(RenewalAnswer { epoch, incarnation, round, verdict })
    }

    pub(crate) async fn close(&self, request: &CloseRequest) -> io::Result<CloseVerdict> {
        let Answer { floor, verdict } = {
            let mut voter = self.voter();
            let applied = Arc::clone(&self.applied.borrow());
            let lease = &applied.state.lease;
            if lease.epoch == request.epoch && !lease.voters.contains(&self.me) {
                Answer { floor: None, verdict: CloseVerdict::NotAVoter }
            } else {
                voter.close(lease, request, clock::now())
            }
        };
        self.ensure_durable(floor).await?;
        Ok(verdict)
    }

    async fn ensure_durable(&self, floor: Option<Epoch>) -> io::Result<()> {
        if let Some(floor) = floor {
            self.store.save_floor(floor).await?;
            self.voter().written(floor);
        }
        Ok(())
    }
}
