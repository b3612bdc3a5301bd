//! A cluster of three members to show, and a replicated state that carries wishes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use pgherd_raft::group::{GroupView, Phase, Proposed, RaftView, ReadError, StoreFailed};
use pgherd_raft::lease::{BootTime, FailsafeQuestion, FailsafeRefusal, Licence, Promise};
use pgherd_raft::model::{
    ClusterState, Command, Epoch, GroupId, IntentEnd, Lease, Lsn, Member, MemberId, MemberKind, Outcome,
    PostgresAddr, Revision, Session, Settings, SystemIdentifier, TagValue, Tags, Tenure, TimelineId,
    WalPosition, apply,
};
use pgherd_raft::{RenewerFacts, clock};
use tokio::sync::watch;

use super::intent::Intents;
use super::{ApiSettings, ApiState, Credentials, Promises};
use crate::agent::operations::{Answer, LocalActions, Refused, RestartRequest};
use crate::agent::view::View;
use crate::config::{Mistakes, ParameterCheck};
use crate::ha::{
    Consensus, DataDir, Decision, Fact, GuardFacts, Health, LeaseFacts, MemberReport, Observation, Policy,
    PostgresFacts, PostgresState, Process, Receiver, Rule, ScheduledRestart, Sender, Server, State,
};

pub(super) const EPOCH: Epoch = Epoch(7);
const SYSTEM: SystemIdentifier = SystemIdentifier(7_361_234_567_890_123_456);

pub(super) fn member(number: u64) -> Member {
    let name = format!("node{number}");
    let port = u16::try_from(number).expect("small");
    let tags = match number {
        3 => vec![
            ("clonefrom".to_owned(), TagValue::Bool(true)),
            ("rack".to_owned(), TagValue::Text("b".into())),
        ],
        _ => Vec::new(),
    };
    Member {
        name: name.parse().expect("a name"),
        kind: MemberKind::Data,
        raft_addr: format!("127.0.0.1:{}", 2380 + port),
        votes: true,
        api_url: Some(format!("http://127.0.0.1:{}", 8008 + port)),
        postgres: Some(PostgresAddr { host: "127.0.0.1".to_owned(), port: 5432 + port }),
        tags: Tags(tags),
    }
}

/// Three members; `node1` holds the lease.
pub(super) fn cluster() -> ClusterState {
    let ids: BTreeSet<MemberId> = (1..=3).map(MemberId).collect();
    ClusterState {
        group: Some(GroupId(1)),
        scope: "demo".to_owned(),
        system_identifier: Some(SYSTEM),
        members: ids.iter().map(|id| (*id, member(id.0))).collect(),
        leaving: BTreeSet::new(),
        lease: Lease {
            epoch: EPOCH,
            voters: ids,
            tenure: Some(Tenure {
                holder: MemberId(1),
                session: Session(11),
                ttl_ms: 5000,
                wait_ms: 5000,
                pinned: false,
            }),
            left_at: None,
            last_holder: None,
        },
        settings: Settings { revision: Revision(1), document: "{\"ttl\":5,\"loop_wait\":10}".to_owned() },
        intent: None,
        last_intent: None,
        ..ClusterState::default()
    }
}

pub(super) fn server(is_in_recovery: bool) -> Server {
    Server {
        is_in_recovery,
        position: WalPosition { timeline: TimelineId(3), lsn: Lsn(0x0500_0060) },
        replayed: is_in_recovery.then_some(Lsn(0x0500_0028)),
        replayed_at: is_in_recovery.then(|| "2026-11-20 17:02:10.5+00".to_owned()),
        replay_paused: false,
        has_archive: false,
        receiver: is_in_recovery.then(|| Receiver {
            status: "streaming".to_owned(),
            from: None,
            slot: Some("node2".to_owned()),
        }),
        senders: if is_in_recovery { Vec::new() } else { vec![sender("node2"), sender("node3")] },
        slots: Vec::new(),
        is_logical: false,
        version: 150_018,
        started_at: "2026-11-20 17:02:11.123456+00".to_owned(),
    }
}

fn sender(name: &str) -> Sender {
    Sender {
        application_name: name.to_owned(),
        client_addr: Some("127.0.0.1".to_owned()),
        user: "replicator".to_owned(),
        state: "streaming".to_owned(),
        sync_state: "async".to_owned(),
        sync_priority: 0,
        written: Some(Lsn(0x0500_0060)),
        flushed: Some(Lsn(0x0500_0060)),
        replayed: Some(Lsn(0x0500_0060)),
    }
}

fn report(number: u64) -> MemberReport {
    let is_primary = number == 1;
    MemberReport {
        session: Some(Session(10 + number)),
        state: if is_primary { "primary" } else { "standby" }.to_owned(),
        system_identifier: Some(SYSTEM),
        has_data: true,
        is_running: true,
        is_in_recovery: Some(!is_primary),
        position: Some(WalPosition { timeline: TimelineId(3), lsn: Lsn(0x0500_0060) }),
        replayed: (!is_primary).then_some(Lsn(0x0500_0000)),
        is_streaming: !is_primary,
        stream_ended: false,
        history: Vec::new(),
        stands_back: false,
        version: 150_018,
        epoch: EPOCH,
        shutting_down: false,
        fenced: Epoch(0),
        watchdog_failed: false,
        makes_no_cluster: false,
        cut_off: None,
        postgres: PostgresState::Running,
        in_archive_recovery: false,
        leaves_sync: false,
        scheduled_restart: None,
        pending_restart: BTreeMap::new(),
        slots: BTreeMap::new(),
        retained_slots: BTreeSet::new(),
    }
}

fn policy() -> Policy {
    Policy {
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
        sync: crate::ha::SyncPolicy::default(),
        use_pg_rewind: true,
        use_slots: true,
        slots: crate::ha::SlotPolicy::default(),
        makes_no_cluster: None,
        bootstrap_settings: "{}".to_owned(),
    }
}

/// What this node shows, all being well; `node1` is the primary.
pub(super) fn view(number: u64, now: BootTime) -> View {
    let is_primary = number == 1;
    let others = (1..=3).filter(|other| *other != number);
    let (state, rule, because) = if is_primary {
        (State::Primary, Rule::Lead, format!("no action. I am (node{number}), the leader with the lock"))
    } else {
        (State::Standby, Rule::Standby, format!("no action. I am (node{number}), a secondary"))
    };
    View {
        scope: "demo".to_owned(),
        member: member(number),
        proxy_url: None,
        observation: Observation {
            now,
            me: MemberId(number),
            cluster: cluster(),
            consensus: Consensus {
                is_raft_leader: number == 2,
                raft_leader: Some(MemberId(2)),
                term: 4,
                voters: (1..=3).map(MemberId).collect(),
                ..Consensus::default()
            },
            lease: LeaseFacts::default(),
            guard: Fact::fresh(GuardFacts {
                session: Session(10 + number),
                deadline: None,
                epoch: EPOCH,
                heartbeat_age: Duration::ZERO,
                killing_for: None,
                stopped_by_others: None,
                watchdog: Default::default(),
            }),
            postgres: PostgresFacts {
                data_dir: DataDir::Initialised { has_backup_label: false, has_standby_signal: !is_primary },
                control: Fact::Unknown("not read".to_owned()),
                process: Fact::fresh(Process::Running { pid: 1, is_child: true }),
                server: Fact::fresh(server(!is_primary)),
                configured_upstream: None,
                history: Vec::new(),
                never_ready: false,
                newest_history: TimelineId(1),
                has_old_data: false,
                sync_configured: crate::ha::SyncNames::Own,
                sync_in_use: None,
                left_stream: BTreeMap::new(),
                stalled_stream: BTreeMap::new(),
                fenced: Epoch(0),
                health: Health::default(),
                pending_restart: BTreeMap::new(),
            },
            peers: others.map(|other| (MemberId(other), Fact::fresh(report(other)))).collect(),
            job: None,
            finished: BTreeMap::new(),
            intent_for: Duration::ZERO,
            shutting_down: false,
            wall_ms: 1_790_000_000_000,
            operation: None,
            scheduled_restart: None,
            slots: crate::ha::SlotFacts::default(),
            policy: policy(),
        },
        decision: Decision {
            state,
            rule,
            actions: Vec::new(),
            because,
            waiting_for: None,
            wake_in: Duration::from_secs(10),
        },
        consensus_seen: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)),
    }
}

/// A licence of the present epoch which is good for two seconds more.
pub(super) fn licensed(now: BootTime) -> RenewerFacts {
    let deadline = now.after(Duration::from_secs(2));
    let licence = Licence { epoch: EPOCH, deadline, sent: now };
    RenewerFacts { licence: Some(licence), ..RenewerFacts::default() }
}

/// What becomes of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The holder hands over to the target, or to `node3`.
    Done,
    /// Another one than the target takes over.
    WonByAnother,
    /// The holder refuses.
    Refused,
    /// Nobody acts.
    Ignored,
    /// The answer to the proposal is lost; then it is done.
    LostAndDone,
}

/// A replicated state without Raft.
#[derive(Debug)]
pub(super) struct FakeGroup {
    fate: Fate,
    inner: Mutex<(ClusterState, u64)>,
    shown: watch::Sender<Arc<GroupView>>,
}

impl FakeGroup {
    pub(super) fn new(fate: Fate) -> Arc<Self> {
        let state = cluster();
        let shown = watch::Sender::new(Self::shown(&state, 100));
        Arc::new(Self { fate, inner: Mutex::new((state, 100)), shown })
    }

    fn shown(state: &ClusterState, applied: u64) -> Arc<GroupView> {
        let raft = RaftView::default();
        Arc::new(GroupView { phase: Phase::Member, state: state.clone(), applied, raft })
    }

    fn commit(&self, command: &Command) -> Outcome {
        let mut inner = self.inner.lock().expect("not poisoned");
        let (state, index) = &mut *inner;
        *index += 1;
        let outcome = apply(state, *index, command);
        self.shown.send_replace(Self::shown(state, *index));
        outcome
    }

    pub(super) fn set_failsafe(&self, list: Option<BTreeSet<MemberId>>) {
        self.inner.lock().expect("not poisoned").0.failsafe = list;
    }

    pub(super) fn set_settings(&self, document: &str) {
        document.clone_into(&mut self.inner.lock().expect("not poisoned").0.settings.document);
    }

    pub(super) fn forget_settings(&self) {
        let mut inner = self.inner.lock().expect("not poisoned");
        inner.0.settings = Settings::default();
        self.shown.send_replace(Self::shown(&inner.0, inner.1));
    }

    pub(super) fn state(&self) -> ClusterState {
        self.inner.lock().expect("not poisoned").0.clone()
    }

    fn answer(&self, command: &Command) -> Proposed {
        let outcome = self.commit(command);
        let (Command::SetIntent { intent }, Outcome::Applied) = (command, &outcome) else {
            return Proposed::Outcome(outcome);
        };
        let id = self.state().intent.expect("pending").id;
        let to = match self.fate {
            Fate::WonByAnother => MemberId(3),
            Fate::Done | Fate::Refused | Fate::Ignored | Fate::LostAndDone => {
                intent.target().unwrap_or(MemberId(3))
            }
        };
        match self.fate {
            Fate::Done | Fate::WonByAnother | Fate::LostAndDone => {
                let session = Session(10 + to.0);
                self.commit(&Command::Transfer { epoch: EPOCH, to, session, voters: None });
            }
            Fate::Refused => {
                self.commit(&Command::EndIntent { id, end: IntentEnd::Refused("it is not its day".into()) });
            }
            Fate::Ignored => {}
        }
        if self.fate == Fate::LostAndDone {
            return Proposed::Unknown("the connection was cut".to_owned());
        }
        Proposed::Outcome(outcome)
    }
}

impl Intents for FakeGroup {
    fn propose(&self, command: Command) -> BoxFuture<'_, Proposed> {
        Box::pin(async move { self.answer(&command) })
    }

    fn read(&self) -> BoxFuture<'_, Result<ClusterState, ReadError>> {
        Box::pin(async move { Ok(self.state()) })
    }

    fn watch(&self) -> watch::Receiver<Arc<GroupView>> {
        self.shown.subscribe()
    }
}

/// Nothing is written.
impl Promises for FakeGroup {
    fn promise(
        &self,
        question: FailsafeQuestion,
    ) -> BoxFuture<'_, Result<Result<(), FailsafeRefusal>, StoreFailed>> {
        Box::pin(async move {
            let mut promise = Promise::new(MemberId(3), Duration::ZERO, clock::now());
            promise.armed_for(Epoch(0));
            Ok(promise.ask(&self.state(), &question, clock::now()).map(|_length| ()))
        })
    }
}

/// A node that does at once what it is asked, or refuses it once.
#[derive(Debug, Default)]
pub(super) struct FakeActions {
    inner: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    restarts: Vec<RestartRequest>,
    scheduled: Option<ScheduledRestart>,
    copies: Vec<(bool, bool)>,
    refusal: Option<Refused>,
    is_broken: bool,
}

impl FakeActions {
    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.inner.lock().expect("not poisoned")
    }

    pub(super) fn restarts(&self) -> Vec<RestartRequest> {
        self.asked().restarts.clone()
    }

    pub(super) fn copies(&self) -> Vec<(bool, bool)> {
        self.asked().copies.clone()
    }

    pub(super) fn refuse(&self, next: Refused) {
        self.asked().refusal = Some(next);
    }

    pub(super) fn break_configuration(&self) {
        self.asked().is_broken = true;
    }

    fn answered<T: Send + 'static>(answer: T) -> Answer<'static, T> {
        Box::pin(std::future::ready(answer))
    }
}

impl LocalActions for FakeActions {
    fn restart(&self, request: RestartRequest) -> Answer<'_, Result<(), Refused>> {
        let mut asked = self.asked();
        asked.restarts.push(request);
        Self::answered(asked.refusal.take().map_or(Ok(()), Err))
    }

    fn schedule_restart(&self, schedule: ScheduledRestart) -> Answer<'_, Result<(), Refused>> {
        let mut asked = self.asked();
        let is_free = asked.scheduled.is_none();
        asked.scheduled.get_or_insert(schedule);
        Self::answered(if is_free { Ok(()) } else { Err(Refused::AlreadyScheduled) })
    }

    fn cancel_scheduled_restart(&self) -> Answer<'_, bool> {
        Self::answered(self.asked().scheduled.take().is_some())
    }

    fn reinitialize(&self, force: bool, from_leader: bool) -> Answer<'_, Result<(), Refused>> {
        let mut asked = self.asked();
        let refusal = asked.refusal.take();
        if refusal.is_none() {
            asked.copies.push((force, from_leader));
        }
        Self::answered(refusal.map_or(Ok(()), Err))
    }

    fn reload(&self) -> Answer<'_, Result<(), String>> {
        let is_broken = self.asked().is_broken;
        Self::answered(if is_broken { Err("ttl: is no number".to_owned()) } else { Ok(()) })
    }
}

/// A PostgreSQL that does not start with much `work_mem`.
struct FakeCheck;

impl ParameterCheck for FakeCheck {
    fn mistakes<'a>(&'a self, document: &'a serde_json::Value) -> Mistakes<'a> {
        let is_wrong =
            document.pointer("/postgresql/parameters/work_mem").is_some_and(|value| value == "much");
        let mistake = "postgresql.parameters.work_mem: PostgreSQL refuses it".to_owned();
        Box::pin(std::future::ready(if is_wrong { vec![mistake] } else { Vec::new() }))
    }
}

/// A node that shows this view for ever, and renews for ever if it is `node1`.
pub(super) fn state(view: View, group: Arc<FakeGroup>) -> ApiState {
    let is_holder = view.observation.me == MemberId(1);
    let renewer = move || if is_holder { licensed(clock::now()) } else { RenewerFacts::default() };
    ApiState {
        view: watch::Sender::new(Arc::new(view)).subscribe(),
        renewer: Arc::new(renewer),
        has_ended: Arc::new(|| false),
        promises: Arc::clone(&group) as Arc<dyn Promises>,
        slots: Arc::default(),
        intents: group,
        actions: Arc::new(FakeActions::default()),
        parameters: Arc::new(FakeCheck),
        settings: watch::Sender::new(Arc::new(ApiSettings::default())).subscribe(),
        tls: crate::tls::ServerTls::default(),
    }
}

/// The same with other settings.
pub(super) fn with_settings(state: ApiState, settings: watch::Receiver<Arc<ApiSettings>>) -> ApiState {
    ApiState { settings, ..state }
}

/// The same with a password.
pub(super) fn protected(state: ApiState) -> ApiState {
    let credentials = Some(Credentials::new("admin", "secret"));
    let settings = Arc::new(ApiSettings { credentials, ..ApiSettings::default() });
    with_settings(state, watch::Sender::new(settings).subscribe())
}

/// Compares with a file of `testdata`; `UPDATE_GOLDENFILES=1` writes it anew.
pub(super) fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/testdata").join(name);
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&path, text).expect("writable");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; UPDATE_GOLDENFILES=1 writes it anew", path.display());
}
