//! The settings as decisions and PostgreSQL need them: the cluster's document over this node's configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgherd_raft::model::{Revision, Settings as ClusterSettings};
use tracing::warn;

use crate::config::{self, Config, Dynamic, SynchronousMode, effective_parameters};
use crate::ha::{CommitWaitsFor, Policy, SyncMode, SyncPolicy};
use crate::postgres::{self, BootstrapUser, Credentials, Secret};

/// Reads the cluster's settings; before there are any, those which this node would found a cluster with.
#[derive(Debug)]
pub struct PolicySource {
    config: Arc<Config>,
    major: u32,
    revision: Revision,
    dynamic: Dynamic,
}

impl PolicySource {
    /// For this node and PostgreSQL's major version.
    pub fn new(config: Arc<Config>, major: u32) -> Self {
        let dynamic = config.bootstrap.as_ref().map_or_else(Dynamic::default, |boot| boot.settings.clone());
        Self { config, major, revision: Revision(0), dynamic }
    }

    /// Takes other settings in; true: they changed.
    pub(super) fn take(&mut self, settings: &ClusterSettings) -> bool {
        if settings.revision == self.revision {
            return false;
        }
        let document = serde_json::from_str(&settings.document).unwrap_or_else(|error| {
            warn!("the settings of revision {} are no JSON: {error}", settings.revision);
            serde_json::Value::Null
        });
        let (dynamic, problems) = config::parse(&document);
        for problem in problems {
            warn!("the cluster's settings, revision {}: {problem}", settings.revision);
        }
        self.dynamic = dynamic;
        self.revision = settings.revision;
        true
    }

    /// What decisions depend on.
    pub(super) fn policy(&self) -> Policy {
        let d = &self.dynamic;
        let bootstrap = self.config.bootstrap.as_ref();
        Policy {
            ttl: d.ttl,
            loop_wait: d.loop_wait,
            retry_timeout: d.retry_timeout,
            maximum_lag_on_failover: d.maximum_lag_on_failover,
            primary_start_timeout: d.primary_start_timeout,
            primary_stop_timeout: d.primary_stop_timeout,
            has_pre_promote: false,
            primary_health_timeout: d.primary_health_timeout,
            pause: d.pause,
            failsafe: d.failsafe_mode,
            sync: self.sync(),
            use_pg_rewind: self.config.postgresql.use_pg_rewind.unwrap_or(d.postgresql.use_pg_rewind),
            use_slots: d.postgresql.use_slots,
            bootstrap_settings: bootstrap.map_or_else(|| "{}".to_owned(), |boot| boot.dcs.to_string()),
        }
    }

    /// `primary_race_backoff`.
    pub(super) fn primary_race_backoff(&self) -> Duration {
        self.dynamic.primary_race_backoff
    }

    /// The operator's commands for what happens to PostgreSQL.
    pub(super) fn callbacks(&self) -> &config::Callbacks {
        &self.config.postgresql.callbacks
    }

    fn sync(&self) -> SyncPolicy {
        let d = &self.dynamic;
        let set = |parameters: &BTreeMap<String, String>| parameters.get("synchronous_commit").cloned();
        let commit = set(&self.config.postgresql.parameters)
            .or_else(|| set(&d.postgresql.parameters))
            .unwrap_or_default();
        SyncPolicy {
            mode: match d.synchronous_mode {
                SynchronousMode::Off => SyncMode::Off,
                SynchronousMode::On => SyncMode::On,
                SynchronousMode::Quorum => SyncMode::Quorum,
            },
            strict: d.synchronous_mode_strict,
            node_count: usize::try_from(d.synchronous_node_count).unwrap_or(usize::MAX),
            maximum_lag: d.maximum_lag_on_syncnode,
            waits_for: match commit.to_ascii_lowercase().as_str() {
                "remote_apply" => CommitWaitsFor::Replay,
                "remote_write" => CommitWaitsFor::Write,
                _ => CommitWaitsFor::Flush,
            },
            fast_failover: d.fast_failover,
        }
    }

    /// What the local PostgreSQL is configured with.
    pub fn postgres(&self) -> postgres::Settings {
        let (local, cluster) = (&self.config.postgresql, &self.dynamic.postgresql);
        let bootstrap = self.config.bootstrap.as_ref();
        let (parameters, adjusted) = effective_parameters(
            self.major,
            &self.config.scope,
            &local.listen,
            &cluster.parameters,
            &local.parameters,
        );
        for adjusted in adjusted {
            warn!("{}", adjusted.why);
        }
        let lines =
            |own: &Option<Vec<String>>, shared: &Option<Vec<String>>| own.clone().or_else(|| shared.clone());
        let first_hba = bootstrap.map(|boot| boot.pg_hba.clone());
        let name = self.config.name.as_str();
        let mut recovery = cluster.recovery_conf.clone();
        recovery.extend(local.recovery_conf.clone());
        let options = |options: &[config::ToolOption]| {
            options.iter().map(|option| (option.name.clone(), option.value.clone())).collect()
        };
        postgres::Settings {
            slot_name: cluster.use_slots.then(|| self.config.name.slot_name()),
            config_dir: local.config_dir.clone(),
            pgpass: local.pgpass.clone(),
            bin_dir: local.bin_dir.clone(),
            listen: local.listen.hosts.clone(),
            use_unix_socket: local.use_unix_socket,
            database: local.database.clone(),
            superuser: credentials(&local.authentication.superuser),
            replication: credentials(&local.authentication.replication),
            rewind: local.authentication.rewind.as_ref().map(credentials),
            parameters,
            recovery_parameters: recovery,
            pg_hba: lines(&local.pg_hba, &cluster.pg_hba).or(first_hba).unwrap_or_default(),
            pg_ident: lines(&local.pg_ident, &cluster.pg_ident).unwrap_or_default(),
            initdb: bootstrap.map(|boot| options(&boot.initdb)).unwrap_or_default(),
            users: bootstrap.map(|boot| boot.users.iter().map(user).collect()).unwrap_or_default(),
            post_bootstrap: bootstrap.and_then(|boot| boot.post_bootstrap.clone()),
            basebackup: options(&local.basebackup),
            ..postgres::Settings::new(&self.config.scope, name, &local.data_dir, local.listen.port)
        }
    }
}

fn secret(secret: &config::Secret) -> Secret {
    Secret::new(secret.expose())
}

fn credentials(of: &config::Credentials) -> Credentials {
    Credentials {
        username: of.username.clone(),
        password: of.password.as_ref().map(secret),
        options: of.options.clone(),
    }
}

fn user(of: &config::BootstrapUser) -> BootstrapUser {
    BootstrapUser {
        name: of.name.clone(),
        password: of.password.as_ref().map(secret),
        options: of.options.clone(),
    }
}
