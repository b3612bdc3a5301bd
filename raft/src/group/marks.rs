//! What this node tells the others of its store, what it remembers of theirs, and whether it may trust its own.
//!
//! Promises that every judgement follows `crate::mark`, that what the others remember of this node is compared with
//! its own store whenever it is heard, and that a store once found to be put back stays so. It never decides about
//! another member: it only does not believe it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::node;
use crate::mark::{Mark, Seen, Verdict, is_put_back, judge};
use crate::model::MemberId;
use crate::state_machine::Applied;
use crate::store::Store;

/// The format number of the memory on disk.
const MEMORY_FORMAT: u32 = 1;

/// Is the store the one that made this node's promises?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The others are still being asked.
    Asking,
    /// Enough others remember nothing that it does not have.
    Trusted,
    /// It was put back; a sentence that says who remembers what.
    PutBack(String),
}

/// The memory as it is written.
#[derive(Serialize, Deserialize)]
struct Memory {
    format: u32,
    seen: Vec<(MemberId, Seen)>,
}

/// The own store's identity at this opening.
#[derive(Debug)]
struct Own {
    id: MemberId,
    nonce: u64,
    opened: u64,
    store: Store,
    applied: watch::Receiver<Arc<Applied>>,
}

/// The marks of this node and of the others.
#[derive(Debug)]
pub(crate) struct Marks {
    /// None: a program that is no member.
    own: Option<Own>,
    seen: Mutex<BTreeMap<MemberId, Seen>>,
    is_unwritten: AtomicBool,
    news: Notify,
    trust: watch::Sender<Trust>,
}

impl Marks {
    /// Of a program that is no member: it has no mark and remembers nothing.
    pub(crate) fn stranger() -> Self {
        Self::with(None, BTreeMap::new())
    }

    /// Of a store just opened, before anything was written to it.
    pub(crate) fn new(store: Store, applied: watch::Receiver<Arc<Applied>>) -> Self {
        let opened = store.mark().sequence;
        let memory = store.memory().and_then(|bytes| serde_json::from_slice::<Memory>(bytes).ok());
        let memory = memory.filter(|memory| memory.format == MEMORY_FORMAT);
        let seen = memory.map(|memory| memory.seen.into_iter().collect()).unwrap_or_default();
        let own = Own { id: store.id(), nonce: node::random(), opened, store, applied };
        Self::with(Some(own), seen)
    }

    fn with(own: Option<Own>, seen: BTreeMap<MemberId, Seen>) -> Self {
        Self {
            own,
            seen: Mutex::new(seen),
            is_unwritten: AtomicBool::new(false),
            news: Notify::new(),
            trust: watch::Sender::new(Trust::Asking),
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<MemberId, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node's id; zero for a stranger.
    pub(crate) fn id(&self) -> MemberId {
        self.own.as_ref().map_or(MemberId(0), |own| own.id)
    }

    /// What every message of this node carries.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let Own { nonce, opened, store, .. } = self.own.as_ref()?;
        let now = store.mark();
        Some(Mark { boot: now.boot, nonce: *nonce, opened: *opened, sequence: now.sequence })
    }

    /// What is remembered of a member.
    pub(crate) fn seen(&self, id: MemberId) -> Option<Seen> {
        self.all().get(&id).copied()
    }

    /// A message or an answer of this member arrived. False: it must not be believed.
    pub(crate) fn hear(&self, from: MemberId, mark: Option<&Mark>) -> bool {
        let (Some(own), Some(mark)) = (&self.own, mark) else { return true };
        let mut all = self.all();
        match judge(all.get(&from), mark) {
            Verdict::Known => true,
            Verdict::Older => false,
            Verdict::News(next) => {
                if all.contains_key(&from) || is_member(&own.applied.borrow(), from) {
                    all.insert(from, next);
                    self.is_unwritten.store(true, Ordering::Relaxed);
                    self.news.notify_one();
                }
                true
            }
        }
    }

    /// Another member said what it remembers of this one.
    pub(crate) fn told(&self, by: MemberId, remembered: Option<&Seen>) {
        let (Some(own), Some(mark), Some(seen)) = (&self.own, self.mark(), remembered) else { return };
        if !is_put_back(seen, &mark) {
            return;
        }
        let by = own.applied.borrow().state.name_of(by);
        let sentence = format!(
            "{by} remembers its opening {} with write {}, this is opening {} with write {} found and {} now",
            seen.boot, seen.sequence, mark.boot, mark.opened, mark.sequence
        );
        self.trust.send_if_modified(|trust| {
            let first = !matches!(trust, Trust::PutBack(_));
            if first {
                *trust = Trust::PutBack(sentence);
            }
            first
        });
    }

    /// Enough others were asked.
    pub(crate) fn trust(&self) {
        self.trust.send_if_modified(|trust| {
            let asked = *trust == Trust::Asking;
            if asked {
                *trust = Trust::Trusted;
            }
            asked
        });
    }

    pub(crate) fn is_trusted(&self) -> bool {
        *self.trust.borrow() == Trust::Trusted
    }

    pub(crate) fn is_put_back(&self) -> bool {
        matches!(*self.trust.borrow(), Trust::PutBack(_))
    }

    /// Changes of the trust wake the receiver.
    pub(crate) fn watch(&self) -> watch::Receiver<Trust> {
        self.trust.subscribe()
    }

    /// Waits until the store is trusted, `limit` at most.
    pub(crate) async fn is_trusted_within(&self, limit: Duration) -> bool {
        let mut trust = self.watch();
        drop(tokio::time::timeout(limit, trust.wait_for(|trust| *trust != Trust::Asking)).await);
        self.is_trusted()
    }

    /// Waits until there is something that [`Marks::save`] would write.
    pub(crate) async fn until_news(&self) {
        while !self.is_unwritten.load(Ordering::Relaxed) {
            self.news.notified().await;
        }
    }

    /// Writes what is remembered, if it changed. `forget`: the applied state is up to date, so that whoever is not in
    /// it has left.
    pub(crate) async fn save(&self, forget: bool) {
        let Some(own) = &self.own else { return };
        if !self.is_unwritten.swap(false, Ordering::Relaxed) {
            return;
        }
        let seen = {
            let mut all = self.all();
            if forget {
                let applied = own.applied.borrow();
                all.retain(|id, _| is_member(&applied, *id));
            }
            all.iter().map(|(id, seen)| (*id, *seen)).collect()
        };
        if let Err(error) = own.store.save_memory(&Memory { format: MEMORY_FORMAT, seen }).await {
            tracing::debug!("what is remembered of the other members' stores was not written: {error}");
        }
    }
}

fn is_member(applied: &Applied, id: MemberId) -> bool {
    applied.state.members.contains_key(&id) || applied.membership.membership().get_node(&id.0).is_some()
}
