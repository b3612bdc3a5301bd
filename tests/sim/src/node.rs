//! One machine: a clock of its own, what its disk holds, and the processes on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ha::{
    Closes, Consensus, DataDir, Fact, GUARD_STALE, GuardFacts, Health, LeaseFacts, MemberReport, Observation,
    Policy, PostgresFacts, Probe, Process, Receiver, Sender, Server as ServerFacts, SlotFacts, SlotPolicy,
    SyncInUse, SyncMode, SyncPolicy, Upstream, WatchdogFacts,
};
use crate::lease::BootTime;
use crate::model::{ClusterState, Epoch, Lsn, MemberId, MemberKind, PostgresAddr, WalPosition};
use crate::settings::Settings;

use crate::daemon::Daemon;
use crate::model_guard::Guard;
use crate::model_postgres::{Data, Directory, Server};
use crate::model_sync::Walsender;

pub(crate) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Ids tell the stores of one node apart.
const PLACES: u64 = 16;

pub(crate) fn index(id: MemberId) -> usize {
    usize::try_from((id.0 - 1) % PLACES).expect("a small number")
}

pub(crate) fn postgres_addr(node: usize) -> PostgresAddr {
    PostgresAddr { host: NAMES[node].to_owned(), port: 5432 }
}

fn upstream(node: usize) -> Upstream {
    Upstream { name: NAMES[node].to_owned(), addr: postgres_addr(node) }
}

pub(crate) struct Node {
    pub(crate) place: usize,
    pub(crate) first_settings: String,
    pub(crate) is_data: bool,
    /// The last pinned epoch of its own in which its daemon was stopped cleanly.
    pub(crate) stopped_in_pause: Epoch,
    /// How much faster than true time its clock runs, in parts per million.
    pub(crate) ppm: i64,
    pub(crate) clock_offset: u64,
    /// The number of its consensus store: a lost one is followed by another, under another id.
    pub(crate) store: u64,
    // On disk:
    pub(crate) data: Data,
    pub(crate) configured_upstream: Option<usize>,
    pub(crate) floor: Epoch,
    pub(crate) given_up: Epoch,
    /// Up to this epoch it follows nobody.
    pub(crate) fenced: Epoch,
    /// What the store holds of the log when the daemon starts again.
    pub(crate) stored: usize,
    // Processes:
    pub(crate) guard: Option<Guard>,
    pub(crate) server: Option<Server>,
    pub(crate) daemon: Option<Daemon>,
    /// True times until which nothing runs, or not the daemon; and when the daemon is started again.
    pub(crate) frozen_until: u64,
    pub(crate) daemon_stopped_until: u64,
    pub(crate) daemon_starts_at: Option<u64>,
    /// Of the longest promise to stand back that may be in force.
    pub(crate) promise_length: Duration,
    /// By this request an operator said that it is dead, and sees to it until that is done.
    pub(crate) off_for: Option<u64>,
    /// The daemon's loop waits for its answer until then.
    pub(crate) guard_asked_until: Option<u64>,
    /// From and until: the guard makes no step.
    pub(crate) guard_stopped: (u64, u64),
    /// Nothing that is written to the consensus disk comes back until this true time.
    pub(crate) log_stalled_until: u64,
    /// From and until: the same for the data disk.
    pub(crate) data_stalled: (u64, u64),
    /// From and until: the postmaster accepts no connection.
    pub(crate) refuses: (u64, u64),
    /// Tools that begin before these true times fail, or hang until then.
    pub(crate) tools_fail_until: u64,
    pub(crate) tools_hang_until: u64,
    pub(crate) lives: u64,
}

impl Node {
    /// This machine's CLOCK_BOOTTIME.
    pub(crate) fn clock(&self, now: u64) -> BootTime {
        let now = i64::try_from(now).expect("a short simulation");
        let own = now + now * self.ppm / 1_000_000;
        BootTime(Duration::from_micros(self.clock_offset + own.unsigned_abs()))
    }

    pub(crate) fn id(&self) -> MemberId {
        MemberId(self.store * PLACES + self.place as u64 + 1)
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.armed.is_some())
    }

    pub(crate) fn guard_is_stale(&self, now: u64) -> bool {
        self.guard.is_some() && self.guard_is_silent_for(now) > GUARD_STALE
    }

    fn guard_is_silent_for(&self, now: u64) -> Duration {
        let (from, until) = self.guard_stopped;
        if now < until { self.clock(now).since(self.clock(from)) } else { Duration::ZERO }
    }

    /// SIGKILL: what waits for a disk goes when the disk answers.
    pub(crate) fn kill_server(&mut self, now: u64) {
        let clock = self.clock(now);
        let Some(server) = &mut self.server else { return };
        if now < self.data_stalled.1 {
            server.is_killed = true;
            if let Some(guard) = &mut self.guard {
                guard.killing_since.get_or_insert(clock);
            }
        } else {
            self.end_server();
        }
    }

    pub(crate) fn end_server(&mut self) {
        self.server = None;
        if let Some(guard) = &mut self.guard {
            guard.killing_since = None;
        }
    }

    pub(crate) fn is_frozen(&self, now: u64) -> bool {
        now < self.frozen_until
    }

    pub(crate) fn daemon_runs(&self, now: u64) -> bool {
        self.daemon.is_some() && !self.is_frozen(now) && now >= self.daemon_stopped_until
    }

    /// A client of this node could be told that its commit is safe.
    pub(crate) fn acknowledges(&self, now: u64) -> bool {
        !self.is_frozen(now) && self.server.as_ref().is_some_and(|server| server.is_writable(now))
    }

    pub(crate) fn streams(&self, now: u64) -> bool {
        self.server.as_ref().is_some_and(|server| {
            server.is_ready(now) && server.is_in_recovery && now < server.receiver_until
        })
    }

    /// A walreceiver may still write something.
    pub(crate) fn receives(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.connection.is_some())
    }

    pub(crate) fn observe(
        &self,
        daemon: &Daemon,
        cluster: ClusterState,
        raft: (Option<MemberId>, u64, &BTreeSet<MemberId>),
        now: u64,
        sync: SyncFacts,
    ) -> Observation {
        let clock = self.clock(now);
        let (raft_leader, term, voters) = raft;
        let guard = self.guard.as_ref().filter(|_| daemon.holder.is_some());
        let mut postgres = self.postgres_facts(now, sync);
        let found = std::mem::take(&mut postgres.health);
        postgres.health = daemon.memory.borrow_mut().complete(found, &postgres, clock);
        Observation {
            now: clock,
            me: self.id(),
            consensus: Consensus {
                is_raft_leader: raft_leader == Some(self.id()),
                raft_leader,
                term,
                voters: voters.clone(),
                waiting_for: None,
            },
            lease: LeaseFacts {
                licence: daemon.licence(),
                disputed: daemon.holder.as_ref().and_then(|(_, holder)| holder.disputed()),
                given_up: self.given_up,
                known_at_start: daemon.known_at_start,
                quiet_for: daemon.voter.quiet_for(clock),
                answering: daemon.answering(),
                closes: daemon
                    .closes
                    .as_ref()
                    .map(|(closes, at)| Closes { age: clock.since(*at), ..closes.clone() }),
                failsafe: daemon.holder.as_ref().map(|(_, holder)| holder.failsafe()).unwrap_or_default(),
                stands_back: daemon.promise.in_force(clock),
                ..LeaseFacts::default()
            },
            guard: guard.map_or_else(
                || Fact::Unknown("no guard".to_owned()),
                |guard| {
                    Fact::fresh(GuardFacts {
                        session: guard.session,
                        deadline: guard.armed.map(|armed| armed.deadline),
                        epoch: guard.armed.map(|armed| armed.epoch).unwrap_or_default(),
                        heartbeat_age: self.guard_is_silent_for(now),
                        killing_for: guard.killing_since.map(|since| clock.since(since)),
                        stopped_by_others: None,
                        watchdog: WatchdogFacts::default(),
                    })
                },
            ),
            postgres,
            peers: self.peers(daemon, &cluster, clock),
            job: daemon.jobs.job(clock),
            finished: daemon.jobs.finished(clock),
            intent_for: daemon.intent_for(&cluster, clock),
            shutting_down: daemon.shutting_down,
            wall_ms: 0,
            operation: None,
            scheduled_restart: None,
            slots: SlotFacts::default(),
            policy: policy(&cluster, &self.first_settings),
            cluster,
        }
    }

    fn peers(
        &self,
        daemon: &Daemon,
        cluster: &ClusterState,
        clock: BootTime,
    ) -> BTreeMap<MemberId, Fact<MemberReport>> {
        let others = cluster.members.iter().filter(|(member, _)| **member != self.id());
        others
            .filter(|(_, member)| member.kind == MemberKind::Data)
            .map(|(member, _)| {
                let fact = match daemon.reports.get(member) {
                    Some((at, value)) => Fact::Known { value: value.clone(), age: clock.since(*at) },
                    None => Fact::Unknown("no report yet".to_owned()),
                };
                (*member, fact)
            })
            .collect()
    }

    fn postgres_facts(&self, now: u64, sync: SyncFacts) -> PostgresFacts {
        let data = &self.data;
        let data_dir = match data.directory {
            Directory::Empty => DataDir::Empty,
            Directory::Incomplete => DataDir::Incomplete,
            Directory::Initialised => DataDir::Initialised {
                has_backup_label: data.has_backup_label,
                has_standby_signal: data.has_standby_signal,
            },
        };
        let process = match (&self.guard, &self.server) {
            (None, _) => Fact::Unknown("there is no guard".to_owned()),
            (Some(_), None) => Fact::fresh(Process::Stopped),
            (Some(_), Some(server)) if server.is_killed => Fact::fresh(Process::Ending),
            (Some(_), Some(server)) => Fact::fresh(Process::Running { pid: server.pid, is_child: true }),
        };
        let control = data.control().map_or_else(|| Fact::Unknown("no data".to_owned()), Fact::fresh);
        let server = self.server.as_ref().filter(|server| server.is_open(now));
        PostgresFacts {
            data_dir,
            control,
            process,
            server: server.map_or_else(
                || Fact::Unknown("no connection".to_owned()),
                |server| Fact::fresh(self.server_facts(server, now)),
            ),
            configured_upstream: self.configured_upstream.filter(|_| data.has_standby_signal).map(upstream),
            history: data.wal.history(),
            never_ready: false,
            newest_history: data.wal.position().timeline,
            has_old_data: data.has_old_data,
            sync_configured: data.sync_names.clone(),
            sync_in_use: sync.in_use,
            left_stream: sync.left_stream,
            stalled_stream: BTreeMap::new(),
            fenced: self.fenced,
            health: self.probes(now),
            pending_restart: BTreeMap::new(),
        }
    }

    /// Of a primary all is asked, of a standby its disk.
    fn probes(&self, now: u64) -> Health {
        let clock = self.clock(now);
        let found = |(from, until): (u64, u64)| {
            if now < until {
                Probe::Fails { since: clock.since(self.clock(from)), why: "no answer".to_owned() }
            } else {
                Probe::Succeeds { age: Duration::ZERO }
            }
        };
        let disk = found(self.data_stalled);
        let Some(server) = self.server.as_ref().filter(|server| server.is_writable(now)) else {
            return Health { disk, ..Health::default() };
        };
        let accepts = if server.refuses { found(self.refuses) } else { found((0, 0)) };
        Health { accepts, writes: disk.clone(), disk, ..Health::default() }
    }

    fn server_facts(&self, server: &Server, now: u64) -> ServerFacts {
        let position = match self.data.wal.position() {
            written if server.is_in_recovery => WalPosition { lsn: Lsn(self.data.flushed), ..written },
            written => written,
        };
        let streams = now < server.receiver_until;
        let upstream = server.connection.map(|(from, _)| from);
        ServerFacts {
            is_in_recovery: server.is_in_recovery,
            position,
            replayed: server.is_in_recovery.then_some(position.lsn),
            replayed_at: None,
            replay_paused: false,
            has_archive: false,
            receiver: upstream.map(|from| Receiver {
                status: if streams { "streaming" } else { "waiting" }.to_owned(),
                from: Some(postgres_addr(from)),
                slot: None,
            }),
            senders: server.commits.senders.iter().map(|(standby, sender)| row(*standby, sender)).collect(),
            slots: Vec::new(),
            is_logical: false,
            version: 150_018,
            started_at: String::new(),
        }
    }
}

/// What the daemon finds out about synchronous replication.
pub(crate) struct SyncFacts {
    pub(crate) in_use: Option<SyncInUse>,
    pub(crate) left_stream: BTreeMap<String, Duration>,
}

fn row(standby: usize, sender: &Walsender) -> Sender {
    let flushed = (sender.flushed > 0).then_some(Lsn(sender.flushed));
    Sender {
        application_name: NAMES[standby].to_owned(),
        client_addr: None,
        user: String::new(),
        state: "streaming".to_owned(),
        sync_state: String::new(),
        sync_priority: 0,
        written: flushed,
        flushed,
        replayed: flushed,
    }
}

/// The defaults, with an impatient start-up; the rest is settings of this world.
pub(crate) fn policy(cluster: &ClusterState, first: &str) -> Policy {
    let document = if cluster.settings.document.is_empty() { first } else { &cluster.settings.document };
    let settings = Settings::read(document);
    let mode = match settings.mode.as_str() {
        "on" => SyncMode::On,
        "quorum" => SyncMode::Quorum,
        _ => SyncMode::Off,
    };
    let Settings { strict, count: node_count, fast: fast_failover, pause, safe: failsafe, .. } = settings;
    let ttl = Duration::from_secs(settings.ttl);
    Policy {
        ttl,
        loop_wait: Duration::from_secs(10),
        // In some worlds a primary without promises becomes a replica before its lease ends.
        retry_timeout: Duration::from_secs(if strict { 2 } else { 10 }),
        maximum_lag_on_failover: 1_048_576,
        check_timeline: false,
        primary_start_timeout: Duration::from_secs(20),
        primary_stop_timeout: None,
        has_pre_promote: false,
        restores_alone: false,
        primary_health_timeout: Duration::from_secs(10),
        pause,
        failsafe,
        sync: SyncPolicy { mode, strict, node_count, fast_failover, ..SyncPolicy::default() },
        use_pg_rewind: true,
        use_slots: false,
        slots: SlotPolicy::default(),
        makes_no_cluster: None,
        bootstrap_settings: first.to_owned(),
    }
}
