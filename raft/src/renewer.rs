//! Lease renewal: its own thread, its own runtime, its own connections, so that nothing else can delay it.
//!
//! Promises: a round's stamp is taken before anything of it is sent; a licence reaches the sink at once, on this
//! thread; after [`Renewer::give_up`] returned, no licence of that epoch reaches it. It decides nothing: whether to
//! renew is the record's and the sink's word.
//!
//! Failsafe's questions to the members are asked here, too, beside the rounds, by way of the sink.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::group::{Group, Node, Phase};
use crate::lease::{
    BootTime, FailsafeFacts, FailsafeQuestion, Holder, Licence, Renewal, RenewalAnswer, question_limit,
    renewal_interval,
};
use crate::model::{ClusterState, Epoch, Lease, Member, MemberId};
use crate::network::{Kind, Peers, Target};

/// A grant becomes known to the other voters a little later than here: until the first licence of an epoch is won,
/// rounds follow each other this fast, for [`EAGER_TIME`].
const EAGER_INTERVAL: Duration = Duration::from_millis(40);
const EAGER_TIME: Duration = Duration::from_secs(2);
/// The longest wait for an answer: later ones prove too little to be worth a connection's room.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Who is told about licences: the owner of the guard's deadline.
pub trait LicenceSink: Send {
    /// Asked before each round: is the guard alive, may PostgreSQL go on?
    fn may_renew(&mut self, now: BootTime) -> bool;
    /// A majority acknowledged: called at once, on the renewer's thread.
    fn licensed(&mut self, licence: Licence);
    /// Failsafe: asks another member to stand back, over another way than the voters are asked. The answer is yes, or
    /// why there is none; the caller limits the time. None: this sink asks nobody.
    fn ask_member(
        &mut self,
        _member: &Member,
        _request: &FailsafeQuestion,
    ) -> Option<BoxFuture<'static, Result<(), String>>> {
        None
    }
}

/// What the renewer knows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RenewerFacts {
    /// The last licence won by this process, whether or not its deadline has passed.
    pub licence: Option<Licence>,
    /// The epoch which some voter has closed.
    pub disputed: Option<Epoch>,
    /// Nothing is sent or counted up to this epoch.
    pub given_up: Epoch,
    /// The voters which acknowledged one of the last rounds ([`Holder::answering`]).
    pub answering: BTreeSet<MemberId>,
    /// What is known of failsafe.
    pub failsafe: FailsafeFacts,
}

/// The thread that renews. Dropping it ends the thread without waiting.
pub struct Renewer {
    core: Arc<Mutex<Core>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Core {
    holder: Holder,
    sink: Box<dyn LicenceSink>,
}

impl fmt::Debug for Renewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewer").field("facts", &self.facts()).finish_non_exhaustive()
    }
}

impl Renewer {
    /// Starts the thread. It idles while the replicated state names somebody else.
    pub fn start(group: &Group, holder: Holder, sink: Box<dyn LicenceSink>) -> io::Result<Self> {
        let core = Arc::new(Mutex::new(Core { holder, sink }));
        let stop = group.node().stop.child_token();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let rounds = Rounds {
            peers: Arc::new(Peers::new(
                &group.node().config.scope,
                Arc::clone(&group.node().marks),
                group.node().port.security(),
                runtime.handle(),
            )),
            node: Arc::clone(group.node()),
            core: Arc::clone(&core),
        };
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("renewer".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = rounds.run() => {}
                }
            });
        })?;
        Ok(Self { core, stop, thread: Some(thread) })
    }

    /// What is known now.
    pub fn facts(&self) -> RenewerFacts {
        let core = lock(&self.core);
        RenewerFacts {
            licence: core.holder.licence(),
            disputed: core.holder.disputed(),
            given_up: core.holder.given_up(),
            answering: core.holder.answering(),
            failsafe: core.holder.failsafe(),
        }
    }

    /// From the return of this call on, no round of this epoch or an earlier one is sent or counted, and
    /// [`LicenceSink::licensed`] is not called for one. Durability is [`Group::record_given_up`]'s.
    pub fn give_up(&self, epoch: Epoch) {
        lock(&self.core).holder.give_up(epoch);
    }

    /// Failsafe: may a change of the list be proposed? To be asked before each proposal
    /// ([`Holder::propose_failsafe`]).
    pub fn propose_failsafe(&self, epoch: Epoch, members: Option<&BTreeSet<MemberId>>) -> bool {
        lock(&self.core).holder.propose_failsafe(epoch, members)
    }

    /// Ends the thread and waits for it.
    pub fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the renewer's thread panicked");
        }
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Rounds {
    node: Arc<Node>,
    peers: Arc<Peers>,
    core: Arc<Mutex<Core>>,
}

type Answers = JoinSet<(MemberId, Option<RenewalAnswer>)>;
type Words = JoinSet<(FailsafeQuestion, Result<(), String>)>;

impl Rounds {
    async fn run(self) {
        let mut applied = self.node.applied.clone();
        let mut answers = Answers::new();
        let mut words = Words::new();
        let mut told = BTreeMap::new();
        let mut epoch_since = (Epoch(0), clock::now());
        loop {
            let lease = applied.borrow_and_update().state.lease.clone();
            if epoch_since.0 != lease.epoch {
                epoch_since = (lease.epoch, clock::now());
            }
            let pause = self.round(&lease, epoch_since.1, &mut answers);
            if pause.is_some() {
                let state = applied.borrow().state.clone();
                self.ask_members(&state, &mut words);
            }
            let due = tokio::time::sleep(pause.unwrap_or(EAGER_TIME));
            tokio::pin!(due);
            loop {
                tokio::select! {
                    moved = applied.changed() => {
                        if moved.is_err() {
                            return;
                        }
                        if applied.borrow_and_update().state.lease != lease {
                            break;
                        }
                    }
                    Some(answer) = answers.join_next(), if !answers.is_empty() => {
                        if let Ok((from, Some(answer))) = answer {
                            self.count(from, &answer);
                        }
                    }
                    Some(word) = words.join_next(), if !words.is_empty() => {
                        if let Ok((request, word)) = word {
                            self.count_word(&request, word, &mut told);
                        }
                    }
                    () = &mut due, if pause.is_some() => break,
                }
            }
        }
    }

    /// Sends a round if this node may renew. Returns the pause before the next one; none: wait for another record.
    fn round(&self, lease: &Lease, epoch_since: BootTime, answers: &mut Answers) -> Option<Duration> {
        if matches!(*self.node.phase.borrow(), Phase::Failed(_)) {
            // What this node gives up could not be made durable any more: it must end, and its guard with it.
            return None;
        }
        let tenure = lease.tenure.as_ref().filter(|tenure| tenure.holder == self.node.id)?;
        if !self.node.marks.is_trusted() {
            return Some(EAGER_INTERVAL);
        }
        let ttl = Duration::from_millis(tenure.ttl_ms);
        let (renewal, licensed) = {
            let mut core = lock(&self.core);
            if !core.sink.may_renew(clock::now()) {
                return Some(renewal_interval(ttl));
            }
            let renewal = core.holder.begin_round(lease, clock::now())?;
            (renewal, core.holder.licence().is_some_and(|won| won.epoch == lease.epoch))
        };
        // Those without a vote hear the holder, too, so that they notice its silence. Their answers count nowhere.
        let listeners: Vec<MemberId> = self.node.applied.borrow().state.listeners().collect();
        let listeners = listeners.iter().filter(|id| **id != self.node.id && !lease.voters.contains(id));
        for voter in lease.voters.iter().chain(listeners) {
            self.ask(*voter, renewal.clone(), ANSWER_LIMIT.min(ttl), answers);
        }
        let eager = !licensed && clock::now().since(epoch_since) < EAGER_TIME;
        Some(if eager { EAGER_INTERVAL } else { renewal_interval(ttl) })
    }

    fn ask(&self, voter: MemberId, renewal: Renewal, limit: Duration, answers: &mut Answers) {
        let node = Arc::clone(&self.node);
        if voter == node.id {
            answers.spawn(async move {
                let answer = node.voter.renew(&renewal).await;
                let answer = answer.inspect_err(|error| {
                    node.fail(format!("cannot write this voter's floor to the store: {error}"));
                });
                (voter, answer.ok())
            });
            return;
        }
        let Some(addr) = node.identity.addr_of(voter) else { return };
        let peers = Arc::clone(&self.peers);
        answers.spawn(async move {
            let target = Target { addr, id: Some(voter) };
            let answer = peers.call(&target, node.identity.group(), Kind::Renew, &renewal, limit).await;
            (voter, answer.ok())
        });
    }

    /// Failsafe, if it is time to ask.
    fn ask_members(&self, state: &ClusterState, words: &mut Words) {
        let mut core = lock(&self.core);
        let core = &mut *core;
        if state.failsafe.is_none() || !core.sink.may_renew(clock::now()) {
            return;
        }
        if let Some(known) = self.node.known_at_start.get() {
            core.holder.know_at_start(*known);
        }
        let (requests, licence) = core.holder.ask_members(state, clock::now());
        if let Some(licence) = licence {
            core.sink.licensed(licence);
        }
        let ttl = state.lease.tenure.as_ref().map_or(0, |tenure| tenure.ttl_ms);
        let limit = question_limit(Duration::from_millis(ttl));
        for request in requests {
            let member = state.members.get(&request.member);
            let asked = member.and_then(|member| core.sink.ask_member(member, &request));
            words.spawn(async move {
                let word = match asked {
                    Some(asked) => tokio::time::timeout(limit, asked)
                        .await
                        .unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis()))),
                    None => Err("it cannot be asked".to_owned()),
                };
                (request, word)
            });
        }
    }

    /// The log says once in a row why a member does not promise.
    fn count_word(
        &self,
        request: &FailsafeQuestion,
        word: Result<(), String>,
        told: &mut BTreeMap<MemberId, String>,
    ) {
        let mut core = lock(&self.core);
        let core = &mut *core;
        match word {
            Ok(()) => {
                told.remove(&request.member);
                if let Some(licence) = core.holder.count_promise(request) {
                    core.sink.licensed(licence);
                }
            }
            Err(why) => {
                core.holder.count_no_promise(request);
                if told.get(&request.member) != Some(&why) {
                    let name = self.node.applied.borrow().state.name_of(request.member);
                    tracing::warn!(
                        "failsafe: no majority of the voters answers, and {name} does not stand back: {why}"
                    );
                    told.insert(request.member, why);
                }
            }
        }
    }

    fn count(&self, from: MemberId, answer: &RenewalAnswer) {
        let mut core = lock(&self.core);
        core.holder.stand_back(self.node.promises.until());
        if let Some(licence) = core.holder.count(from, answer) {
            core.sink.licensed(licence);
        }
    }
}
