//! Renewals, closes, new epochs, hand-over, restarts, change of voters, adoption.

use super::{PLAIN, Scenario, alive, mutant, sound};
use crate::lease::Bounds;

const SLOW: Bounds = Bounds { slow: 1, ..PLAIN };
const RESTART: Bounds = Bounds { restarts: 1, ..SLOW };
const RENEW: Bounds = Bounds { renew: true, epochs: 3, ..PLAIN };
const TTL: Bounds = Bounds { ttls: (4, 2), epochs: 3, ..PLAIN };
const HAND_OVER: Bounds = Bounds { release: true, transfer: true, ..PLAIN };
const REBOOT: Bounds = Bounds { reboots: 1, release: true, ..PLAIN };
const FENCE: Bounds = Bounds { fence: true, restarts: 1, ..PLAIN };
const FIVE: Bounds =
    Bounds { change_voters: 0b11000, holders: 0b00101, epochs: 4, ttls: (2, 2), prompt: 0b11100, ..PLAIN };
const GROW: Bounds = Bounds { change_voters: 0b110, voters: 0b001, epochs: 4, ..PLAIN };
const DEATH: Bounds = Bounds { deaths: 1, renew: true, ttls: (2, 2), epochs: 3, ..PLAIN };
const ADOPT: Bounds = Bounds { adopt: true, restarts: 1, ..PLAIN };

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = renewals();
    all.extend(voters());
    all.extend(adoption());
    all
}

fn renewals() -> Vec<Scenario> {
    vec![
        mutant::<3>("lease mutant: deadline counts from the answer", SLOW, |r| r.count_from_send = false),
        mutant::<3>("lease mutant: no margin", SLOW, |r| r.margin = false),
        mutant::<3>("lease mutant: a close does not wait", SLOW, |r| r.close_waits = false),
        mutant::<3>("lease mutant: a close is not durable", RESTART, |r| r.durable_close = false),
        mutant::<3>("lease mutant: quiet, but not from the start", RESTART, |r| r.quiet_from_start = false),
        mutant::<3>("lease mutant: quiet per epoch (earlier text)", RENEW, |r| {
            r.quiet_from_learning = false;
            r.quiet_for_any_epoch = false;
        }),
        mutant::<3>(
            "lease mutant: no compare-and-set",
            Bounds { release: true, ttls: (2, 2), ..RENEW },
            |r| {
                r.compare_and_set = false;
            },
        ),
        mutant::<3>("lease mutant: a shorter ttl at once (earlier text)", TTL, |r| r.old_ttl_counts = false),
        mutant::<3>("lease mutant: giving up not recorded (earlier text)", HAND_OVER, |r| {
            r.give_up_recorded = false;
        }),
        mutant::<3>("lease mutant: a transfer keeps the deadline", HAND_OVER, |r| {
            r.transfer_voids_deadline = false
        }),
        mutant::<3>("lease mutant: not bound to a session (earlier text)", REBOOT, |r| {
            r.bound_to_session = false
        }),
        mutant::<3>("lease mutant: no floor at an acknowledgement (earlier text)", FENCE, |r| {
            r.floor_on_ack = false;
        }),
        mutant::<3>("lease mutant: a grant is a licence", RENEW, |r| r.licence_needs_renewal = false),
        sound::<3>("lease: core", Bounds { epochs: 3, ..SLOW }),
        sound::<3>("lease: restart", RESTART),
        sound::<3>("lease: new epochs", RENEW),
        sound::<3>("lease: new epochs, answers to old rounds", Bounds { two_rounds: true, ..RENEW }),
        sound::<3>("lease: ttl", TTL),
        sound::<3>("lease: hand over", HAND_OVER),
        sound::<3>("lease: reboot", REBOOT),
        sound::<3>("lease: fence", FENCE),
        sound::<3>("lease: any number of epochs", Bounds { epochs: u8::MAX, ttls: (2, 2), ..RENEW }),
        alive::<3>("lease: no dead end after a death", DEATH),
    ]
}

fn voters() -> Vec<Scenario> {
    let five_still = Bounds { time: false, ..FIVE };
    let grow_still = Bounds { time: false, ..GROW };
    vec![
        mutant::<5>("voters mutant: beside the epoch (earlier text)", five_still, |r| {
            r.voters_in_epoch = false;
            r.quiet_from_learning = false;
        }),
        mutant::<5>("voters mutant: the same, stale ones not refused", five_still, |r| {
            r.voters_in_epoch = false;
            r.refuse_stale_voters = false;
            r.quiet_from_learning = false;
        }),
        mutant::<5>("voters mutant: five, neither renewal nor learning", five_still, |r| {
            r.change_after_renewal = false;
            r.quiet_from_learning = false;
        }),
        mutant::<3>("voters mutant: 1-2-3, beside the epoch (earlier text)", grow_still, |r| {
            r.voters_in_epoch = false;
            r.quiet_from_learning = false;
        }),
        mutant::<3>("voters mutant: 1-2-3, neither renewal nor learning", grow_still, |r| {
            r.change_after_renewal = false;
            r.quiet_from_learning = false;
        }),
        mutant::<3>("voters mutant: 1-2-3, two at once", GROW, |r| r.one_voter_at_a_time = false),
        sound::<3>("voters: 1-2-3", GROW),
        sound::<3>("voters: 1-2-3, answers to old rounds", Bounds { two_rounds: true, ..GROW }),
        sound::<3>("voters: 1-2-3, ttl 2", Bounds { ttls: (2, 2), ..GROW }),
        sound::<3>(
            "voters: 1-2-3, ttl 2, any number of epochs",
            Bounds { ttls: (2, 2), epochs: u8::MAX, ..GROW },
        ),
        sound::<3>(
            "voters: 1-2-3, vacant and with a transfer",
            Bounds {
                ttls: (2, 2),
                epochs: 3,
                vacant_voters: true,
                release: true,
                transfer: true,
                change_voters: 0b111,
                ..GROW
            },
        ),
        sound::<5>("voters: five", FIVE),
    ]
}

fn adoption() -> Vec<Scenario> {
    vec![
        mutant::<3>("adoption mutant: the deadline is not armed", ADOPT, |r| r.arm_at_adoption = false),
        mutant::<3>("adoption mutant: adopted again and again", ADOPT, |r| r.adopt_once = false),
        mutant::<3>("adoption mutant: the lease before the guard", ADOPT, |r| r.adopt_before_renewal = false),
        mutant::<3>("adoption mutant: runs on under another's lease", ADOPT, |r| r.stop_unlicensed = false),
        sound::<3>("adoption: of a running primary", ADOPT),
    ]
}
