//! Pinned epochs.

use super::{PLAIN, Scenario, mutant, sound};
use crate::lease::Bounds;

const PAUSE: Bounds = Bounds { pause: true, epochs: 4, ttls: (2, 2), ..PLAIN };
const RESTART: Bounds = Bounds { restarts: 1, ..PAUSE };
const FENCE: Bounds = Bounds { fence: true, epochs: 3, ..PAUSE };
const GOODBYE: Bounds = Bounds { goodbye: true, ..FENCE };

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        mutant::<3>("pause mutant: disarmed before it is applied", PAUSE, |r| r.disarm_when_applied = false),
        mutant::<3>("pause mutant: a pinned epoch is closed", PAUSE, |r| r.pin_refuses_closes = false),
        mutant::<3>("pause mutant: a pinned epoch is fenced", FENCE, |r| r.pin_refuses_fences = false),
        mutant::<3>("pause mutant: the pin ends before the guard is armed", PAUSE, |r| {
            r.arm_before_resume = false
        }),
        mutant::<3>("pause mutant: disarmed again while resume is under way", PAUSE, |r| {
            r.stay_armed = false
        }),
        mutant::<3>("pause mutant: disarmed in an epoch of an earlier life", RESTART, |r| {
            r.disarm_in_own_epoch = false;
        }),
        sound::<3>("pause: and resume", PAUSE),
        sound::<3>("pause: restart", RESTART),
        sound::<3>("pause: fences", FENCE),
        mutant::<3>("pause mutant: fenced without a goodbye", GOODBYE, |r| r.pin_refuses_fences = false),
        sound::<3>("pause: a daemon is stopped, and fences end the pin", GOODBYE),
        sound::<3>("pause: hand over", Bounds { release: true, transfer: true, ..PAUSE }),
        sound::<3>("pause: reboot", Bounds { reboots: 1, release: true, ..PAUSE }),
        sound::<3>("pause: the operator's word", Bounds { power: true, deaths: 1, reboots: 1, ..PAUSE }),
    ]
}
