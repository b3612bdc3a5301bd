//! What must hold after every step.

use crate::node::NAMES;
use crate::world::World;

impl World {
    pub(crate) fn check_invariants(&mut self) {
        let now = self.now;
        let writers: Vec<usize> =
            (0..self.nodes.len()).filter(|place| self.nodes[*place].acknowledges(now)).collect();
        self.check_fences();
        let loud: Vec<usize> = writers.iter().copied().filter(|place| !self.is_silenced(*place)).collect();
        if loud.len() > 1 {
            let names: Vec<&str> = loud.iter().map(|place| NAMES[*place]).collect();
            self.fail(format!("{} can acknowledge writes at the same time", names.join(" and ")));
        }
        for place in writers {
            let node = &self.nodes[place];
            let clock = node.clock(now);
            // A pinned epoch is the operator's own word.
            let tenure = self.log.last().lease.tenure.as_ref();
            let is_pinned = tenure.is_some_and(|tenure| {
                let session = node.guard.as_ref().map(|guard| guard.session);
                tenure.pinned && tenure.holder == node.id() && Some(tenure.session) == session
            });
            self.pinned_steps += u64::from(is_pinned && !self.nodes[place].is_armed());
            let node = &self.nodes[place];
            // Its deadline passes unseen while it is stopped: its daemon ends it, or it is thawed.
            let is_stopped = now < node.guard_stopped.1;
            let guard = node.guard.as_ref().and_then(|guard| guard.armed);
            let is_guarded = guard.is_some_and(|armed| armed.deadline >= clock || is_stopped);
            let ends = node.server.as_ref().is_some_and(|server| server.stops_at.is_some());
            let is_left = self.is_unguarded(place) && self.is_silenced(place);
            if !is_guarded && !is_pinned && !is_left && !ends {
                self.fail(format!("{} is writable without an armed guard", NAMES[place]));
            }
        }
    }
}
