//! What a run has met: faults, rules, takeovers. What a run of many seeds must have met.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use crate::faults::{ALL, END, ENOUGH, Fault};
use crate::ha::Rule;
use crate::world::World;

/// What came of some seeds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) seeds: u64,
    simulated: u64,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) rules: BTreeMap<Rule, u64>,
    takeovers: u64,
    lost: u64,
    twice: u64,
    late: u64,
    lost_answers: u64,
    waited: u64,
    alone: u64,
    silenced: u64,
    pinned: u64,
    unpinned: u64,
    memberships: u64,
    extensions: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, world: &World) {
        let effects: u64 = world.faults.counts.values().sum();
        assert!(world.now >= END && effects >= ENOUGH, "a run of {} s with {effects} faults", world.now);
        self.seeds += 1;
        self.simulated += world.now / 1_000_000;
        add_all(&mut self.faults, &world.faults.counts);
        add_all(&mut self.rules, &world.rules);
        self.takeovers += world.takeovers;
        self.lost += world.network.lost;
        self.twice += world.network.twice;
        self.late += world.network.late;
        self.lost_answers += world.network.lost_answers;
        self.waited += world.ledger.waited;
        self.alone += world.ledger.alone;
        self.silenced += world.silenced_once;
        self.pinned += world.pinned_steps;
        self.unpinned += world.unpinned_once;
        self.memberships += world.memberships;
        self.extensions += world.extensions;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.simulated += other.simulated;
        add_all(&mut self.faults, &other.faults);
        add_all(&mut self.rules, &other.rules);
        self.takeovers += other.takeovers;
        self.lost += other.lost;
        self.twice += other.twice;
        self.late += other.late;
        self.lost_answers += other.lost_answers;
        self.waited += other.waited;
        self.alone += other.alone;
        self.silenced += other.silenced;
        self.pinned += other.pinned;
        self.unpinned += other.unpinned;
        self.memberships += other.memberships;
        self.extensions += other.extensions;
    }

    /// What many seeds of all kinds of world should have met and did not.
    pub(crate) fn unmet(&self) -> Vec<String> {
        let faults = ALL.iter().filter(|fault| !self.faults.contains_key(fault));
        let mut unmet: Vec<String> = faults.map(|fault| format!("fault {fault:?}")).collect();
        let rules =
            RULES.iter().filter(|rule| !self.rules.contains_key(rule) && !OUT_OF_REACH.contains(rule));
        unmet.extend(rules.map(|rule| format!("rule {rule:?}")));
        let counts = [
            ("takeovers", self.takeovers),
            ("lost messages", self.lost),
            ("messages there twice", self.twice),
            ("late messages", self.late),
            ("lost answers of what was applied", self.lost_answers),
            ("commits that waited for standbys", self.waited),
            ("commits of a primary alone", self.alone),
            ("changes of Raft's membership", self.memberships),
            ("licences that promises extended", self.extensions),
            ("steps of a paused primary without an armed guard", self.pinned),
            ("pins that fences ended while the old primary ran on", self.unpinned),
            ("primaries that were silenced while they ran", self.silenced),
        ];
        unmet.extend(counts.iter().filter(|(_, count)| *count == 0).map(|(what, _)| (*what).to_owned()));
        unmet
    }
}

fn add_all<T: Copy + Ord>(to: &mut BTreeMap<T, u64>, from: &BTreeMap<T, u64>) {
    for (key, count) in from {
        *to.entry(*key).or_default() += count;
    }
}

impl Display for Sum {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { seeds, simulated, takeovers, silenced, .. } = self;
        writeln!(
            f,
            "{seeds} seeds, {simulated} simulated seconds, {takeovers} takeovers, {silenced} of them while the old primary ran on"
        )?;
        writeln!(
            f,
            "  messages lost {} (of which {} said that a proposal was applied), twice there {}, late {}",
            self.lost, self.lost_answers, self.twice, self.late
        )?;
        writeln!(f, "  clients told after standbys {}, by the primary alone {}", self.waited, self.alone)?;
        writeln!(f, "  faults {:?}", self.faults)?;
        writeln!(f, "  rules {:?}", self.rules)
    }
}

/// Not modelled: data that is not the cluster's, slots, a watchdog device, a fencing command, a standby that never becomes
/// consistent, tags, what an operator asks of one node or schedules, hooks. A holder without data would have to lose its disk as well.
const OUT_OF_REACH: &[Rule] = &[
    Rule::OtherSystem,
    Rule::ForeignDataDir,
    Rule::HolderWithoutData,
    Rule::WatchdogMissing,
    Rule::KeepSlots,
    Rule::CopySlots,
    Rule::Inconsistent,
    Rule::CutOff,
    Rule::TakeCutOff,
    Rule::Restart,
    Rule::Reinitialize,
    Rule::AwaitRelease,
    Rule::PrePromote,
    Rule::CloneAlone,
    Rule::PromotionCancelled,
    Rule::BackOff,
    Rule::StopAtOnce,
    Rule::ScheduledSwitchover,
    Rule::CancelSchedule,
];

/// Every rule of the product, so that a new one is noticed here.
macro_rules! rules {
    ($($rule:ident)*) => {
        const RULES: &[Rule] = &[$(Rule::$rule),*];

        /// Does not compile while a rule is missing.
        const fn is_listed(rule: Rule) -> bool {
            match rule {
                $(Rule::$rule => true,)*
            }
        }
        const _: () = assert!(is_listed(Rule::Lead));
    };
}

rules! {
    NoGroup GuardMissing OtherSystem ForeignDataDir IncompleteDataDir Demote DisarmGuard JobRunning
    ShutDownStop ShutDownHandOver ShutDownRelease ShutDownDone StrangerToEpoch GivenUpEpoch AwaitLicence
    RepairEpoch ChangeVoters ChangeTtl ChangeFailsafe BeginOwnEpoch Bootstrap RecordSystem RecordSettings
    HolderWithoutData RestartInPlace StartForPromotion ReserveTimeline Promote GiveBack Sick WatchdogMissing
    ArmGuard KeepSlots CopySlots WidenSync ConfigureSync NarrowSync Lead Pause DisarmInPause Resume Paused TakeByWord
    HandOverStop HandOverTransfer HandOverWait HandOverRefuse AwaitPrimary Clone StartStandby Rewind Diverged StepDown
    Inconsistent CloneAlone Follow DiscardOldData Standby CatchUp StandBack Suspect AwaitReunion EndStream AskWhetherSilent CutOff
    TakeCutOff Fence TakeFenced AwaitFences MayNotPromote BetterCandidate AskToClose Close TakeClosed
    TakeVacant AwaitBootstrap Restart Reinitialize AwaitRelease PrePromote PromotionCancelled BackOff StopAtOnce
    ScheduledSwitchover CancelSchedule
}
