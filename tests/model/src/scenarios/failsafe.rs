//! Licences by promises.

use super::{PLAIN, Scenario, mutant, sound};
use crate::lease::Bounds;

const FAILSAFE: Bounds = Bounds { failsafe: 0b011, ttls: (2, 2), ..PLAIN };
const RESTART: Bounds = Bounds { restarts: 1, ..FAILSAFE };
const LISTS: Bounds = Bounds { holders: 0b111, lists: [0b011, 0b111], ..FAILSAFE };
/// One candidate, which joins the list; the others apply at once.
const JOINS: Bounds = Bounds { holders: 0b101, lists: [0b111, 0], prompt: 0b110, ..FAILSAFE };
/// A proposal of a list outlives the daemon that made it.
const EARLIER: Bounds = Bounds { restarts: 1, unstable: 0b001, ..JOINS };
const THREE: Bounds = Bounds { holders: 0b111, failsafe: 0b111, ..FAILSAFE };

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        mutant::<3>("failsafe mutant: one answer is missing", FAILSAFE, |r| r.ask_everybody = false),
        mutant::<3>("failsafe mutant: a promise is forgotten by a restart", RESTART, |r| {
            r.promise_from_start = false
        }),
        mutant::<3>("failsafe mutant: a promise stops nothing", FAILSAFE, |r| {
            r.promise_stops_first_renewal = false
        }),
        mutant::<3>("failsafe mutant: a grant outside the list", JOINS, |r| r.grant_in_list = false),
        mutant::<3>("failsafe mutant: additions count after commit only", JOINS, |r| r.ask_proposed = false),
        mutant::<3>("failsafe mutant: the list changes under promises (earlier text)", JOINS, |r| {
            r.change_list_by_majority = false;
        }),
        mutant::<3>("failsafe mutant: a later epoch is no refusal", FAILSAFE, |r| {
            r.refuse_older_epoch = false
        }),
        mutant::<3>("failsafe mutant: in an epoch of an earlier life", EARLIER, |r| {
            r.failsafe_in_own_epoch = false;
        }),
        mutant::<3>("failsafe mutant: promises are the first licence", FAILSAFE, |r| {
            r.failsafe_only_extends = false
        }),
        sound::<3>("failsafe: two data nodes", Bounds { epochs: 3, ..FAILSAFE }),
        sound::<3>("failsafe: slow clock", Bounds { slow: 1, ttls: (3, 3), ..FAILSAFE }),
        sound::<3>("failsafe: three data nodes", THREE),
        sound::<3>("failsafe: restart", Bounds { epochs: 3, ..RESTART }),
        sound::<3>("failsafe: a member joins", JOINS),
        sound::<3>("failsafe: a member joins, restart", EARLIER),
        sound::<3>("failsafe: the list changes", LISTS),
        sound::<3>("failsafe: the list changes, restart", Bounds { restarts: 1, ..LISTS }),
        sound::<3>("failsafe: hand over", Bounds { release: true, transfer: true, epochs: 3, ..FAILSAFE }),
        sound::<3>("failsafe: new epochs", Bounds { renew: true, epochs: 3, ..FAILSAFE }),
    ]
}
