//! What goes wrong, and when. A fault counts when it met something that was there to be broken.

use std::collections::BTreeMap;

use crate::model::{self, Command, Intent, Outcome};

use crate::network::{CALM, HARSH, Network, Weather};
use crate::node::NAMES;
use crate::random::Random;
use crate::settings::Settings;
use crate::world::{World, note};

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
    /// SIGSTOP: sessions go on, no new one begins.
    StopPostmaster,
    /// The disk of the data directory does not come back.
    StallData,
    /// The disk of the consensus store does not come back.
    StallLog,
    /// What starts, promotes, rewinds or copies fails.
    FailTools,
    /// The same takes long.
    HangTools,
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
    /// The guard is stopped (SIGSTOP).
    StopGuard,
    /// The consensus store is lost.
    LoseStore,
    /// All witnesses are lost at once.
    LoseWitnesses,
    /// Operators switch failsafe off, or on.
    ChangeFailsafe,
    /// An operator names the next primary.
    Failover,
    /// Operators pause the cluster, and end that.
    Pause,
    Resume,
    /// The holder's machine is switched off, and an operator says so.
    DeclareDead,
}

pub(crate) const ALL: [Fault; 27] = [
    Fault::Crash,
    Fault::KillDaemon,
    Fault::StopDaemon,
    Fault::KillGuard,
    Fault::KillPostgres,
    Fault::StopPostmaster,
    Fault::StallData,
    Fault::StallLog,
    Fault::FailTools,
    Fault::HangTools,
    Fault::Freeze,
    Fault::Isolate,
    Fault::OneWay,
    Fault::TwoWay,
    Fault::Storm,
    Fault::CleanStop,
    Fault::Switchover,
    Fault::ChangeTtl,
    Fault::ChangeSync,
    Fault::StopGuard,
    Fault::LoseStore,
    Fault::LoseWitnesses,
    Fault::ChangeFailsafe,
    Fault::Failover,
    Fault::Pause,
    Fault::Resume,
    Fault::DeclareDead,
];

pub(crate) struct Faults {
    next: u64,
    heal_at: u64,
    calm_at: u64,
    /// How many took effect.
    pub(crate) effects: u64,
    /// How often each kind took effect.
    pub(crate) counts: BTreeMap<Fault, u64>,
    /// Faults which have met nothing yet.
    open: Vec<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    fault: Fault,
    place: usize,
    until: u64,
    /// What the network had lost, doubled and delayed before.
    seen: (u64, u64),
}

/// What becomes of a fault.
enum Brought {
    /// It met nothing.
    Nothing,
    /// It took effect.
    Done,
    /// It takes effect until this time, if something meets it.
    Open(u64),
}

fn done(is_done: bool) -> Brought {
    if is_done { Brought::Done } else { Brought::Nothing }
}

impl Faults {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            next: random.between(BEGIN, BEGIN + 4_000_000),
            heal_at: 0,
            calm_at: 0,
            effects: 0,
            counts: BTreeMap::new(),
            open: Vec::new(),
        }
    }

    fn count(&mut self, fault: Fault) {
        *self.counts.entry(fault).or_default() += 1;
        self.effects += 1;
    }
}

impl World {
    pub(crate) fn bring_faults(&mut self) {
        let now = self.now;
        self.see_effects();
        let is_over = now >= END && self.faults.effects >= ENOUGH;
        if now >= self.faults.heal_at || is_over {
            self.network.cut.clear();
        }
        if now >= self.faults.calm_at || is_over {
            let harsh = self.setting.harsh && (BEGIN..END).contains(&now);
            self.network.weather = if harsh { HARSH } else { CALM };
        }
        if is_over {
            self.resume();
        }
        if now < self.faults.next || is_over {
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
        match self.bring(fault, place) {
            Brought::Nothing => {}
            Brought::Done => {
                note!(self, "FAULT {fault:?} at {}", NAMES[place]);
                self.faults.count(fault);
            }
            Brought::Open(until) => {
                note!(self, "FAULT {fault:?} at {} until {:.3}", NAMES[place], until as f64 / 1e6);
                let seen = self.network_losses();
                self.faults.open.retain(|open| (open.fault, open.place) != (fault, place));
                self.faults.open.push(Open { fault, place, until, seen });
            }
        }
    }

    fn network_losses(&self) -> (u64, u64) {
        let Network { lost, twice, late, cut_off, .. } = self.network;
        (cut_off, lost - cut_off + twice + late)
    }

    /// Faults of the network have taken effect when a message met them.
    fn see_effects(&mut self) {
        let (now, seen) = (self.now, self.network_losses());
        let mut open = std::mem::take(&mut self.faults.open);
        open.retain(|fault| {
            let has_met = match fault.fault {
                Fault::Isolate | Fault::OneWay | Fault::TwoWay => seen.0 > fault.seen.0,
                Fault::Storm => seen.1 > fault.seen.1,
                _ => false,
            };
            if has_met {
                self.faults.count(fault.fault);
            }
            !has_met && now < fault.until
        });
        self.faults.open = open;
    }

    /// Something met this fault.
    pub(crate) fn prove(&mut self, fault: Fault, place: usize) {
        let met = self.faults.open.iter().position(|open| (open.fault, open.place) == (fault, place));
        if let Some(met) = met {
            self.faults.open.swap_remove(met);
            self.faults.count(fault);
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each fault")]
    fn bring(&mut self, fault: Fault, place: usize) -> Brought {
        let now = self.now;
        let short = self.random.between(100_000, 3_000_000);
        let long = self.random.between(500_000, 14_000_000);
        let longer = self.random.between(1_000_000, 30_000_000);
        let count = self.nodes.len();
        let other = (place + 1 + self.random.index(count - 1)) % count;
        let voters = &self.log.last().lease.voters;
        let all_count = self.nodes.iter().all(|node| voters.contains(&node.id()));
        let node = &mut self.nodes[place];
        match fault {
            // Nobody leaves while another one's store is being replaced: two losses at once.
            Fault::CleanStop if !all_count => Brought::Nothing,
            Fault::Crash => {
                let was_up = node.daemon.is_some() || node.server.is_some();
                (node.daemon, node.guard, node.server) = (None, None, None);
                node.daemon_starts_at = Some(now + long);
                node.clock_offset = long;
                (node.guard_stopped, node.data_stalled) = ((0, 0), (0, 0));
                node.data.crash();
                done(was_up)
            }
            Fault::KillDaemon | Fault::StopDaemon | Fault::CleanStop | Fault::Freeze | Fault::LoseStore
                if now < node.guard_stopped.1 =>
            {
                Brought::Nothing
            }
            Fault::KillDaemon => {
                let was_up = node.daemon.take().is_some();
                if was_up {
                    node.daemon_starts_at = Some(now + if long > 7_000_000 { long } else { short });
                }
                done(was_up)
            }
            Fault::StopDaemon => {
                node.daemon_stopped_until = now + long;
                Brought::Open(now + long)
            }
            // Nothing happens on a frozen machine; it may have lost its daemon before, and would wake without either.
            Fault::KillGuard if node.is_frozen(now) => Brought::Nothing,
            Fault::KillGuard => {
                let was_up = node.guard.take().is_some();
                node.guard_stopped = (0, 0);
                // The postmaster has its death signal.
                if let Some(server) = node.server.as_mut().filter(|_| was_up) {
                    server.stops_at = Some((now + 50_000, false));
                }
                done(was_up)
            }
            Fault::KillPostgres => {
                let was_up = node.server.is_some();
                node.kill_server(now);
                done(was_up)
            }
            Fault::StopPostmaster => {
                let Some(server) = &mut node.server else { return Brought::Nothing };
                server.refuses = true;
                node.refuses = (now, now + longer);
                Brought::Open(now + longer)
            }
            Fault::StallData => {
                node.data_stalled = (now, now + longer);
                Brought::Open(now + longer)
            }
            Fault::StallLog => {
                node.log_stalled_until = now + long;
                Brought::Open(now + long)
            }
            Fault::FailTools => {
                node.tools_fail_until = now + longer;
                Brought::Open(now + longer)
            }
            Fault::HangTools => {
                node.tools_hang_until = now + longer;
                Brought::Open(now + longer)
            }
            Fault::Freeze => {
                node.frozen_until = now + long;
                Brought::Open(now + long)
            }
            Fault::Isolate => {
                for other in (0..count).filter(|other| *other != place) {
                    self.network.cut.extend([(place, other), (other, place)]);
                }
                self.faults.heal_at = now + long;
                Brought::Open(now + long)
            }
            Fault::OneWay => {
                self.network.cut.insert((place, other));
                self.faults.heal_at = now + long;
                Brought::Open(now + long)
            }
            Fault::TwoWay => {
                self.network.cut.extend([(place, other), (other, place)]);
                self.faults.heal_at = now + long;
                Brought::Open(now + long)
            }
            Fault::Storm => {
                let some = |random: &mut Random| random.below(400);
                self.network.weather = Weather {
                    lost: some(&mut self.random),
                    twice: some(&mut self.random),
                    late: some(&mut self.random),
                };
                self.faults.calm_at = now + long;
                Brought::Open(now + long)
            }
            Fault::CleanStop => {
                let Some(daemon) = node.daemon.as_mut().filter(|_| node.is_data) else {
                    return Brought::Nothing;
                };
                daemon.shutting_down = true;
                Brought::Open(now + longer)
            }
            Fault::Switchover => done(self.ask_for_switchover()),
            Fault::ChangeTtl => done(self.change_ttl()),
            Fault::StopGuard => {
                // Daemon and guard both stopped need a watchdog: a stated limit.
                if node.guard.is_none() || !node.daemon_runs(now) {
                    return Brought::Nothing;
                }
                node.guard_stopped = (now, now + long);
                Brought::Open(now + long)
            }
            Fault::LoseStore => done(self.lose_store(place)),
            Fault::LoseWitnesses => {
                if self.setting.witnesses < 2 {
                    return Brought::Nothing;
                }
                for witness in self.nodes.iter_mut().filter(|node| !node.is_data) {
                    witness.daemon = None;
                    witness.daemon_starts_at = Some(now + longer);
                }
                Brought::Open(now + longer)
            }
            Fault::ChangeFailsafe => done(self.setting.failsafe && self.change_failsafe()),
            Fault::Failover => done(self.ask_for_failover(place, short.is_multiple_of(2))),
            Fault::Pause => done(self.setting.pause && self.set_pause(true)),
            Fault::Resume => done(self.setting.pause && self.set_pause(false)),
            Fault::DeclareDead => done(self.setting.pause && self.declare_dead(other)),
            Fault::ChangeSync => done(self.setting.sync && self.change_sync()),
        }
    }

    /// An operator ends what an operator began.
    fn resume(&mut self) {
        self.set_pause(false);
    }

    fn set_pause(&mut self, pause: bool) -> bool {
        self.change_settings(|settings| std::mem::replace(&mut settings.pause, pause) != pause)
    }

    /// An operator changes the settings, once there are any; `change` says whether it did.
    fn change_settings(&mut self, change: impl FnOnce(&mut Settings) -> bool) -> bool {
        let Some(leader) = self.log.working_leader() else { return false };
        let model::Settings { revision: expected, document } = self.log.last().settings.clone();
        if expected.0 == 0 {
            return false;
        }
        let mut settings = Settings::read(&document);
        if !change(&mut settings) {
            return false;
        }
        let document = settings.document();
        let command = Command::SetSettings { expected, document, by: String::new(), at_ms: 0 };
        self.commit_at(leader, &command) == Outcome::Applied
    }

    /// An operator names the next primary, whether or not there is one, and sometimes accepts a loss.
    fn ask_for_failover(&mut self, to: usize, accepts_loss: bool) -> bool {
        let Some(leader) = self.log.working_leader() else { return false };
        let intent = Intent::Failover { to: self.nodes[to].id(), accepts_loss, holder_is_dead: false };
        self.commit_at(leader, &Command::SetIntent { intent }) == Outcome::Applied
    }

    /// An operator switches the holder's machine off, says so, and keeps it off until that is done.
    fn declare_dead(&mut self, to: usize) -> bool {
        let Some(leader) = self.log.working_leader() else { return false };
        let Some(holder) = self.log.last().lease.holder().map(crate::node::index) else { return false };
        // The others are a majority without it.
        let voters = &self.log.last().lease.voters;
        let all_count = self.nodes.iter().all(|node| voters.contains(&node.id()) && node.off_for.is_none());
        if leader == holder || !all_count {
            return false;
        }
        let intent = Intent::Failover { to: self.nodes[to].id(), accepts_loss: false, holder_is_dead: true };
        if self.commit_at(leader, &Command::SetIntent { intent }) != Outcome::Applied {
            return false;
        }
        let long = self.random.between(500_000, 14_000_000);
        let node = &mut self.nodes[holder];
        (node.daemon, node.guard, node.server) = (None, None, None);
        node.data.crash();
        node.clock_offset = long;
        node.daemon_starts_at = Some(self.now + long);
        node.off_for = self.log.last().intent.as_ref().map(|pending| pending.id);
        true
    }

    fn change_failsafe(&mut self) -> bool {
        self.change_settings(|settings| {
            settings.safe = !settings.safe;
            true
        })
    }

    fn change_ttl(&mut self) -> bool {
        let ttl = [2, 4, 8, 15][self.random.index(4)];
        self.change_settings(|settings| {
            settings.ttl = ttl;
            true
        })
    }

    fn change_sync(&mut self) -> bool {
        let other = Settings::random(&mut self.random, false, true);
        self.change_settings(|settings| {
            *settings = Settings { pause: settings.pause, safe: settings.safe, ..other };
            true
        })
    }

    fn ask_for_switchover(&mut self) -> bool {
        let Some(leader) = self.log.working_leader() else { return false };
        let state = self.log.last();
        let Some(from) = state.lease.holder().filter(|_| state.intent.is_none()) else { return false };
        let intent = Intent::Switchover { from, to: None };
        self.commit_at(leader, &Command::SetIntent { intent }) == Outcome::Applied
    }
}
