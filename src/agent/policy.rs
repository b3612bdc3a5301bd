//! The settings as decisions and PostgreSQL need them: the cluster's document over this node's configuration.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgherd_raft::model::{Revision, Settings as ClusterSettings, Tags};
use serde_json::Value;
use tokio::sync::watch;
use tracing::warn;

use crate::config::{
    self, Adjusted, BootstrapMethod, Config, Effective, Problem, SynchronousMode, effective_parameters,
};
use crate::ha::{CommitWaitsFor, Policy, SlotKind, SlotMatcher, SlotPolicy, SyncMode, SyncPolicy};
use crate::postgres::{self, BootstrapUser, Credentials, Secret};

/// Reads the cluster's settings and this node's configuration; before the cluster has settings, those which this node
/// would give to it.
#[derive(Debug)]
pub struct PolicySource {
    configs: watch::Receiver<Arc<Config>>,
    config: Arc<Config>,
    major: u32,
    revision: Revision,
    document: Value,
    effective: Effective,
    /// What a cluster without settings gets from this node.
    first: Value,
    /// What was said of the settings, and of the parameters in them: it is said once.
    told: Vec<String>,
    told_of_parameters: Mutex<Vec<Adjusted>>,
}

impl PolicySource {
    /// For this node and PostgreSQL's major version. `kept` is what the data directory remembers of the cluster's
    /// settings: it counts before `bootstrap.dcs`.
    pub fn new(mut configs: watch::Receiver<Arc<Config>>, major: u32, kept: Option<Value>) -> Self {
        let config = Arc::clone(&configs.borrow_and_update());
        let first = match (kept, &config.bootstrap) {
            (Some(kept), _) => kept,
            (None, Some(bootstrap)) => bootstrap.dcs.clone(),
            (None, None) => Value::Object(serde_json::Map::new()),
        };
        let (effective, _) = config.effective(&first);
        let (revision, document) = (Revision(0), first.clone());
        let (told, told_of_parameters) = (Vec::new(), Mutex::default());
        Self { configs, config, major, revision, document, effective, first, told, told_of_parameters }
    }

    /// Takes other settings in; true: they changed.
    pub(super) fn take(&mut self, settings: &ClusterSettings) -> bool {
        if settings.revision == self.revision {
            return false;
        }
        self.document = serde_json::from_str(&settings.document).unwrap_or_else(|error| {
            warn!("the settings of revision {} are no JSON: {error}", settings.revision);
            Value::Null
        });
        self.revision = settings.revision;
        let problems: Vec<String> = self.combine().iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|problem| !self.told.contains(problem)) {
            warn!("the cluster's settings, revision {}: {problem}", settings.revision);
        }
        self.told = problems;
        true
    }

    /// Takes in what was read again of this node's configuration; true: it was read, changed or not.
    pub(super) fn take_config(&mut self) -> bool {
        if !self.configs.has_changed().unwrap_or(false) {
            return false;
        }
        self.config = Arc::clone(&self.configs.borrow_and_update());
        self.combine();
        true
    }

    fn combine(&mut self) -> Vec<Problem> {
        let (effective, problems) = self.config.effective(&self.document);
        self.effective = effective;
        problems
    }

    /// Returns when this node's configuration was read again.
    pub(super) async fn config_read(&mut self) {
        if self.configs.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        // It is taken in by the loop's next turn.
        self.configs.mark_changed();
    }

    /// How clients reach this node's PostgreSQL otherwise than by its address.
    pub(super) fn proxy_url(&self) -> Option<String> {
        let proxy = self.config.postgresql.proxy_address.as_ref()?;
        Some(format!("postgres://{proxy}/{}", self.effective.postgresql.database))
    }

    /// This node's configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The cluster's settings, and this node's section `postgresql` over theirs.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// The cluster's settings as text; none: the cluster has none yet.
    pub(super) fn document(&self) -> Option<String> {
        (self.revision > Revision(0)).then(|| self.document.to_string())
    }

    /// What decisions depend on.
    pub(super) fn policy(&self) -> Policy {
        let d = &self.effective.dynamic;
        Policy {
            ttl: d.ttl,
            loop_wait: d.loop_wait,
            retry_timeout: d.retry_timeout,
            maximum_lag_on_failover: d.maximum_lag_on_failover,
            check_timeline: d.check_timeline,
            primary_start_timeout: d.primary_start_timeout,
            primary_stop_timeout: d.primary_stop_timeout,
            restores_alone: self.effective.postgresql.restores_alone(),
            has_pre_promote: self.effective.postgresql.pre_promote.is_some(),
            primary_health_timeout: d.primary_health_timeout,
            pause: d.pause,
            failsafe: d.failsafe_mode,
            sync: self.sync(),
            use_pg_rewind: self.effective.postgresql.use_pg_rewind,
            use_slots: d.postgresql.use_slots,
            slots: slots(d),
            makes_no_cluster: makes_no_cluster(&self.config),
            bootstrap_settings: self.first.to_string(),
        }
    }

    /// `primary_race_backoff`.
    pub(super) fn primary_race_backoff(&self) -> Duration {
        self.effective.dynamic.primary_race_backoff
    }

    /// The operator's commands for what happens to PostgreSQL.
    pub(super) fn callbacks(&self) -> &config::Callbacks {
        &self.effective.postgresql.callbacks
    }

    fn sync(&self) -> SyncPolicy {
        let d = &self.effective.dynamic;
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
        self.postgres_of(&self.effective, true)
    }

    /// The same under other settings of the cluster, for a look at what would be.
    pub fn postgres_under(&self, document: &Value) -> postgres::Settings {
        self.postgres_of(&self.config.effective(document).0, false)
    }

    fn postgres_of(&self, effective: &Effective, warns: bool) -> postgres::Settings {
        let (local, shared) = (&self.config.postgresql, &effective.postgresql);
        let cluster = &effective.dynamic.postgresql;
        let bootstrap = self.config.bootstrap.as_ref();
        let (mut parameters, adjusted) = effective_parameters(
            self.major,
            &self.config.scope,
            &local.listen,
            &cluster.parameters,
            &local.parameters,
        );
        if needs_feedback(&effective.dynamic, &self.config.tags) {
            parameters.insert("hot_standby_feedback".to_owned(), "on".to_owned());
        }
        if warns {
            let mut told = self.told_of_parameters.lock().unwrap_or_else(PoisonError::into_inner);
            for adjusted in adjusted.iter().filter(|adjusted| !told.contains(adjusted)) {
                warn!("{}", adjusted.why);
            }
            *told = adjusted;
        }
        let first_hba = bootstrap.map(|boot| boot.pg_hba.clone());
        let name = self.config.name.as_str();
        let options = |options: &[config::ToolOption]| -> Vec<(String, Option<String>)> {
            options.iter().map(|option| (option.name.clone(), option.value.clone())).collect()
        };
        postgres::Settings {
            slot_name: cluster.use_slots.then(|| self.config.name.slot_name()),
            config_dir: local.config_dir.clone(),
            config_base_name: shared.config_base_name.clone(),
            custom_conf: shared.custom_conf.clone(),
            pgpass: local.pgpass.clone(),
            bin_dir: shared.bin_dir.clone(),
            bin_names: shared.bin_names.clone(),
            listen: local.listen.hosts.clone(),
            use_unix_socket: shared.use_unix_socket,
            database: shared.database.clone(),
            superuser: credentials(&local.authentication.superuser, self.major),
            replication: credentials(&local.authentication.replication, self.major),
            rewind: local.authentication.rewind.as_ref().map(|of| credentials(of, self.major)),
            krbsrvname: shared.krbsrvname.clone(),
            parameters,
            recovery_parameters: shared.recovery_conf.clone(),
            pg_hba: shared.pg_hba.clone().or(first_hba).unwrap_or_default(),
            pg_ident: shared.pg_ident.clone().unwrap_or_default(),
            initdb: bootstrap.map(|boot| options(&boot.initdb)).unwrap_or_default(),
            users: bootstrap.map(|boot| boot.users.iter().map(user).collect()).unwrap_or_default(),
            post_bootstrap: bootstrap.and_then(|boot| boot.post_bootstrap.clone()),
            basebackup: options(&shared.basebackup)
                .into_iter()
                .filter(|(name, _)| name != "compress" || self.major == 0 || self.major >= COMPRESSES_SINCE)
                .collect(),
            replica_methods: shared.replica_methods_in_order().map(replica_method).collect(),
            pre_promote: shared.pre_promote.clone(),
            before_stop: shared.before_stop.clone(),
            kept_document: self.document(),
            ..postgres::Settings::new(&self.config.scope, name, &local.data_dir, local.listen.port)
        }
    }
}

fn slots(d: &config::Dynamic) -> SlotPolicy {
    let kind = |slot: &config::PermanentSlot| match slot {
        config::PermanentSlot::Physical => SlotKind::Physical,
        config::PermanentSlot::Logical { database, plugin } => {
            SlotKind::Logical { database: database.clone(), plugin: plugin.clone() }
        }
    };
    let matcher = |of: &config::IgnoredSlots| SlotMatcher {
        name: of.name.clone(),
        slot_type: of.slot_type.clone(),
        database: of.database.clone(),
        plugin: of.plugin.clone(),
    };
    SlotPolicy {
        member_ttl: d.member_slots_ttl,
        permanent: d.slots.iter().map(|(name, slot)| (name.clone(), kind(slot))).collect(),
        ignored: d.ignore_slots.iter().map(matcher).collect(),
    }
}

/// Without it the primary removes what a standby's logical slots, or those of standbys below it, need for decoding.
fn needs_feedback(d: &config::Dynamic, tags: &Tags) -> bool {
    let has_logical = d.slots.values().any(|slot| matches!(slot, config::PermanentSlot::Logical { .. }));
    has_logical && !tags.flag("nostream")
}

/// As in Patroni a node without the section `bootstrap` begins no cluster. One that was to come from a backup must not be
/// founded empty.
fn makes_no_cluster(config: &Config) -> Option<String> {
    match config.bootstrap.as_ref().map(|bootstrap| &bootstrap.method) {
        None => Some("its configuration has no section `bootstrap`".to_owned()),
        Some(BootstrapMethod::Custom { name, .. }) => Some(format!(
            "bootstrap.method: {name} is not supported by this version; remove it to let initdb make the cluster, or \
             fill the data directory"
        )),
        Some(BootstrapMethod::Initdb) => None,
    }
}

fn replica_method((name, method): (&String, Option<&config::ReplicaMethod>)) -> postgres::ReplicaMethod {
    method.map_or(postgres::ReplicaMethod::BaseBackup, |method| {
        postgres::ReplicaMethod::Command(postgres::ReplicaCommand {
            name: name.clone(),
            command: method.command.clone(),
            arguments: method.arguments.clone(),
            keep_data: method.keep_data,
            no_params: method.no_params,
            no_leader: method.no_leader,
        })
    })
}

fn secret(secret: &config::Secret) -> Secret {
    Secret::new(secret.expose())
}

/// The versions of PostgreSQL which brought some of libpq's words; an older libpq refuses them.
const NEWER_OPTIONS: [(&str, u32); 4] =
    [("gssencmode", 12), ("channel_binding", 13), ("sslcrldir", 14), ("sslnegotiation", 17)];
/// PostgreSQL's server compresses for pg_basebackup since then; what the program itself compresses are no plain files.
const COMPRESSES_SINCE: u32 = 15;
const SSLPASSWORD_SINCE: u32 = 13;

fn credentials(of: &config::Credentials, major: u32) -> Credentials {
    let is_known = |name: &str| {
        NEWER_OPTIONS.iter().all(|(newer, since)| *newer != name || major == 0 || *since <= major)
    };
    let options = of.options.iter().filter(|(name, _)| is_known(name));
    Credentials {
        username: of.username.clone(),
        password: of.password.as_ref().map(secret),
        options: options.map(|(name, value)| (name.clone(), value.clone())).collect(),
        sslpassword: of.sslpassword.as_ref().filter(|_| major == 0 || major >= SSLPASSWORD_SINCE).map(secret),
    }
}

fn user(of: &config::BootstrapUser) -> BootstrapUser {
    BootstrapUser {
        name: of.name.clone(),
        password: of.password.as_ref().map(secret),
        options: of.options.clone(),
    }
}
