//! Runs the golden scripts: each sets facts, decides, and shows the decision as the log and the API show it.
//!
//! Members are `a`, `b`, `c` with the ids 1, 2, 3 and the guard sessions 11, 12, 13. `cluster` begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use goldenscript::{ArgumentConsumer, Command as ScriptCommand, Runner};
use pgherd_raft::lease::{BootTime, FailsafeFacts, Licence, StandingBack};
use pgherd_raft::model::{
    ClusterState, EndedIntent, Epoch, Event, GroupId, Intent, IntentEnd, Lease, Lsn, Member, MemberId,
    MemberKind, PendingIntent, PostgresAddr, Revision, ScheduledSwitchover, Session, Settings, SyncSet,
    SystemIdentifier, TagValue, Tags, Tenure, TimelineId, Timelines, WalPosition,
};

use super::*;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NOW: BootTime = BootTime(Duration::from_secs(1000));
/// 2026-01-01 10:00 UTC.
const WALL_MS: i64 = 1_767_261_600_000;
const SYSTEM: SystemIdentifier = SystemIdentifier(7001);

fn id(name: &str) -> MemberId {
    MemberId(u64::from(name.bytes().next().unwrap_or(b'?') - b'a') + 1)
}

fn ids(list: &str) -> BTreeSet<MemberId> {
    list.split(',').filter(|name| !name.is_empty()).map(id).collect()
}

fn session(of: MemberId) -> Session {
    Session(of.0 + 10)
}

fn ms(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse()?))
}

struct Script {
    o: Observation,
    notebook: Notebook,
    callbacks: CallbackMemory,
}

impl Runner for Script {
    type Command = ScriptCommand;

    fn run(&mut self, command: &ScriptCommand, _: &goldenscript::Context) -> Result<String> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "cluster" => self.o = cluster(&mut args)?,
            "ended" => {
                let pending = self.o.cluster.intent.take().ok_or("nothing is pending")?;
                let end = match args.next_pos() {
                    Some(holder) => IntentEnd::Done { holder: id(holder) },
                    None => IntentEnd::Refused("it was not its day".to_owned()),
                };
                self.o.cluster.last_intent = Some(EndedIntent { id: pending.id, end });
            }
            "later" => {
                let time = ms(args.next_pos().ok_or("how much later?")?)?;
                self.o.now = self.o.now.after(time);
            }
            "consensus" => self.consensus(&mut args)?,
            "guard" => self.guard(&mut args)?,
            "licence" => self.licence(&mut args)?,
            "lease" => self.lease(&mut args)?,
            "postgres" => self.postgres(&mut args)?,
            "control" => self.control(&mut args)?,
            "peer" => self.peer(&mut args)?,
            "gone" => {
                let who = id(args.next_pos().ok_or("who is gone?")?);
                self.o.cluster.members.remove(&who);
                self.o.peers.remove(&who);
            }
            "timeline" => self.timeline(&mut args)?,
            "tag" => self.tag(&mut args)?,
            "job" => self.job(&mut args)?,
            "finished" => self.finished(&mut args)?,
            "intent" => self.intent(&mut args)?,
            "policy" => self.policy(&mut args)?,
            "health" => self.health(&mut args)?,
            "sync" => self.sync(&mut args)?,
            "fences" => self.fences(&mut args)?,
            "failsafe" => self.failsafe(&mut args)?,
            "fencing" => self.fencing(&mut args)?,
            "sender" => self.sender(&mut args)?,
            "slot" => self.slot(&mut args)?,
            "slots" => self.slots(&mut args)?,
            "tell-slots" => return Ok(self.tell_slots()),
            "shutdown" => self.o.shutting_down = true,
            "operation" => self.operation(&mut args)?,
            "schedule" => self.schedule(&mut args)?,
            "callbacks" => return Ok(self.callbacks()),
            "lost-race" => return Ok(lost_race(&self.o).unwrap_or_else(|| "nothing".to_owned()) + "\n"),
            "restart-is-for" => return self.restart_is_for(&mut args),
            "decide" => return Ok(show(&decide(&self.o))),
            "history" => return self.history(&mut args),
            "note" => return Ok(self.note()),
            "what-if" => {
                let name = args.next_pos().ok_or("who dies?")?;
                return Ok(show_forecast(&what_if(&self.o, name).ok_or("no such member")?));
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        Ok(String::new())
    }
}

fn show(decision: &Decision) -> String {
    let mut out = format!("{} by {:?}: {}\n", decision.state.as_str(), decision.rule, decision.because);
    for action in &decision.actions {
        out += &format!("  do {}\n", show_action(action));
    }
    if let Some(waiting) = &decision.waiting_for {
        out += &format!("  waits for {waiting}\n");
    }
    out + &format!("  again in {} ms\n", decision.wake_in.as_millis())
}

fn show_event(event: &Event) -> String {
    let Event { by, kind, epoch, rule, because, facts, candidates, .. } = event;
    let mut out = format!("{by} records {kind:?} in epoch {epoch} by {rule}: {because}\n");
    for fact in facts {
        out += &format!("  fact: {fact}\n");
    }
    for note in candidates {
        out += &format!("  {} {}\n", note.name, note.verdict);
    }
    out
}

fn show_forecast(forecast: &Forecast) -> String {
    let mut out = match &forecast.would_take_over {
        Some(next) => format!("{next} would take over: {}\n", forecast.because),
        None => format!("nobody would take over: {}\n", forecast.because),
    };
    out += if forecast.writing_goes_on { "  writing goes on\n" } else { "  writing ends\n" };
    for wait in &forecast.waits {
        out += &format!("  waits about {} ms: {}\n", wait.about_ms, wait.what);
    }
    for other in &forecast.others {
        out += &format!("  not {}: {}\n", other.name, other.why_not);
    }
    for warning in &forecast.warnings {
        out += &format!("  warning: {warning}\n");
    }
    out
}

fn show_action(action: &Action) -> String {
    match action {
        Action::Propose(command) => format!("propose {command:?}"),
        Action::Postgres(action) => format!("postgres {action:?}"),
        Action::Guard(action) => format!("guard {action:?}"),
        Action::Lease(action) => format!("lease {action:?}"),
        Action::AskPeers => "ask peers".to_owned(),
    }
}

fn member(name: &str, kind: MemberKind) -> Member {
    let port = 5430 + u16::try_from(id(name).0).expect("small");
    let is_data = kind == MemberKind::Data;
    Member {
        name: name.parse().expect("a valid name"),
        kind,
        raft_addr: format!("{name}:2000"),
        votes: true,
        api_url: is_data.then(|| format!("http://{name}:8008")),
        postgres: is_data.then(|| PostgresAddr { host: name.to_owned(), port }),
        tags: Tags::default(),
    }
}

fn cluster(args: &mut ArgumentConsumer<'_>) -> Result<Observation> {
    let me = id(args.take_key("me").unwrap_or("b"));
    let witness = args.take_key("witness").unwrap_or("");
    let epoch = Epoch(args.take_key("epoch").unwrap_or("3").parse()?);
    let ttl_ms = args.take_key("ttl").unwrap_or("5000").parse()?;
    let voters = ids(args.take_key("voters").unwrap_or("a,b,c"));
    let tenure = match args.take_key("holder").unwrap_or("a") {
        "none" => None,
        holder => Some(Tenure {
            holder: id(holder),
            session: args.take_key("session").map_or(Ok(session(id(holder))), |n| n.parse().map(Session))?,
            ttl_ms,
            wait_ms: ttl_ms,
            pinned: args.take_key("pinned").is_some(),
        }),
    };
    let system = args.take_key("system").unwrap_or("7001");
    let names = args.take_key("members").unwrap_or("a,b,c").split(',');
    let members = names.map(|name| {
        let kind = if name == witness { MemberKind::Witness } else { MemberKind::Data };
        (id(name), member(name, kind))
    });
    let group = (args.take_key("group") != Some("none")).then_some(GroupId(1));
    let state = ClusterState {
        group,
        scope: "demo".to_owned(),
        system_identifier: (system != "none").then(|| system.parse().map(SystemIdentifier)).transpose()?,
        members: members.collect(),
        leaving: ids(args.take_key("leaving").unwrap_or("")),
        lease: Lease {
            epoch,
            voters,
            last_holder: tenure.as_ref().map(|tenure| tenure.holder),
            tenure,
            left_at: args.take_key("left_at").map(left_at).transpose()?,
        },
        settings: Settings {
            revision: Revision(args.take_key("settings").unwrap_or("1").parse()?),
            document: "{}".to_owned(),
        },
        intent: None,
        last_intent: None,
        ..ClusterState::default()
    };
    Ok(observation(me, state))
}

fn observation(me: MemberId, cluster: ClusterState) -> Observation {
    let voters = cluster.members.keys().copied().collect();
    Observation {
        now: NOW,
        me,
        cluster,
        consensus: Consensus { voters, term: 1, ..Consensus::default() },
        lease: LeaseFacts::default(),
        guard: Fact::fresh(GuardFacts {
            session: session(me),
            deadline: None,
            epoch: Epoch(0),
            heartbeat_age: Duration::ZERO,
            killing_for: None,
            stopped_by_others: None,
            watchdog: WatchdogFacts::default(),
        }),
        postgres: PostgresFacts {
            data_dir: DataDir::Empty,
            control: Fact::Unknown("no data".to_owned()),
            process: Fact::fresh(Process::Stopped),
            server: Fact::Unknown("not running".to_owned()),
            configured_upstream: None,
            history: Vec::new(),
            never_ready: false,
            newest_history: TimelineId(1),
            has_old_data: false,
            sync_configured: SyncNames::Own,
            sync_in_use: None,
            left_stream: BTreeMap::new(),
            stalled_stream: BTreeMap::new(),
            fenced: Epoch(0),
            health: Health::default(),
            pending_restart: BTreeMap::new(),
        },
        peers: BTreeMap::new(),
        job: None,
        finished: BTreeMap::new(),
        intent_for: Duration::ZERO,
        shutting_down: false,
        wall_ms: WALL_MS,
        operation: None,
        scheduled_restart: None,
        slots: SlotFacts::default(),
        policy: Policy {
            ttl: Duration::from_secs(5),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
            maximum_lag_on_failover: 1024 * 1024,
            check_timeline: false,
            primary_start_timeout: Duration::from_secs(300),
            primary_stop_timeout: None,
            has_pre_promote: false,
            restores_alone: false,
            primary_health_timeout: Duration::from_secs(10),
            pause: false,
            failsafe: false,
            sync: SyncPolicy::default(),
            use_pg_rewind: true,
            use_slots: true,
            slots: SlotPolicy::default(),
            makes_no_cluster: None,
            bootstrap_settings: "{\"ttl\":5}".to_owned(),
        },
    }
}

fn position(args: &mut ArgumentConsumer<'_>) -> Result<WalPosition> {
    let timeline = TimelineId(args.take_key("tl").unwrap_or("1").parse()?);
    Ok(WalPosition { timeline, lsn: args.take_key("lsn").unwrap_or("0/5000000").parse::<Lsn>()? })
}

/// `1:0/4000000`
fn left_at(text: &str) -> Result<WalPosition> {
    let (timeline, lsn) = text.split_once(':').ok_or("left_at is TL:LSN")?;
    Ok(WalPosition { timeline: TimelineId(timeline.parse()?), lsn: lsn.parse()? })
}

/// `async`, or `1of:b,c`.
fn sync_set(text: &str) -> Result<SyncSet> {
    if text == "async" {
        return Ok(SyncSet::default());
    }
    let (needed, names) = text.split_once("of:").ok_or("a set is Nof:NAMES")?;
    let names = names.split(',').filter(|name| !name.is_empty()).map(str::parse);
    Ok(SyncSet { names: names.collect::<std::result::Result<_, _>>()?, needed: needed.parse()? })
}

/// `1:0/4000000,2:0/6000000`
fn history(text: &str) -> Result<Vec<TimelineSwitch>> {
    let switches = text.split(',').filter(|part| !part.is_empty()).map(|part| {
        let (timeline, lsn) = part.split_once(':').ok_or("history is TL:LSN,...")?;
        let reason = "no recovery target specified".to_owned();
        Ok(TimelineSwitch { timeline: TimelineId(timeline.parse()?), lsn: lsn.parse()?, reason })
    });
    switches.collect()
}

fn control_state(text: &str) -> Result<ControlState> {
    Ok(match text {
        "in production" => ControlState::InProduction,
        "shut down" => ControlState::ShutDown,
        "shut down in recovery" => ControlState::ShutDownInRecovery,
        "in archive recovery" => ControlState::InArchiveRecovery,
        other => return Err(format!("unknown control state {other:?}").into()),
    })
}

fn job_kind(text: &str) -> Result<JobKind> {
    Ok(match text {
        "bootstrap" => JobKind::Bootstrap,
        "start-primary" => JobKind::StartPrimary,
        "start-standby" => JobKind::StartStandby,
        "stop" => JobKind::Stop,
        "promote" => JobKind::Promote,
        "rewind" => JobKind::Rewind,
        "clone" => JobKind::Clone,
        "pre-promote" => JobKind::PrePromote,
        "restart" => JobKind::Restart,
        "reinitialize" => JobKind::Reinitialize,
        "copy-slots" => JobKind::CopySlots,
        other => return Err(format!("unknown job {other}").into()),
    })
}

impl Script {
    /// Decides, and shows what of it is worth an event.
    fn note(&mut self) -> String {
        let events = self.notebook.look(&self.o, &decide(&self.o));
        if events.is_empty() { "nothing\n".to_owned() } else { events.iter().map(show_event).collect() }
    }

    /// The callbacks that follow from what is seen now and from the decision on it.
    fn callbacks(&mut self) -> String {
        let told = self.callbacks.look(&self.o, &decide(&self.o));
        let words = |callback: &Callback| format!("{} {}\n", callback.event.as_str(), callback.role.as_str());
        if told.is_empty() { "nothing\n".to_owned() } else { told.iter().map(words).collect() }
    }

    fn operation(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let asked = ms(args.take_key("asked").unwrap_or("0"))?;
        self.o.operation = match args.next_pos() {
            Some("restart") => Some(Operation::Restart { asked }),
            Some("reinitialize") => Some(Operation::Reinitialize { asked }),
            Some("none") => None,
            _ => return Err("an operation is restart, reinitialize or none".into()),
        };
        Ok(())
    }

    /// In so many milliseconds, or so many ago.
    fn schedule(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let from = args.take_key("from").map(id);
        let to = args.take_key("to").map(id);
        let ahead: i64 = match (args.take_key("in"), args.take_key("ago")) {
            (Some(time), _) => time.parse()?,
            (None, Some(time)) => -time.parse::<i64>()?,
            (None, None) => 0,
        };
        self.o.cluster.scheduled_switchover = Some(ScheduledSwitchover { at_ms: WALL_MS + ahead, from, to });
        Ok(())
    }

    fn restart_is_for(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let filters = RestartFilters {
            role: args.take_key("role").map(str::to_owned),
            postgres_version: args.take_key("below").map(str::parse).transpose()?,
            restart_pending: args.take_key("pending").is_some(),
        };
        Ok(does_not_match(&self.o, &filters)
            .map_or("this server\n".to_owned(), |why| format!("another: {why}\n")))
    }

    fn consensus(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        if let Some(voters) = args.take_key("voters") {
            self.o.consensus.voters = ids(voters);
        }
        Ok(())
    }

    /// `list=a,b` as agreed; `on` as wanted; a holder's `promises`, `proposed=a`, `off`, `bound=MS`; a member's
    /// `stands_back=MS` and `for=a`.
    fn failsafe(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        self.o.cluster.failsafe = args.take_key("list").filter(|list| *list != "none").map(ids);
        self.o.policy.failsafe = args.take_key("on") != Some("false");
        let bound = args.take_key("bound").map(ms).transpose()?;
        self.o.lease.failsafe = FailsafeFacts {
            rests_on_promises: args.take_key("promises").is_some(),
            proposed: ids(args.take_key("proposed").unwrap_or("")),
            may_be_off: args.take_key("off").is_some(),
            members_stand_back_until: bound.map(|time| NOW.after(time)),
        };
        let holder = args.take_key("for").map(id);
        let remaining = args.take_key("stands_back").map(ms).transpose()?;
        self.o.lease.stands_back = remaining.map(|remaining| StandingBack { holder, remaining });
        Ok(())
    }

    /// The reserved number and the epoch of its holder; the newest history file.
    fn timeline(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        if let Some(highest) = args.take_key("reserved") {
            let epoch = Epoch(args.take_key("epoch").unwrap_or("4").parse()?);
            self.o.cluster.timelines = Timelines { highest: TimelineId(highest.parse()?), epoch };
        }
        if let Some(newest) = args.take_key("history") {
            self.o.postgres.newest_history = TimelineId(newest.parse()?);
        }
        Ok(())
    }

    fn guard(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let mut guard = GuardFacts {
            session: args.take_key("session").map_or(Ok(session(self.o.me)), |n| n.parse().map(Session))?,
            deadline: None,
            epoch: Epoch(0),
            heartbeat_age: ms(args.take_key("heartbeat").unwrap_or("10"))?,
            killing_for: args.take_key("killing").map(ms).transpose()?,
            stopped_by_others: match args.take_key("stopped_by_others") {
                Some(ago) => Some(StoppedByOthers {
                    at: BootTime(NOW.0.saturating_sub(ms(ago)?)),
                    is_certain: args.take_key("status") != Some("unknown"),
                }),
                None => None,
            },
            watchdog: WatchdogFacts {
                is_required: args.take_key("watchdog").is_some(),
                trouble: args.take_key("trouble").map(str::to_owned),
                is_outdated: args.take_key("outdated").is_some(),
            },
        };
        if let Some(epoch) = args.take_key("armed") {
            guard.epoch = Epoch(epoch.parse()?);
            guard.deadline = Some(match args.take_key("ended") {
                Some(ago) => BootTime(NOW.0.saturating_sub(ms(ago)?)),
                None => NOW.after(ms(args.take_key("left").unwrap_or("4000"))?),
            });
        }
        self.o.guard = match args.next_pos() {
            Some("none") => Fact::Unknown("it did not start".to_owned()),
            _ => Fact::fresh(guard),
        };
        Ok(())
    }

    /// What the history is to be; `take` records it as somebody's of that time.
    fn history(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let keep = args.take_key("keep").map(str::parse).transpose()?;
        let at_ms = args.take_key("take").map(str::parse).transpose()?;
        args.reject_next()?;
        let Some(mut history) = next_history(&self.o, keep) else { return Ok("as recorded".to_owned()) };
        if let Some(newest) = history.last_mut().filter(|_| at_ms.is_some()) {
            newest.at_ms = newest.at_ms.or(at_ms);
        }
        let shown = history.iter().map(|end| {
            let leader = end.leader.as_ref().map_or("nobody known", |name| name.as_str());
            format!("{} ended at {}: {}, {:?}, {leader}\n", end.timeline, end.lsn, end.reason, end.at_ms)
        });
        let shown = shown.collect();
        if at_ms.is_some() {
            self.o.cluster.history = history;
        }
        Ok(shown)
    }

    fn licence(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let epoch =
            args.take_key("epoch").map_or(Ok(self.o.cluster.lease.epoch), |n| n.parse().map(Epoch))?;
        let deadline = match args.take_key("ended") {
            Some(ago) => BootTime(NOW.0.saturating_sub(ms(ago)?)),
            None => NOW.after(ms(args.take_key("left").unwrap_or("4000"))?),
        };
        self.o.lease.licence = Some(Licence { epoch, deadline, sent: NOW });
        self.o.lease.answering = self.o.cluster.lease.voters.clone();
        Ok(())
    }

    fn lease(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        if let Some(quiet) = args.take_key("quiet") {
            self.o.lease.quiet_for = ms(quiet)?;
        }
        if let Some(epoch) = args.take_key("given_up") {
            self.o.lease.given_up = Epoch(epoch.parse()?);
        }
        if let Some(epoch) = args.take_key("at_start") {
            self.o.lease.known_at_start = Epoch(epoch.parse()?);
        }
        if let Some(epoch) = args.take_key("disputed") {
            self.o.lease.disputed = Some(Epoch(epoch.parse()?));
        }
        if let Some(answering) = args.take_key("answering") {
            self.o.lease.answering = ids(answering);
        }
        let (would, closed) = (args.take_key("would"), args.take_key("closed"));
        let silent = args.take_key("silent");
        if would.is_some() || closed.is_some() || silent.is_some() {
            self.o.lease.closes = Some(Closes {
                epoch: self.o.cluster.lease.epoch,
                would: ids(would.unwrap_or("")),
                closed: ids(closed.unwrap_or("")),
                silent: ids(silent.unwrap_or("")),
                is_answered: true,
                unanswered: args
                    .take_key("unanswered")
                    .map(|ms| ms.parse().map(Duration::from_millis))
                    .transpose()?,
                age: Duration::ZERO,
            });
        }
        Ok(())
    }

    fn postgres(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let kind = args.next_pos().unwrap_or_default().to_owned();
        let backup = args.take_key("backup_label").is_some();
        let p = &mut self.o.postgres;
        p.history = history(args.take_key("history").unwrap_or(""))?;
        p.never_ready = args.take_key("never_ready").is_some();
        p.has_old_data = args.take_key("old_data").is_some();
        p.configured_upstream = args.take_key("upstream").map(|name| Upstream {
            name: name.to_owned(),
            addr: member(name, MemberKind::Data).postgres.expect("a data member"),
        });
        let system_identifier =
            args.take_key("system").map_or(Ok(SYSTEM), |n| n.parse().map(SystemIdentifier))?;
        let initialised =
            |has_standby_signal| DataDir::Initialised { has_backup_label: backup, has_standby_signal };
        let running = Process::Running { pid: 100, is_child: true };
        let (data_dir, process, state) = match kind.as_str() {
            "primary" => (initialised(false), running, ControlState::InProduction),
            "standby" => (initialised(true), running, ControlState::InArchiveRecovery),
            "stopped" => (initialised(false), Process::Stopped, ControlState::InProduction),
            "stopped-standby" => (initialised(true), Process::Stopped, ControlState::ShutDownInRecovery),
            "ending" => (initialised(false), Process::Ending, ControlState::InProduction),
            "empty" => (DataDir::Empty, Process::Stopped, ControlState::ShutDown),
            "incomplete" => (DataDir::Incomplete, Process::Stopped, ControlState::ShutDown),
            "foreign" => (DataDir::Foreign("notes.txt".to_owned()), Process::Stopped, ControlState::ShutDown),
            other => return Err(format!("unknown kind of PostgreSQL {other:?}").into()),
        };
        let position = position(args)?;
        let answers = args.take_key("sql") != Some("unknown");
        let receiver = args.take_key("receiver");
        // A standby has the slots of all members unless a script says otherwise.
        let others: Vec<String> =
            self.o.cluster.members.values().map(|member| member.name.slot_name()).collect();
        let usual = if kind == "standby" { others.join(",") } else { String::new() };
        let slots = args.take_key("slots").unwrap_or(&usual);
        p.server = if answers && matches!(process, Process::Running { .. }) {
            Fact::fresh(server(kind == "standby", position, receiver, slots))
        } else {
            Fact::Unknown("no answer".to_owned())
        };
        p.control = match data_dir {
            DataDir::Initialised { .. } => Fact::fresh(ControlData {
                system_identifier,
                state,
                timeline: position.timeline,
                checkpoint: position.lsn,
                min_recovery_end: Lsn(0),
            }),
            DataDir::Empty | DataDir::Incomplete | DataDir::Foreign(_) => Fact::Unknown("no data".to_owned()),
        };
        (p.data_dir, p.process) = (data_dir, Fact::fresh(process));
        Ok(())
    }

    /// A slot of the local server: `logical=DB`, `at=LSN`, `xmin=N`, `catalog_xmin=N`, `active=1`, `lost=1`, `failover=1`.
    fn slot(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let name = args.next_pos().ok_or("which slot?")?.to_owned();
        let at = args.take_key("at").map(str::parse).transpose()?;
        let slot = Slot {
            kind: slot_kind(args.take_key("logical")),
            is_active: args.take_key("active").is_some(),
            restart: at,
            confirmed: at,
            xmin: args.take_key("xmin").map(str::parse).transpose()?,
            catalog_xmin: args.take_key("catalog_xmin").map(str::parse).transpose()?,
            is_lost: args.take_key("lost").is_some(),
            is_failover: args.take_key("failover").is_some(),
            ..inactive_slot(&name)
        };
        let Fact::Known { value: server, .. } = &mut self.o.postgres.server else {
            return Err("no server".into());
        };
        server.slots.retain(|present| present.name != name);
        server.slots.push(slot);
        Ok(())
    }

    /// What the settings say: `permanent=a,b:DB`, `ignored=a`, `ttl=MS`, `use=false`; `wal_level=logical`; what is
    /// remembered: `away=a`, `for=MS`; what came with failsafe: `told=a@LSN`, `answered=a@LSN`.
    fn slots(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let policy = &mut self.o.policy;
        policy.use_slots = args.take_key("use") != Some("false");
        if let Some(permanent) = args.take_key("permanent") {
            let slots = permanent.split(',').map(|slot| match slot.split_once(':') {
                Some((name, database)) => (name.to_owned(), slot_kind(Some(database))),
                None => (slot.to_owned(), SlotKind::Physical),
            });
            policy.slots.permanent = slots.collect();
        }
        if let Some(name) = args.take_key("ignored") {
            let matcher = SlotMatcher { name: Some(name.to_owned()), ..SlotMatcher::default() };
            policy.slots.ignored = vec![matcher];
        }
        if let Some(ttl) = args.take_key("ttl") {
            policy.slots.member_ttl = ms(ttl)?;
        }
        if let Fact::Known { value: server, .. } = &mut self.o.postgres.server {
            server.is_logical = args.take_key("wal_level") == Some("logical");
        }
        let away = ms(args.take_key("for").unwrap_or("60000"))?;
        let names = args.take_key("away").unwrap_or("").split(',').filter(|name| !name.is_empty());
        self.o.slots.absent = names.map(|name| (name.to_owned(), away)).collect();
        let told = args.take_key("told");
        self.o.slots.told = told
            .map(|_| Ok::<_, Box<dyn Error>>(ToldSlots { age: Duration::ZERO, slots: positions(told)? }))
            .transpose()?;
        self.o.slots.answered = positions(args.take_key("answered"))?;
        Ok(())
    }

    /// What a primary says of its slots, and what is warned of.
    fn tell_slots(&self) -> String {
        let report = own_report(&self.o);
        let mut out = String::new();
        for (name, slot) in &report.slots {
            out += &format!("{name} at {}\n", slot.lsn);
        }
        let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
        out += &format!("retained: {}\n", list(report.retained_slots));
        out + &format!("unknown in use: {}\n", list(unknown_in_use(&self.o)))
    }

    fn control(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let state = control_state(args.next_pos().ok_or("which state?")?)?;
        match &mut self.o.postgres.control {
            Fact::Known { value, .. } => value.state = state,
            Fact::Unknown(why) => return Err(format!("no control data: {why}").into()),
        }
        Ok(())
    }

    fn peer(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let name = args.next_pos().ok_or("which peer?")?.to_owned();
        let kind = args.next_pos().unwrap_or_default().to_owned();
        if kind == "silent" {
            self.o.peers.insert(id(&name), Fact::Unknown("no report yet".to_owned()));
            return Ok(());
        }
        let streaming = args.take_key("streaming").is_some();
        let report = MemberReport {
            session: Some(session(id(&name))),
            state: kind.clone(),
            system_identifier: (kind != "empty").then_some(SYSTEM),
            has_data: kind != "empty",
            is_running: kind == "primary" || kind == "standby",
            is_in_recovery: match kind.as_str() {
                "primary" => Some(false),
                "standby" => Some(true),
                _ => None,
            },
            position: if kind == "empty" { None } else { Some(position(args)?) },
            replayed: None,
            is_streaming: streaming,
            stream_ended: !streaming,
            history: history(args.take_key("history").unwrap_or(""))?,
            stands_back: args.take_key("stands_back").is_some(),
            version: 150_000,
            epoch: args.take_key("epoch").map_or(Ok(self.o.cluster.lease.epoch), |n| n.parse().map(Epoch))?,
            shutting_down: args.take_key("shutting_down").is_some(),
            fenced: Epoch(args.take_key("fenced").unwrap_or("0").parse()?),
            watchdog_failed: args.take_key("watchdog_failed").is_some(),
            makes_no_cluster: args.take_key("makes_no_cluster").is_some(),
            cut_off: match args.take_key("cut_off") {
                Some(epoch) => Some(CutOffWord { epoch: Epoch(epoch.parse()?), ago: Duration::ZERO }),
                None => None,
            },
            postgres: PostgresState::Unknown,
            in_archive_recovery: false,
            leaves_sync: args.take_key("leaves_sync").is_some(),
            scheduled_restart: None,
            pending_restart: BTreeMap::new(),
            slots: positions(args.take_key("slots"))?
                .into_iter()
                .map(|(name, lsn)| (name, SlotPosition { lsn, catalog_xmin: None }))
                .collect(),
            retained_slots: BTreeSet::new(),
        };
        let age = ms(args.take_key("age").unwrap_or("100"))?;
        self.o.peers.insert(id(&name), Fact::Known { value: report, age });
        Ok(())
    }

    fn tag(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let name = args.next_pos().ok_or("whose tag?")?.to_owned();
        let member = self.o.cluster.members.get_mut(&id(&name)).ok_or("no such member")?;
        for key in ["nofailover", "failover_priority", "nosync", "sync_priority", "nostream", "replicatefrom"]
        {
            if let Some(value) = args.take_key(key) {
                member.tags.0.push((key.to_owned(), TagValue::Text(value.to_owned())));
            }
        }
        Ok(())
    }

    fn job(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let kind = job_kind(args.next_pos().ok_or("which job?")?)?;
        let running_for = ms(args.take_key("for").unwrap_or("1000"))?;
        self.o.job = Some(Job { kind, running_for, detail: format!("{kind:?} is in progress") });
        Ok(())
    }

    fn finished(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let kind = job_kind(args.next_pos().ok_or("which job?")?)?;
        let ended = Finished {
            error: args.take_key("error").map(str::to_owned),
            age: ms(args.take_key("age").unwrap_or("100"))?,
            took: ms(args.take_key("took").unwrap_or("100"))?,
            failures: args.take_key("failures").unwrap_or("1").parse()?,
            epoch: args.take_key("epoch").map_or(Ok(self.o.cluster.lease.epoch), |n| n.parse().map(Epoch))?,
        };
        self.o.finished.insert(kind, ended);
        Ok(())
    }

    fn intent(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let kind = args.next_pos().ok_or("which intent?")?.to_owned();
        let to = args.take_key("to").map(id);
        let from = self.o.cluster.lease.holder();
        let intent = match (kind.as_str(), from, to) {
            ("switchover", Some(from), to) => Intent::Switchover { from, to },
            ("failover", _, Some(to)) => {
                let holder_is_dead = args.take_key("dead") == Some("true");
                Intent::Failover { to, accepts_loss: false, holder_is_dead }
            }
            _ => return Err("an intent is: switchover [to=NAME], or failover to=NAME".into()),
        };
        self.o.cluster.intent = Some(PendingIntent { id: 77, intent });
        self.o.intent_for = ms(args.take_key("for").unwrap_or("0"))?;
        Ok(())
    }

    /// `mode=quorum count=1 sets=async;1of(b,c)` and so on.
    fn sync(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let policy = &mut self.o.policy.sync;
        policy.mode = match args.take_key("mode") {
            Some("on") => SyncMode::On,
            Some("quorum") => SyncMode::Quorum,
            Some("off") => SyncMode::Off,
            _ => policy.mode,
        };
        policy.strict = args.take_key("strict").map_or(policy.strict, |value| value == "true");
        policy.fast_failover = args.take_key("fast").map_or(policy.fast_failover, |value| value == "true");
        if let Some(count) = args.take_key("count") {
            policy.node_count = count.parse()?;
        }
        if let Some(lag) = args.take_key("lag") {
            policy.maximum_lag = Some(lag.parse()?);
        }
        if let Some(sets) = args.take_key("sets") {
            self.o.cluster.synchrony.sets = sets.split(';').map(sync_set).collect::<Result<_>>()?;
            self.o.cluster.synchrony.revision = 5;
        }
        if let Some(set) = args.take_key("configured") {
            let any = self.o.policy.sync.mode == SyncMode::Quorum;
            self.o.postgres.sync_configured = SyncNames::Agreed { set: sync_set(set)?, any };
        }
        if let Some(set) = args.take_key("in_use") {
            let since = args.take_key("since").unwrap_or("0/4000000").parse()?;
            self.o.postgres.sync_in_use = Some(SyncInUse { set: sync_set(set)?, since });
        }
        if let Some(left) = args.take_key("left") {
            let (name, ago) = left.split_once(':').ok_or("left=NAME:MS")?;
            self.o.postgres.left_stream.insert(name.to_owned(), ms(ago)?);
        }
        if let Some(stalled) = args.take_key("stalled") {
            let (name, ago) = stalled.split_once(':').ok_or("stalled=NAME:MS")?;
            self.o.postgres.stalled_stream.insert(name.to_owned(), ms(ago)?);
        }
        Ok(())
    }

    /// `b=1:0/5000000`: fences of the epoch; `mine=3`: what this node recorded.
    fn fences(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        if let Some(epoch) = args.take_key("mine") {
            self.o.postgres.fenced = Epoch(epoch.parse()?);
        }
        for name in ["a", "b", "c", "d"] {
            if let Some(position) = args.take_key(name) {
                self.o.cluster.synchrony.fences.insert(id(name), left_at(position)?);
            }
        }
        if let Some(holder) = args.take_key("last_holder") {
            self.o.cluster.lease.last_holder = Some(id(holder));
        }
        Ok(())
    }

    /// `fencing.command` is configured; `epoch=3 attempts=1 running=500`, `ended=100`, `error=why`.
    fn fencing(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let error = args.take_key("error").map(str::to_owned);
        let ended = args.take_key("ended").map(ms).transpose()?;
        self.o.lease.cut_off = CutOff {
            is_configured: args.next_pos() != Some("none"),
            epoch: Epoch(args.take_key("epoch").unwrap_or("0").parse()?),
            attempts: args.take_key("attempts").unwrap_or("0").parse()?,
            running_for: args.take_key("running").map(ms).transpose()?,
            ended: ended.map(|age| CutOffEnd { error, age }),
        };
        Ok(())
    }

    /// A standby streams from this server.
    fn sender(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        let name = args.next_pos().ok_or("who streams?")?.to_owned();
        let flushed = Some(position(args)?.lsn);
        let Fact::Known { value: server, .. } = &mut self.o.postgres.server else {
            return Err("PostgreSQL does not run".into());
        };
        server.senders.push(Sender {
            application_name: name,
            client_addr: None,
            user: "replicator".to_owned(),
            state: args.take_key("state").unwrap_or("streaming").to_owned(),
            sync_state: "async".to_owned(),
            sync_priority: 0,
            written: flushed,
            flushed,
            replayed: flushed,
        });
        Ok(())
    }

    /// `disk=12000:full`: fails for so long, and why; `crashes=1000,2000`; `condemned=3:why`; `wrote=1:0/5000000`.
    fn health(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        fn probe(text: Option<&str>) -> Result<Probe> {
            let Some(text) = text else { return Ok(Probe::NotAsked) };
            let (since, why) = text.split_once(':').ok_or("a probe is MS:WHY")?;
            Ok(Probe::Fails { since: ms(since)?, why: why.to_owned() })
        }
        let crashes = args.take_key("crashes").unwrap_or("").split(',').filter(|age| !age.is_empty());
        let crashes = crashes.map(ms).collect::<Result<_>>()?;
        let condemned = args.take_key("condemned").map(|text| {
            let (epoch, why) = text.split_once(':').ok_or("condemned is EPOCH:WHY")?;
            Ok::<_, Box<dyn Error>>(Condemned { epoch: Epoch(epoch.parse()?), why: why.to_owned() })
        });
        self.o.postgres.health = Health {
            accepts: probe(args.take_key("accepts"))?,
            writes: probe(args.take_key("writes"))?,
            disk: probe(args.take_key("disk"))?,
            crashes,
            last_position: args.take_key("wrote").map(left_at).transpose()?,
            condemned: condemned.transpose()?,
            stood_down: args.take_key("stood_down").map(ms).transpose()?,
        };
        Ok(())
    }

    fn policy(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<()> {
        if let Some(ttl) = args.take_key("ttl") {
            self.o.policy.ttl = ms(ttl)?;
        }
        if let Some(wait) = args.take_key("loop_wait") {
            self.o.policy.loop_wait = ms(wait)?;
        }
        if let Some(timeout) = args.take_key("retry_timeout") {
            self.o.policy.retry_timeout = ms(timeout)?;
        }
        if let Some(timeout) = args.take_key("primary_start_timeout") {
            self.o.policy.primary_start_timeout = ms(timeout)?;
        }
        if let Some(timeout) = args.take_key("primary_health_timeout") {
            self.o.policy.primary_health_timeout = ms(timeout)?;
        }
        if let Some(timeout) = args.take_key("primary_stop_timeout") {
            self.o.policy.primary_stop_timeout = Some(ms(timeout)?);
        }
        if let Some(has) = args.take_key("pre_promote") {
            self.o.policy.has_pre_promote = has.parse()?;
        }
        if let Some(checks) = args.take_key("check_timeline") {
            self.o.policy.check_timeline = checks.parse()?;
        }
        if let Some(why) = args.take_key("makes_no_cluster") {
            self.o.policy.makes_no_cluster = Some(why.to_owned());
        }
        if let Some(restores) = args.take_key("restores_alone") {
            self.o.policy.restores_alone = restores.parse()?;
        }
        if let Some(pause) = args.take_key("pause") {
            self.o.policy.pause = pause.parse()?;
        }
        if let Some(rewind) = args.take_key("use_pg_rewind") {
            self.o.policy.use_pg_rewind = rewind.parse()?;
        }
        Ok(())
    }
}

fn server(is_in_recovery: bool, position: WalPosition, receiver: Option<&str>, slots: &str) -> Server {
    Server {
        is_in_recovery,
        position,
        replayed: is_in_recovery.then_some(position.lsn),
        replayed_at: None,
        replay_paused: false,
        has_archive: false,
        receiver: receiver.map(|status| Receiver { status: status.to_owned(), from: None, slot: None }),
        senders: Vec::new(),
        slots: slots
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| Slot { is_active: true, ..inactive_slot(name) })
            .collect(),
        is_logical: false,
        version: 150_000,
        started_at: "2026-01-01 00:00:00+00".to_owned(),
    }
}

fn inactive_slot(name: &str) -> Slot {
    Slot {
        name: name.to_owned(),
        kind: SlotKind::Physical,
        is_active: false,
        restart: None,
        confirmed: None,
        xmin: None,
        catalog_xmin: None,
        is_lost: false,
        is_failover: false,
    }
}

/// `db`: a logical slot there; none: a physical one.
fn slot_kind(database: Option<&str>) -> SlotKind {
    match database {
        Some(database) => SlotKind::Logical { database: database.to_owned(), plugin: "pgoutput".to_owned() },
        None => SlotKind::Physical,
    }
}

/// `name@LSN,name@LSN`
fn positions(text: Option<&str>) -> Result<BTreeMap<String, Lsn>> {
    let parts = text.unwrap_or("").split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, lsn) = part.split_once('@').ok_or("positions are NAME@LSN,...")?;
            Ok((name.to_owned(), lsn.parse::<Lsn>()?))
        })
        .collect()
}

/// Runs every script below a directory; the file's name is the scenario.
fn run_all(directory: &std::path::Path) -> usize {
    let mut ran = 0;
    let entries = std::fs::read_dir(directory).expect("the scripts are there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            ran += run_all(&path);
        } else {
            let o = observation(MemberId(2), ClusterState::default());
            let (notebook, callbacks) = (Notebook::default(), CallbackMemory::default());
            let mut script = Script { o, notebook, callbacks };
            goldenscript::run(&mut script, &path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            ran += 1;
        }
    }
    ran
}

#[test]
fn decisions_are_as_the_scripts_tell() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ha/testscripts");
    assert!(run_all(&directory) > 10, "the scripts were not found");
}
