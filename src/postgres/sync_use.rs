//! When does the whole server use a `synchronous_standby_names` that was written and reloaded?
//!
//! Each walsender reads the new value when it handles the signal, and whether commits wait at all is told to them by the
//! checkpointer. A value that a session sees was sent to all of them at that moment; [`SETTLES`] gives them time to
//! handle it. The checkpointer handles signals between two checkpoints only, which may take minutes: where commits did
//! not wait before, a checkpoint asked for afterwards shows by its end that it has.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::Lsn;

use super::server::Answered;
use super::{Postgres, sync_names};
use crate::ha::{SyncInUse, SyncNames};

/// How long walsenders may take to handle a signal that was sent to them.
const SETTLES: Duration = Duration::from_millis(500);
/// A checkpoint may take long, but one that never ends is asked for again.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(3600);
/// Who left longer ago than this is forgotten.
const LEFT_LONG_AGO: Duration = Duration::from_secs(60);
/// More names than a cluster has members are not remembered.
const MOST_NAMES: usize = 128;

/// What is remembered of one value in one life of the postmaster.
#[derive(Clone, Debug)]
pub(super) struct SyncUse {
    pid: u32,
    text: String,
    seen_at: BootTime,
    checkpoint: Checkpoint,
    since: Option<Lsn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checkpoint {
    Wanted,
    Running,
    Done,
}

impl Postgres {
    /// The configured set, once the whole server uses it; and whether the server sees another value than the file has.
    pub(super) fn note_sync(
        &self,
        pid: u32,
        answered: &Answered,
        configured: &SyncNames,
    ) -> Option<SyncInUse> {
        let position = answered.server.position.lsn;
        let Some(text) = sync_names::render(configured) else {
            self.cache().sync_use = None;
            return Some(SyncInUse { set: configured.set(), since: position });
        };
        if answered.sync_names != text {
            return None;
        }
        let now = clock::now();
        let mut cache = self.cache();
        let before = cache.sync_use.take().filter(|known| known.pid == pid);
        let mut known = match before {
            Some(known) if known.text == text => known,
            before => {
                // An earlier value under which commits wait proves something only once it was proved itself.
                let waited = |known: SyncUse| !known.text.is_empty() && known.checkpoint == Checkpoint::Done;
                let did_wait = text.is_empty() || before.is_some_and(waited);
                let checkpoint = if did_wait { Checkpoint::Done } else { Checkpoint::Wanted };
                SyncUse { pid, text, seen_at: now, checkpoint, since: None }
            }
        };
        if known.since.is_none() && now.since(known.seen_at) >= SETTLES {
            match known.checkpoint {
                Checkpoint::Wanted => {
                    known.checkpoint = Checkpoint::Running;
                    self.checkpoint_to_prove_use(pid, known.text.clone());
                }
                Checkpoint::Running => {}
                Checkpoint::Done => known.since = Some(position),
            }
        }
        let since = known.since;
        cache.sync_use = Some(known);
        since.map(|since| SyncInUse { set: configured.set(), since })
    }

    fn checkpoint_to_prove_use(&self, pid: u32, text: String) {
        let this = self.clone();
        self.in_background(async move {
            let ended = match this.connect().await {
                Ok(session) => session.checkpoint(CHECKPOINT_LIMIT).await.map_err(super::PgError::from),
                Err(error) => Err(error),
            };
            if let Err(error) = &ended {
                tracing::warn!(
                    "the checkpoint before synchronous replication counts failed: {}",
                    error.in_full()
                );
            }
            let mut cache = this.cache();
            if let Some(known) =
                cache.sync_use.as_mut().filter(|known| known.pid == pid && known.text == text)
            {
                known.checkpoint = if ended.is_ok() { Checkpoint::Done } else { Checkpoint::Wanted };
            }
        });
    }

    /// Who streams from this server and does not get on though there is more, and for how long.
    pub(super) fn note_stalls(&self, answered: &Answered) -> BTreeMap<String, Duration> {
        let (now, written) = (clock::now(), answered.server.position.lsn);
        let mut cache = self.cache();
        let mut stalls = BTreeMap::new();
        let senders = answered.server.senders.iter().filter(|sender| sender.state == "streaming");
        for sender in senders.take(MOST_NAMES) {
            let Some(flushed) = sender.flushed.filter(|flushed| *flushed < written) else { continue };
            let name = &sender.application_name;
            let before = cache.stalled_at.get(name).filter(|(stuck, _)| *stuck == flushed);
            stalls.insert(name.clone(), before.copied().unwrap_or((flushed, now)));
        }
        cache.stalled_at.clone_from(&stalls);
        stalls.into_iter().map(|(name, (_, since))| (name, now.since(since))).collect()
    }

    /// Who streamed from this server and does so no more, and for how long. Those whom a new primary waits for count as
    /// if they had streamed until its beginning.
    pub(super) fn note_streams(
        &self,
        pid: u32,
        answered: &Answered,
        configured: &SyncNames,
    ) -> BTreeMap<String, Duration> {
        let now = clock::now();
        let mut cache = self.cache();
        let is_new = cache.primary_pid != Some(pid);
        cache.primary_pid = Some(pid).filter(|_| !answered.server.is_in_recovery);
        let streams = &mut cache.streamed_at;
        if answered.server.is_in_recovery {
            streams.clear();
            return BTreeMap::new();
        }
        if is_new {
            streams.extend(configured.set().names.iter().map(|name| (name.to_string(), now)));
        }
        let senders = answered.server.senders.iter();
        let streaming =
            senders.filter(|sender| sender.state == "streaming").map(|sender| &sender.application_name);
        for name in streaming.clone() {
            if streams.len() < MOST_NAMES || streams.contains_key(name) {
                streams.insert(name.clone(), now);
            }
        }
        streams.retain(|_, at| now.since(*at) < LEFT_LONG_AGO);
        let is_here = |name: &String| streaming.clone().any(|here| here == name);
        streams
            .iter()
            .filter(|(name, _)| !is_here(name))
            .map(|(name, at)| (name.clone(), now.since(*at)))
            .collect()
    }
}
