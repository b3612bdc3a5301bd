//! Reads what `pg_controldata` prints with `LC_ALL=C` (pure).

use std::collections::BTreeMap;

use pgherd_raft::model::{Lsn, SystemIdentifier, TimelineId};

use crate::ha::{ControlData, ControlState};

/// The output of `pg_controldata` was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot understand pg_controldata: {what} is {found:?}")]
pub struct ControlDataError {
    what: &'static str,
    found: String,
}

/// What a standby needs to know of the primary's settings, because it must not have less.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct LeastSettings(pub(super) BTreeMap<&'static str, u64>);

/// The fields on which decisions depend.
pub(super) fn parse(printed: &str) -> Result<ControlData, ControlDataError> {
    let fields = fields(printed);
    let field =
        |what: &'static str| fields.get(what).copied().ok_or(ControlDataError { what, found: String::new() });
    let system = field("Database system identifier")?;
    let state = field("Database cluster state")?;
    let timeline = |what| {
        let text = field(what)?;
        text.parse().map(TimelineId).map_err(|_| ControlDataError { what, found: text.to_owned() })
    };
    let lsn = |what| {
        let text = field(what)?;
        text.parse::<Lsn>().map_err(|_| ControlDataError { what, found: text.to_owned() })
    };
    let checkpoint_timeline = timeline("Latest checkpoint's TimeLineID")?;
    Ok(ControlData {
        system_identifier: system
            .parse()
            .map(SystemIdentifier)
            .map_err(|_| ControlDataError { what: "Database system identifier", found: system.to_owned() })?,
        state: parse_state(state)?,
        timeline: checkpoint_timeline.max(timeline("Min recovery ending loc's timeline")?),
        checkpoint: lsn("Latest checkpoint location")?,
        min_recovery_end: lsn("Minimum recovery ending location")?,
    })
}

/// The settings of the primary which a standby must reach or exceed.
pub(super) fn parse_least_settings(printed: &str) -> LeastSettings {
    const NAMES: [(&str, &str); 5] = [
        ("max_connections", "max_connections setting"),
        ("max_worker_processes", "max_worker_processes setting"),
        ("max_wal_senders", "max_wal_senders setting"),
        ("max_prepared_transactions", "max_prepared_xacts setting"),
        ("max_locks_per_transaction", "max_locks_per_xact setting"),
    ];
    let fields = fields(printed);
    let least = NAMES.iter().filter_map(|(name, label)| Some((*name, fields.get(label)?.parse().ok()?)));
    LeastSettings(least.collect())
}

fn fields(printed: &str) -> BTreeMap<&str, &str> {
    printed.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect()
}

fn parse_state(text: &str) -> Result<ControlState, ControlDataError> {
    Ok(match text {
        "starting up" => ControlState::StartingUp,
        "shut down" => ControlState::ShutDown,
        "shut down in recovery" => ControlState::ShutDownInRecovery,
        "shutting down" => ControlState::ShuttingDown,
        "in crash recovery" => ControlState::InCrashRecovery,
        "in archive recovery" => ControlState::InArchiveRecovery,
        "in production" => ControlState::InProduction,
        other => {
            return Err(ControlDataError { what: "Database cluster state", found: other.to_owned() });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = include_str!("testdata/pg_controldata-15-in-production");
    const STANDBY: &str = include_str!("testdata/pg_controldata-15-standby");

    #[test]
    fn a_primary_is_read() {
        let control = parse(PRIMARY).expect("parses");
        assert_eq!(control.state, ControlState::InProduction);
        assert_eq!(control.timeline, TimelineId(2));
        assert_eq!(control.min_recovery_end, Lsn(0));
        assert!(control.checkpoint > Lsn(0));
        assert!(control.system_identifier.0 > 0);
        assert_eq!(parse_least_settings(PRIMARY).0.get("max_connections"), Some(&100));
        assert_eq!(parse_least_settings(PRIMARY).0.len(), 5);
    }

    #[test]
    fn a_standby_which_followed_a_switch_has_the_later_timeline() {
        let control = parse(STANDBY).expect("parses");
        assert_eq!(control.state, ControlState::ShutDownInRecovery);
        assert!(control.min_recovery_end > Lsn(0));
        let other = STANDBY
            .replace("Min recovery ending loc's timeline:   2", "Min recovery ending loc's timeline:   7");
        assert_eq!(parse(&other).expect("parses").timeline, TimelineId(7));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = parse("").expect_err("empty").to_string();
        assert!(error.contains("Database system identifier"), "{error}");
        let error = parse(&PRIMARY.replace("in production", "on holiday")).expect_err("state").to_string();
        assert!(error.contains("on holiday"), "{error}");
    }

    #[test]
    fn every_state_of_postgresql_is_known() {
        for state in [
            "starting up",
            "shut down",
            "shut down in recovery",
            "shutting down",
            "in crash recovery",
            "in archive recovery",
            "in production",
        ] {
            assert!(parse(&PRIMARY.replace("in production", state)).is_ok(), "{state}");
        }
    }
}
