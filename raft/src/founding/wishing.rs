//! Data nodes without a vote: they found nothing, and make a witness do it when nobody else will.

use super::machine::{Action, Founding};
use super::message::{Identity, Status};
use crate::lease::BootTime;

/// The most partners of a witness that are not in its own configuration.
const MAX_LISTED: usize = 64;

impl Founding {
    /// A data node without a vote, which lists these partners, wishes a founding. A data node with a vote founds without
    /// being asked.
    pub fn wished(&mut self, partners: &[String], now: BootTime) -> Vec<Action> {
        if self.me.coordinates() || !self.me.votes() || self.promise.is_some() || self.group.is_some() {
            return Vec::new();
        }
        for addr in partners {
            if addr != self.me.addr() && !self.partners.contains(addr) && self.partners.len() < MAX_LISTED {
                self.partners.push(addr.clone());
            }
        }
        self.is_wished = true;
        self.choose_targets();
        self.go_on(now)
    }

    /// By itself, or because it is wished.
    pub(super) fn may_coordinate(&self) -> bool {
        self.me.coordinates() || self.is_wished
    }

    /// Without a vote: nobody founds unless it is wished, when the partners which answer are witnesses.
    pub(super) fn wish(&mut self, now: BootTime) -> Vec<Action> {
        let is_free = self.group.is_none() && self.hint.is_none() && self.refused.is_none();
        let is_begun = self.promises_seen().next().is_some();
        let is_another_s = self.new_partners().any(Identity::coordinates);
        if self.me.votes() || !is_free || is_begun || is_another_s {
            return Vec::new();
        }
        let is_new = |addr: &&String| {
            let seen = self.targets.get(*addr).and_then(|target| target.seen.as_ref());
            matches!(seen, Some((_, Status::New { identity, .. })) if identity.votes())
        };
        let witnesses: Vec<String> = self.partners.iter().filter(is_new).cloned().collect();
        if witnesses.is_empty() || !self.is_due(now) {
            return Vec::new();
        }
        let wish = |addr| Action::Wish { addr, partners: self.partners.clone() };
        witnesses.into_iter().map(wish).collect()
    }
}
