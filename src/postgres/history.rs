//! Timeline history files (pure).

use pgherd_raft::model::{Lsn, TimelineId};

use crate::ha::TimelineSwitch;

/// The most switches which are taken from a file; a file of PostgreSQL's has one line a promotion.
const MOST_SWITCHES: usize = 10_000;

/// The name of the history file of a timeline.
pub(super) fn file_name(timeline: TimelineId) -> String {
    format!("{:08X}.history", timeline.0)
}

/// The switches in a history file: where each earlier timeline ended, oldest first. Lines which are not understood are
/// left out, as PostgreSQL itself allows comments there.
pub(super) fn parse(text: &str) -> Vec<TimelineSwitch> {
    text.lines().filter_map(parse_line).take(MOST_SWITCHES).collect()
}

fn parse_line(line: &str) -> Option<TimelineSwitch> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return None;
    }
    let mut fields = line.splitn(3, ['\t', ' ']);
    let timeline = TimelineId(fields.next()?.parse().ok()?);
    let lsn: Lsn = fields.next()?.trim().parse().ok()?;
    let reason = fields.next().unwrap_or_default().trim().to_owned();
    Some(TimelineSwitch { timeline, lsn, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read() {
        let text = "# comment\n1\t0/30001C0\tno recovery target specified\n\n2\t0/4000000\tat restore point \"x y\"\n";
        let switches = parse(text);
        assert_eq!(switches.len(), 2);
        assert_eq!(switches[0].timeline, TimelineId(1));
        assert_eq!(switches[0].lsn.to_string(), "0/30001C0");
        assert_eq!(switches[0].reason, "no recovery target specified");
        assert_eq!(switches[1].reason, "at restore point \"x y\"");
        assert!(parse("").is_empty());
        assert!(parse("x\ty\nnonsense").is_empty());
    }

    #[test]
    fn files_are_named_as_postgresql_does() {
        assert_eq!(file_name(TimelineId(26)), "0000001A.history");
    }
}
