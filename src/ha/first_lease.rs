//! The first lease of a cluster: whose data becomes the cluster's.
//!
//! That of a running primary; else that with the most WAL; else an empty member makes the database system. Data that is
//! not a running primary's may have been left behind by a primary nobody has heard of yet: it is not taken on a guess,
//! but when every data member has said what it has, or when an operator names the member.

use std::cmp::Reverse;
use std::time::Duration;

use pgherd_raft::model::{MemberKind, MemberName, WalPosition};

use super::action::{Action, GuardAction, JobKind, PgAction};
use super::candidate::REPORT_FRESH;
use super::decide::SOON;
use super::decision::{Decision, State};
use super::facts::{DataDir, Observation};
use super::holder::release;
use super::member_report::MemberReport;
use super::report::{own_report, watchdog_trouble};
use super::rule::Rule;
use super::standby;
use super::succession::{is_named, take_vacant};

/// How long empty members and a running primary wait for members that might have data.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How much a member's data deserves to be the cluster's; the least goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Claim<'a> {
    does_not_write: bool,
    is_empty: bool,
    position: Reverse<Option<WalPosition>>,
    stands_back: bool,
    name: &'a MemberName,
}

impl<'a> Claim<'a> {
    fn of(report: &MemberReport, name: &'a MemberName) -> Self {
        Self {
            does_not_write: !writes(report),
            is_empty: !report.has_data,
            position: Reverse(report.position.filter(|_| report.has_data)),
            stands_back: report.stands_back || report.watchdog_failed,
            name,
        }
    }
}

fn writes(report: &MemberReport) -> bool {
    report.is_running && report.is_in_recovery == Some(false)
}

/// Has it said how far its data goes?
fn is_known(report: &MemberReport) -> bool {
    !report.has_data || report.position.is_some()
}

pub(super) fn decide(o: &Observation) -> Decision {
    if let Some((pause, error)) = standby::pause_after(o.finished.get(&JobKind::Bootstrap)) {
        let because = format!("the cluster could not be initialised: {error}");
        return Decision::new(State::Waiting, Rule::AwaitBootstrap, because, pause)
            .wait("another member, or the next attempt");
    }
    if let Some(why) = watchdog_trouble(o) {
        let because = format!("this node may not be the primary without a watchdog: {why}");
        return await_bootstrap(because).wait("another member, or the device");
    }
    let has_data = matches!(o.postgres.data_dir, DataDir::Initialised { .. });
    if let Some(why) = o.policy.makes_no_cluster.as_ref().filter(|_| !has_data) {
        let because = format!("waiting for leader to bootstrap: this node makes no cluster, since {why}");
        return await_bootstrap(because).act(Action::AskPeers).wait("another member");
    }
    if is_named(o) {
        return take_vacant(o, "the operator says that this node's data are the cluster's");
    }
    let mine = own_report(o);
    if !is_known(&mine) {
        return await_bootstrap("this node has data, and how far they go is not known".to_owned())
            .wait("PostgreSQL or its control data");
    }
    let others = match before_me(o, &mine) {
        Ok(silent) => silent,
        Err(decision) => return decision,
    };
    await_silent(o, &mine, &others).unwrap_or_else(|| take_vacant(o, reason(o)))
}

fn await_bootstrap(because: String) -> Decision {
    Decision::new(State::Waiting, Rule::AwaitBootstrap, because, SOON)
}

fn reason(o: &Observation) -> &'static str {
    match o.postgres.data_dir {
        DataDir::Initialised { .. } => "the cluster has no database system yet: it gets this node's",
        DataDir::Empty | DataDir::Incomplete | DataDir::Foreign(_) => {
            "the cluster has no database system yet, and this node makes it"
        }
    }
}

/// The members that have not said what they have, unless one that has goes before this node.
fn before_me(o: &Observation, mine: &MemberReport) -> Result<Vec<String>, Decision> {
    let Some(me) = o.cluster.members.get(&o.me) else { return Ok(Vec::new()) };
    let my_claim = Claim::of(mine, &me.name);
    let others = o.cluster.members.iter().filter(|(id, member)| {
        **id != o.me && member.kind == MemberKind::Data && !o.cluster.leaving.contains(*id)
    });
    let mut silent = Vec::new();
    for (id, member) in others {
        match o.report(*id, REPORT_FRESH) {
            Some(report) if (report.watchdog_failed || report.makes_no_cluster) && !report.has_data => {}
            Some(report) if !is_known(report) => silent.push(member.name.to_string()),
            Some(report) if Claim::of(report, &member.name) < my_claim => {
                let because = format!("{} makes the cluster's database system", member.name);
                return Err(await_bootstrap(because).wait("a primary to copy"));
            }
            Some(_) => {}
            None => silent.push(member.name.to_string()),
        }
    }
    Ok(silent)
}

/// Somebody may have later data than this node.
fn await_silent(o: &Observation, mine: &MemberReport, silent: &[String]) -> Option<Decision> {
    let may_be_behind = mine.has_data && !writes(mine);
    if !silent.is_empty() && (may_be_behind || o.lease.quiet_for < PATIENCE) {
        let who = silent.join(", ");
        let because = match may_be_behind {
            true => format!(
                "{who} may have later data of the cluster; if they are gone for good: pgherdctl failover \
                 --candidate NAME makes the data of the named member the cluster's"
            ),
            false => format!("{who} may have data of the cluster"),
        };
        return Some(await_bootstrap(because).act(Action::AskPeers).wait("its report"));
    }
    if may_be_behind && mine.is_streaming {
        let because = "this standby streams from a primary that is no member of the cluster; start pgherd \
                       beside that one, or stop it"
            .to_owned();
        return Some(await_bootstrap(because).wait("the primary"));
    }
    None
}

/// The holder of the lease has no data: it makes the first of the cluster, or gives the lease back.
pub(super) fn without_data(o: &Observation) -> Decision {
    if o.cluster.system_identifier.is_some() {
        let because = "this node holds the lease, but has no data";
        return release(o, Decision::new(State::Demoting, Rule::HolderWithoutData, because, SOON));
    }
    let epoch = o.cluster.lease.epoch;
    let failed = o.finished.get(&JobKind::Bootstrap).filter(|ended| ended.epoch == epoch);
    if let Some(failed) = failed.filter(|ended| ended.error.is_some()) {
        let error = failed.error.clone().unwrap_or_default();
        let because = format!("the cluster could not be initialised: {error}");
        return release(o, Decision::new(State::Demoting, Rule::GiveBack, because, SOON));
    }
    Decision::new(State::Bootstrapping, Rule::Bootstrap, "trying to bootstrap a new cluster", SOON)
        .act(Action::Guard(GuardAction::Arm { epoch }))
        .act(Action::Postgres(PgAction::Bootstrap))
}
