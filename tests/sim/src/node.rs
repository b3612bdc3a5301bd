//! One machine: a clock of its own, what its disk holds, and the processes on it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ha::{
    Closes, Consensus, DataDir, Fact, GuardFacts, Health, LeaseFacts, MemberReport, Observation, Policy,
    PostgresFacts, Process, Receiver, Sender, Server as ServerFacts, SyncInUse, SyncMode, SyncPolicy,
    Upstream,
};
use crate::lease::BootTime;
use crate::model::{ClusterState, Epoch, Lsn, MemberId, MemberKind, PostgresAddr, WalPosition};

use crate::daemon::Daemon;
use crate::model_guard::Guard;
use crate::model_postgres::{Data, Directory, Server};
use crate::model_sync::Walsender;

pub(crate) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

pub(crate) fn id(node: usize) -> MemberId {
    MemberId(node as u64 + 1)
}

pub(crate) fn index(id: MemberId) -> usize {
    usize::try_from(id.0 - 1).expect("a small number")
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
    /// How much faster than true time its clock runs, in parts per million.
    pub(crate) ppm: i64,
    pub(crate) clock_offset: u64,
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
    pub(crate) lives: u64,
}

impl Node {
    /// This machine's CLOCK_BOOTTIME.
    pub(crate) fn clock(&self, now: u64) -> BootTime {
        let now = i64::try_from(now).expect("a short simulation");
        let own = now + now * self.ppm / 1_000_000;
        BootTime(Duration::from_micros(self.clock_offset + own.unsigned_abs()))
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
        leader: Option<usize>,
        term: u64,
        now: u64,
        sync: SyncFacts,
    ) -> Observation {
        let clock = self.clock(now);
        let voters = cluster.members.keys().copied().collect();
        let raft_leader = leader.map(id);
        let guard = self.guard.as_ref().filter(|_| daemon.holder.is_some());
        Observation {
            now: clock,
            me: id(self.place),
            consensus: Consensus {
                is_raft_leader: leader == Some(self.place),
                raft_leader,
                term,
                voters,
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
                ..LeaseFacts::default()
            },
            guard: guard.map_or_else(
                || Fact::Unknown("no guard".to_owned()),
                |guard| {
                    Fact::fresh(GuardFacts {
                        session: guard.session,
                        deadline: guard.armed.map(|armed| armed.deadline),
                        epoch: guard.armed.map(|armed| armed.epoch).unwrap_or_default(),
                        heartbeat_age: Duration::ZERO,
                        killing_for: None,
                        watchdog: Default::default(),
                    })
                },
            ),
            postgres: self.postgres_facts(now, sync),
            peers: self.peers(daemon, &cluster, clock),
            job: daemon.jobs.job(clock),
            finished: daemon.jobs.finished(clock),
            intent_for: daemon.intent_for(&cluster, clock),
            shutting_down: daemon.shutting_down,
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
        let others = cluster.members.iter().filter(|(member, _)| **member != id(self.place));
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
            (Some(_), Some(server)) => Fact::fresh(Process::Running { pid: server.pid, is_child: true }),
        };
        let control = data.control().map_or_else(|| Fact::Unknown("no data".to_owned()), Fact::fresh);
        let server = self.server.as_ref().filter(|server| server.is_ready(now));
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
            health: Health::default(),
        }
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
            receiver: upstream.map(|from| Receiver {
                status: if streams { "streaming" } else { "waiting" }.to_owned(),
                from: Some(postgres_addr(from)),
                slot: None,
            }),
            senders: server.commits.senders.iter().map(|(standby, sender)| row(*standby, sender)).collect(),
            physical_slots: Vec::new(),
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

/// The defaults, with an impatient start-up; the settings of this world are five words.
pub(crate) fn policy(cluster: &ClusterState, first: &str) -> Policy {
    let document = if cluster.settings.document.is_empty() { first } else { &cluster.settings.document };
    let mut words = document.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let ttl = word().parse().expect("a ttl");
    let mode = match word() {
        "on" => SyncMode::On,
        "quorum" => SyncMode::Quorum,
        _ => SyncMode::Off,
    };
    let strict = word() == "strict";
    let node_count = word().parse().expect("a number");
    let fast_failover = word() == "fast";
    Policy {
        ttl: Duration::from_secs(ttl),
        loop_wait: Duration::from_secs(10),
        retry_timeout: Duration::from_secs(10),
        maximum_lag_on_failover: 1_048_576,
        primary_start_timeout: Duration::from_secs(20),
        primary_health_timeout: Duration::from_secs(10),
        pause: false,
        failsafe: false,
        sync: SyncPolicy { mode, strict, node_count, fast_failover, ..SyncPolicy::default() },
        use_pg_rewind: true,
        use_slots: false,
        bootstrap_settings: first.to_owned(),
    }
}
