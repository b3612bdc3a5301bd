//! `/metrics`: the values of [`crate::metrics`], from the same view as every other answer.

use axum::http::StatusCode;

use super::reply::Reply;
use super::standing::{Standing, SyncRole};
use super::status;
use super::{PATRONI_VERSION, TEXT_FORMAT};
use crate::ha::{IN_ARCHIVE_RECOVERY, PostgresState, STREAMING, Server, is_paused, replication_state};
use crate::metrics::{self, Page};

/// The page.
pub(super) fn page(standing: &Standing) -> Reply {
    let mut page = Page::new(&standing.view.scope, standing.view.member.name.as_str());
    as_patroni(&mut page, standing);
    ours(&mut page, standing);
    Reply::page(StatusCode::OK, TEXT_FORMAT, page.into_text())
}

fn as_patroni(page: &mut Page, standing: &Standing) {
    let server = standing.recent_server();
    let state = PostgresState::of(&standing.view.observation);
    let is_running = state == PostgresState::Running;
    let role = status::role(standing);
    let standby = server.filter(|server| server.is_in_recovery);
    let seconds = |text: Option<&str>| text.and_then(epoch_seconds).unwrap_or_default();
    page.sample(metrics::VERSION, version_digits(PATRONI_VERSION));
    page.flag(metrics::POSTGRES_RUNNING, is_running);
    page.sample(metrics::POSTMASTER_START_TIME, seconds(server.map(|server| server.started_at.as_str())));
    page.flag(metrics::PRIMARY, role == "primary");
    let primary = server.filter(|server| !server.is_in_recovery);
    page.sample(metrics::XLOG_LOCATION, primary.map_or(0, |server| server.position.lsn.0));
    page.flag(metrics::STANDBY_LEADER, false);
    page.flag(metrics::REPLICA, role == "replica");
    page.flag(metrics::SYNC_STANDBY, standing.own_sync_role() == Some(SyncRole::Sync));
    page.flag(metrics::QUORUM_STANDBY, standing.own_sync_role() == Some(SyncRole::Quorum));
    page.sample(metrics::XLOG_RECEIVED_LOCATION, standby.map_or(0, |server| server.position.lsn.0));
    let replayed = standby.and_then(|server| server.replayed).unwrap_or_default();
    page.sample(metrics::XLOG_REPLAYED_LOCATION, replayed.0);
    page.sample(metrics::XLOG_REPLAYED_TIMESTAMP, seconds(standby.and_then(|s| s.replayed_at.as_deref())));
    page.flag(metrics::XLOG_PAUSED, standby.is_some_and(|server| server.replay_paused));
    let how = standby.and_then(replication_state);
    page.flag(metrics::STREAMING, how == Some(STREAMING));
    page.flag(metrics::IN_ARCHIVE_RECOVERY, how == Some(IN_ARCHIVE_RECOVERY));
    page.sample(metrics::SERVER_VERSION, server.map_or(0, |server| server.version));
    page.flag(metrics::CLUSTER_UNLOCKED, standing.holder().is_none());
    page.flag(metrics::FAILSAFE, standing.is_failsafe_active());
    let failsafe = standing.view.observation.cluster.failsafe.as_ref();
    page.flag(metrics::FAILSAFE_ENABLED, standing.view.observation.policy.failsafe);
    let is_listed = failsafe.is_some_and(|list| list.contains(&standing.view.observation.me));
    page.flag(metrics::FAILSAFE_MEMBER, is_listed);
    page.sample(metrics::FAILOVER_PRIORITY, standing.view.member.tags.failover_priority().max(0));
    page.sample(metrics::TIMELINE, timeline(standing, server));
    page.sample(metrics::DCS_LAST_SEEN, standing.view.consensus_seen.map_or(0, status::unix_seconds));
    page.flag(metrics::PENDING_RESTART, !standing.view.observation.postgres.pending_restart.is_empty());
    page.flag(metrics::IS_PAUSED, is_paused(&standing.view.observation));
    page.sample(metrics::POSTGRES_STATE, state.number());
}

fn timeline(standing: &Standing, server: Option<&Server>) -> u32 {
    let control = standing.view.observation.postgres.control.of_any_age();
    server.map(|server| server.position.timeline.0).or(control.map(|c| c.timeline.0)).unwrap_or(0)
}

fn ours(page: &mut Page, standing: &Standing) {
    let observation = &standing.view.observation;
    page.sample(metrics::OWN_VERSION, version_digits(env!("CARGO_PKG_VERSION")));
    page.flag(metrics::RAFT_IS_LEADER, observation.consensus.is_raft_leader);
    page.flag(metrics::RAFT_HAS_LEADER, observation.consensus.raft_leader.is_some());
    page.sample(metrics::RAFT_TERM, observation.consensus.term);
    page.sample(metrics::RAFT_VOTERS, observation.consensus.voters.len());
    page.sample(metrics::LEASE_EPOCH, observation.cluster.lease.epoch);
    page.flag(metrics::LEASE_IS_HOLDER, standing.holder() == Some(observation.me));
    let remaining = standing.licence().map_or(0.0, |won| won.deadline.since(standing.now).as_secs_f64());
    page.sample(metrics::LEASE_REMAINING, format_args!("{remaining:.3}"));
    page.sample(metrics::LEASE_ANSWERING, observation.lease.answering.len());
    page.sample(metrics::SETTINGS_REVISION, observation.cluster.settings.revision);
    page.sample(metrics::VIEW_AGE, format_args!("{:.3}", standing.age().as_secs_f64()));
    page.labelled(metrics::STATE, "state", standing.view.decision.state.as_str(), 1);
}

/// `0.1.0` as `000100`.
fn version_digits(version: &str) -> String {
    let part = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
    version.split('.').take(3).map(|text| format!("{:0>2}", part(text))).collect()
}

/// Seconds since the epoch of a time as PostgreSQL prints it.
fn epoch_seconds(text: &str) -> Option<f64> {
    let time: jiff::Timestamp = status::as_datetime(text).parse().ok()?;
    Some(time.as_duration().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_versions_as_numbers() {
        assert_eq!(version_digits("4.1.5"), "040105");
        assert_eq!(version_digits("0.12.0-rc1"), "001200");
        assert_eq!(epoch_seconds("1970-01-01 00:00:01.5+00"), Some(1.5));
        assert_eq!(epoch_seconds("1970-01-01 05:30:00+05:30"), Some(0.0));
        assert_eq!(epoch_seconds("never"), None);
    }
}
