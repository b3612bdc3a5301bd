//! The numbers of timelines: no two promotions may make the same one.
//!
//! PostgreSQL tells histories apart by the numbers of their timelines alone. Two servers that leave recovery at the same
//! position, each without knowing of the other, would make the same number for different WAL. So the holder has a number
//! reserved before it promotes, and each number is reserved once.

use serde::{Deserialize, Serialize};

use super::command::Rejection;
use super::ids::{Epoch, TimelineId};

/// The reservations, of which the last one alone matters.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timelines {
    /// The highest number that may have been made; zero: none is known.
    pub highest: TimelineId,
    /// The epoch whose holder it is reserved for.
    pub epoch: Epoch,
}

impl Timelines {
    /// The number which the holder of this epoch may give to the timeline that it makes.
    pub fn reserved_in(&self, epoch: Epoch) -> Option<TimelineId> {
        (self.epoch == epoch && self.highest > TimelineId(0)).then_some(self.highest)
    }

    /// Reserves a number above this one and above all that were reserved before. A repeated proposal of the same holder
    /// keeps the number that it has already: a holder that has used it names it as the one to be above.
    pub(super) fn reserve(&mut self, epoch: Epoch, above: TimelineId) -> Result<(), Rejection> {
        if self.reserved_in(epoch).is_some_and(|reserved| reserved > above) {
            return Ok(());
        }
        let Some(next) = self.highest.max(above).0.checked_add(1) else {
            return Err(Rejection::Limit { what: "there is no timeline above 4294967295".to_owned() });
        };
        *self = Self { highest: TimelineId(next), epoch };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::model::ClusterState;

    #[test]
    fn a_state_of_before_reservations_is_read() {
        let mut value = serde_json::to_value(ClusterState::default()).expect("json");
        assert!(value.as_object_mut().expect("an object").remove("timelines").is_some());
        assert_eq!(serde_json::from_value::<ClusterState>(value).expect("read"), ClusterState::default());
    }
}
