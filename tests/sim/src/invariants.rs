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
            let is_guarded = match &node.guard {
                Some(guard) => guard.armed.is_some_and(|armed| armed.deadline >= clock),
                None => false,
            };
            let ends = node.server.as_ref().is_some_and(|server| server.stops_at.is_some());
            if !is_guarded && !ends {
                self.fail(format!("{} is writable without an armed guard", NAMES[place]));
            }
        }
    }
}
