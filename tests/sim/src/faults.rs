//! What goes wrong, and when. A fault counts when it met something that was there to be broken.

use std::collections::BTreeMap;

use crate::model::{Command, Intent};

use crate::network::{CALM, HARSH, Weather};
use crate::node::NAMES;
use crate::random::Random;
use crate::world::{World, note, settings};

/// Faults begin after this time, when the cluster usually runs, and stop after that one.
pub(crate) const BEGIN: u64 = 8_000_000;
pub(crate) const END: u64 = 60_000_000;
/// So many faults take effect in each run, however long it takes.
pub(crate) const ENOUGH: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Daemon, guard and PostgreSQL end at once, and the machine reboots.
    Crash,
    KillDaemon,
    /// SIGSTOP.
    StopDaemon,
    KillGuard,
    KillPostgres,
    /// The whole node makes no step, while its clock runs on.
    Freeze,
    /// One node is cut off both ways.
    Isolate,
    /// One link is cut one way.
    OneWay,
    /// One link is cut both ways.
    TwoWay,
    /// Messages are lost, late, and there twice.
    Storm,
    /// SIGTERM, and a start afterwards.
    CleanStop,
    /// An operator asks for a switchover.
    Switchover,
    /// An operator changes the ttl.
    ChangeTtl,
    /// An operator changes how commits wait for standbys.
    ChangeSync,
}

pub(crate) const ALL: [Fault; 14] = [
    Fault::Crash,
    Fault::KillDaemon,
    Fault::StopDaemon,
    Fault::KillGuard,
    Fault::KillPostgres,
    Fault::Freeze,
    Fault::Isolate,
    Fault::OneWay,
    Fault::TwoWay,
    Fault::Storm,
    Fault::CleanStop,
    Fault::Switchover,
    Fault::ChangeTtl,
    Fault::ChangeSync,
];

pub(crate) struct Faults {
    next: u64,
    heal_at: u64,
    calm_at: u64,
    /// How many took effect.
    pub(crate) effects: u64,
    /// How often each kind took effect.
    pub(crate) counts: BTreeMap<Fault, u64>,
}

impl Faults {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            next: random.between(BEGIN, BEGIN + 4_000_000),
            heal_at: 0,
            calm_at: 0,
            effects: 0,
            counts: BTreeMap::new(),
        }
    }
}

impl World {
    pub(crate) fn bring_faults(&mut self) {
        let now = self.now;
        if now >= self.faults.heal_at || now >= END {
            self.network.cut.clear();
        }
        if now >= self.faults.calm_at || now >= END {
            let harsh = self.setting.harsh && (BEGIN..END).contains(&now);
            self.network.weather = if harsh { HARSH } else { CALM };
        }
        if now < self.faults.next || now >= END && self.faults.effects >= ENOUGH {
            return;
        }
        let kinds = self.setting.faults;
        let often = kinds.len() < ALL.len() || self.random.per_mille(300);
        let pause = if often { 2_000_000 } else { 7_000_000 };
        self.faults.next = now + self.random.between(100_000, pause);
        let fault = kinds[self.random.index(kinds.len())];
        // The holder is the more interesting victim.
        let holder = self.log.last().lease.holder().map(crate::node::index);
        let anybody = self.random.index(self.nodes.len());
        let place = holder.filter(|_| self.random.per_mille(500)).unwrap_or(anybody);
        if self.bring(fault, place) {
            *self.faults.counts.entry(fault).or_default() += 1;
            self.faults.effects += 1;
            note!(self, "FAULT {fault:?} at {}", NAMES[place]);
        }
    }

    fn bring(&mut self, fault: Fault, place: usize) -> bool {
        let now = self.now;
        let short = self.random.between(100_000, 3_000_000);
        let long = self.random.between(500_000, 14_000_000);
        let count = self.nodes.len();
        let other = (place + 1 + self.random.index(count - 1)) % count;
        let node = &mut self.nodes[place];
        match fault {
            Fault::Crash => {
                let was_up = node.daemon.is_some() || node.server.is_some();
                (node.daemon, node.guard, node.server) = (None, None, None);
                node.daemon_starts_at = Some(now + long);
                node.clock_offset = long;
                node.data.crash();
                was_up
            }
            Fault::KillDaemon => {
                let was_up = node.daemon.take().is_some();
                if was_up {
                    node.daemon_starts_at = Some(now + if long > 7_000_000 { long } else { short });
                }
                was_up
            }
            Fault::StopDaemon => {
                node.daemon_stopped_until = now + long;
                node.daemon.is_some()
            }
            // Nothing happens on a frozen machine; it may have lost its daemon before, and would wake without either.
            Fault::KillGuard if node.is_frozen(now) => false,
            Fault::KillGuard => {
                let was_up = node.guard.take().is_some();
                // The postmaster has its death signal.
                if let Some(server) = node.server.as_mut().filter(|_| was_up) {
                    server.stops_at = Some((now + 50_000, false));
                }
                was_up
            }
            Fault::KillPostgres => node.server.take().is_some(),
            Fault::Freeze => {
                node.frozen_until = now + long;
                node.daemon.is_some()
            }
            Fault::Isolate => {
                for other in (0..count).filter(|other| *other != place) {
                    self.network.cut.extend([(place, other), (other, place)]);
                }
                self.faults.heal_at = now + long;
                true
            }
            Fault::OneWay => {
                self.network.cut.insert((place, other));
                self.faults.heal_at = now + long;
                true
            }
            Fault::TwoWay => {
                self.network.cut.extend([(place, other), (other, place)]);
                self.faults.heal_at = now + long;
                true
            }
            Fault::Storm => {
                let some = |random: &mut Random| random.below(400);
                self.network.weather = Weather {
                    lost: some(&mut self.random),
                    twice: some(&mut self.random),
                    late: some(&mut self.random),
                };
                self.faults.calm_at = now + long;
                true
            }
            Fault::CleanStop => {
                let Some(daemon) = node.daemon.as_mut().filter(|_| node.is_data) else { return false };
                !std::mem::replace(&mut daemon.shutting_down, true)
            }
            Fault::Switchover => self.ask_for_switchover(),
            Fault::ChangeTtl => self.change_ttl(),
            Fault::ChangeSync => self.setting.sync && self.change_sync(),
        }
    }

    fn change_ttl(&mut self) -> bool {
        let Some(leader) = self.log.working_leader() else { return false };
        let expected = self.log.last().settings.revision;
        if expected.0 == 0 {
            return false;
        }
        let ttl = ["2", "4", "8", "15"][self.random.index(4)];
        let (_, rest) = self.log.last().settings.document.split_once(' ').expect("five words");
        let document = format!("{ttl} {rest}");
        self.commit_at(leader, &Command::SetSettings { expected, document });
        true
    }

    fn change_sync(&mut self) -> bool {
        let Some(leader) = self.log.working_leader() else { return false };
        let expected = self.log.last().settings.revision;
        if expected.0 == 0 {
            return false;
        }
        let document = settings(&mut self.random, true);
        self.commit_at(leader, &Command::SetSettings { expected, document });
        true
    }

    fn ask_for_switchover(&mut self) -> bool {
        let Some(leader) = self.log.working_leader() else { return false };
        let state = self.log.last();
        let Some(from) = state.lease.holder().filter(|_| state.intent.is_none()) else { return false };
        self.commit_at(leader, &Command::SetIntent { intent: Intent::Switchover { from, to: None } });
        true
    }
}
