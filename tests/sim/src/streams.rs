//! Streaming replication between the nodes: connections, what flows over them, and the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ha::{SyncInUse, SyncNames};
use crate::lease::BootTime;
use crate::model::{Lsn, SyncSet};

use crate::faults::Fault;
use crate::mutants::Mutant;
use crate::node::NAMES;
use crate::world::World;

/// As in the product: how long walsenders may take to handle a signal.
const SETTLES: Duration = Duration::from_millis(500);
const LEFT_LONG_AGO: Duration = Duration::from_secs(60);

/// What a daemon remembers of one value of `synchronous_standby_names` in one life of the postmaster.
#[derive(Clone, Debug)]
pub(crate) struct SyncUse {
    pid: u32,
    value: SyncNames,
    seen_at: BootTime,
    checkpoint: Checkpoint,
    since: Option<Lsn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checkpoint {
    Wanted,
    /// Until this true time at least.
    Running(u64),
    Done,
}

/// Two values that are written alike are equal.
fn text(names: &SyncNames) -> Option<(SyncSet, bool)> {
    let SyncNames::Agreed { set, any } = names else { return None };
    Some((set.clone(), *any && !set.is_asynchronous()))
}

impl World {
    pub(crate) fn stream(&mut self, place: usize) {
        let now = self.now;
        let node = &mut self.nodes[place];
        if node.is_frozen(now) {
            return;
        }
        let Some(server) = node.server.as_mut() else { return };
        let told_to_end = server.receiver_ends_at.is_some_and(|at| now >= at);
        if now < node.data_stalled.1 {
            return;
        }
        if server.connection.is_some() && (told_to_end || now >= server.receiver_until) {
            server.end_receiver(&mut node.data);
        }
        match server.connection {
            Some((from, pid)) => self.receive_wal(place, from, pid),
            None => self.connect(place),
        }
    }

    fn connect(&mut self, place: usize) {
        let now = self.now;
        let node = &self.nodes[place];
        let Some(server) = node.server.as_ref().filter(|s| s.is_ready(now) && s.is_in_recovery) else {
            return;
        };
        let Some(from) = server.upstream.filter(|from| *from != place && self.connected(place, *from)) else {
            return;
        };
        let may_stream = node.data.wal.may_stream_from(&self.nodes[from].data.wal);
        let source = &mut self.nodes[from];
        let is_frozen = source.is_frozen(now);
        let Some(sender) = source.server.as_mut().filter(|s| !is_frozen && s.is_open(now)) else { return };
        let pid = sender.pid;
        if sender.refuses && now < source.refuses.1 {
            self.prove(Fault::StopPostmaster, from);
            return;
        }
        if may_stream && sender.commits.connect(place, now) {
            let server = self.nodes[place].server.as_mut().expect("it runs");
            server.connection = Some((from, pid));
            server.receiver_until = now + crate::model_postgres::RECEIVER_TIMEOUT;
        }
    }

    fn receive_wal(&mut self, place: usize, from: usize, pid: u32) {
        let now = self.now;
        let (behind, flushes) = (self.random.below(400), self.random.per_mille(500));
        let stalls = self.random.per_mille(3 + self.network.weather.late / 50);
        let delay = if stalls { self.random.below(2_000_000) } else { self.random.between(500, 15_000) };
        let connected = self.connected(place, from);
        let source = &self.nodes[from];
        let Some(sender) = source.server.as_ref() else {
            if connected {
                self.lose_connection(place);
            }
            return;
        };
        if sender.pid != pid || !sender.commits.senders.contains_key(&place) {
            if connected {
                self.lose_connection(place);
            }
            return;
        }
        if !connected || source.is_frozen(now) || sender.is_killed {
            return;
        }
        let ends = sender.stops_at.is_some_and(|(_, clean)| clean);
        if !self.nodes[place].server.as_ref().is_some_and(|s| s.is_ready(now) && s.is_in_recovery) {
            return;
        }
        let wal = std::mem::take(&mut self.nodes[from].data.wal);
        let node = &mut self.nodes[place];
        let server = node.server.as_mut().expect("it runs");
        let branches = node.data.wal.timeline();
        let outcome = server.stream(&mut node.data, &wal, ends, now, behind);
        if flushes || ends || node.data.wal.timeline() != branches {
            node.data.flushed = node.data.wal.end;
        }
        let flushed = node.data.flushed;
        self.nodes[from].data.wal = wal;
        if let Err(mixed) = outcome {
            self.fail(format!("{}: {mixed}", NAMES[place]));
        }
        let sender = self.nodes[from].server.as_mut().and_then(|s| s.commits.senders.get_mut(&place));
        sender.expect("it was there").answer(now + delay, flushed);
    }

    fn lose_connection(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if let Some(server) = &mut node.server {
            server.end_receiver(&mut node.data);
        }
    }

    /// Walsenders and checkpointer of a running server, and what clients are told.
    pub(crate) fn acknowledge(&mut self, place: usize) {
        let now = self.now;
        let Some(server) = self.nodes[place].server.as_ref().filter(|server| server.is_ready(now)) else {
            return;
        };
        let pid = server.pid;
        let mut hears = [false; NAMES.len()];
        let mut is_open = [false; NAMES.len()];
        for standby in server.commits.senders.keys().copied() {
            hears[standby] = self.network.reaches(standby, place);
            let theirs = self.nodes[standby].server.as_ref().and_then(|server| server.connection);
            is_open[standby] = theirs == Some((place, pid));
        }
        let node = &mut self.nodes[place];
        let flushed = node.data.flushed;
        let server = node.server.as_mut().expect("it runs");
        let before = server.commits.told;
        server.commits.read_values(now, &mut self.random);
        if server.is_writable(now) {
            server.commits.tell(now, flushed, |standby| hears[standby], |standby| is_open[standby]);
            self.count_commits(place, before);
        }
    }

    /// As the product finds out when the whole server uses a value.
    pub(crate) fn note_sync(&mut self, place: usize) -> Option<SyncInUse> {
        let takes = self.random.between(50_000, 800_000);
        let mutant = self.setting.mutant;
        let now = self.now;
        let node = &mut self.nodes[place];
        let clock = node.clock(now);
        let server = node.server.as_ref().filter(|server| server.is_ready(now) && node.guard.is_some())?;
        let daemon = node.daemon.as_mut()?;
        let configured = &node.data.sync_names;
        let end = if server.is_in_recovery { node.data.flushed } else { node.data.wal.end };
        if text(configured).is_none() {
            daemon.sync_use = None;
            return Some(SyncInUse { set: configured.set(), since: Lsn(end) });
        }
        if text(&server.commits.value) != text(configured) && mutant != Some(Mutant::NarrowUnseen) {
            return None;
        }
        let before = daemon.sync_use.take().filter(|known| known.pid == server.pid);
        let mut known = match before {
            Some(known) if text(&known.value) == text(configured) => known,
            before => {
                let waited = |known: SyncUse| {
                    !known.value.set().is_asynchronous() && known.checkpoint == Checkpoint::Done
                };
                let did_wait = configured.set().is_asynchronous() || before.is_some_and(waited);
                let checkpoint = if did_wait { Checkpoint::Done } else { Checkpoint::Wanted };
                let (pid, value) = (server.pid, configured.clone());
                SyncUse { pid, value, seen_at: clock, checkpoint, since: None }
            }
        };
        if let Checkpoint::Running(until) = known.checkpoint
            && now >= until
            && server.commits.checkpointer_has_read()
        {
            known.checkpoint = Checkpoint::Done;
        }
        if known.since.is_none() && clock.since(known.seen_at) >= SETTLES {
            match known.checkpoint {
                Checkpoint::Wanted => known.checkpoint = Checkpoint::Running(now + takes),
                Checkpoint::Running(_) => {}
                Checkpoint::Done => known.since = Some(Lsn(end)),
            }
        }
        if mutant == Some(Mutant::NarrowUnseen) {
            known.since.get_or_insert(Lsn(end));
        }
        let since =
            known.since.map(|since| if mutant == Some(Mutant::NarrowBehind) { Lsn(0) } else { since });
        let set = configured.set();
        daemon.sync_use = Some(known);
        since.map(|since| SyncInUse { set, since })
    }

    /// Who streamed from this server and does so no more, and for how long.
    pub(crate) fn note_streams(&mut self, place: usize) -> BTreeMap<String, Duration> {
        let now = self.now;
        let node = &mut self.nodes[place];
        let clock = node.clock(now);
        let (Some(server), Some(daemon)) = (&node.server, &mut node.daemon) else { return BTreeMap::new() };
        if server.is_in_recovery {
            daemon.streamed_at.clear();
            return BTreeMap::new();
        }
        daemon.streamed_at.extend(server.commits.senders.keys().map(|standby| (*standby, clock)));
        daemon.streamed_at.retain(|_, at| clock.since(*at) < LEFT_LONG_AGO);
        let gone =
            daemon.streamed_at.iter().filter(|(standby, _)| !server.commits.senders.contains_key(standby));
        gone.map(|(standby, at)| (NAMES[*standby].to_owned(), clock.since(*at))).collect()
    }
}
