//! What the configuration says about the local PostgreSQL: one plain value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself, for the one place which needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// A role and how to log in with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The role's name.
    pub username: String,
    /// Its password; none: peer, trust or a certificate.
    pub password: Option<Secret>,
    /// libpq's options passed through: `sslmode`, `sslcert`, `sslkey`, `sslrootcert`, `sslcrl`, `gssencmode`,
    /// `channel_binding`, ...
    pub options: BTreeMap<String, String>,
    /// The password of `sslkey`.
    pub sslpassword: Option<Secret>,
}

impl Credentials {
    /// A role without any libpq options.
    pub fn new(username: &str, password: Option<&str>) -> Self {
        Self {
            username: username.to_owned(),
            password: password.map(Secret::new),
            options: BTreeMap::new(),
            sslpassword: None,
        }
    }
}

/// A role which is made when the cluster is initialised (`bootstrap.users`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapUser {
    /// The role's name.
    pub name: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Options of `CREATE ROLE` such as `createrole`, `createdb`; only PostgreSQL's own words are taken.
    pub options: Vec<String>,
}

/// How a replica is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaMethod {
    /// By `pg_basebackup`.
    BaseBackup,
    /// By a command of the operator's.
    Command(ReplicaCommand),
}

/// A command which makes a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaCommand {
    /// Its name in `create_replica_methods`.
    pub name: String,
    /// Split like a shell does it.
    pub command: String,
    /// `--KEY=VALUE` for the command.
    pub arguments: Vec<(String, String)>,
    /// Leave what is in the data directory.
    pub keep_data: bool,
    /// Only `arguments`, nothing of pgherd's.
    pub no_params: bool,
    /// It needs no primary.
    pub no_leader: bool,
}

/// Everything which the configuration says about the local PostgreSQL. Made by the agent from the daemon's
/// configuration and the cluster's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name: PostgreSQL's `cluster_name`.
    pub scope: String,
    /// This member's name: its `application_name` as a standby.
    pub member: String,
    /// The name of this member's physical replication slot on its upstream; none: no slots are used.
    pub slot_name: Option<String>,
    /// PGDATA.
    pub data_dir: PathBuf,
    /// Where `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf` live; usually the data directory.
    pub config_dir: PathBuf,
    /// A directory beside the data directory, writable and on stable storage, for marker files and the list of slots;
    /// usually the data directory's parent. The files there begin with the data directory's name.
    pub state_dir: PathBuf,
    /// The file with what the postmaster says on standard error.
    pub log_file: PathBuf,
    /// `<config_base_name>.conf` is the server's configuration file; usually `postgresql`.
    pub config_base_name: String,
    /// Included in place of `<config_base_name>.base.conf`; never written.
    pub custom_conf: Option<PathBuf>,
    /// The password file written for `primary_conninfo`.
    pub pgpass: PathBuf,
    /// Where PostgreSQL's programs are; none: PATH, then the newest `/usr/lib/postgresql/*/bin`.
    pub bin_dir: Option<PathBuf>,
    /// Other names of PostgreSQL's programs, by their usual ones.
    pub bin_names: BTreeMap<String, String>,
    /// `listen_addresses`.
    pub listen: Vec<String>,
    /// `port`.
    pub port: u16,
    /// Make administrative connections through the first absolute entry of `unix_socket_directories`.
    pub use_unix_socket: bool,
    /// The database of administrative connections.
    pub database: String,
    /// The superuser.
    pub superuser: Credentials,
    /// The role for streaming and base backups.
    pub replication: Credentials,
    /// The role for `pg_rewind`; none: the superuser.
    pub rewind: Option<Credentials>,
    /// Kerberos' name of the service of the servers that are connected to.
    pub krbsrvname: Option<String>,
    /// PostgreSQL's parameters; those which pgherd owns are taken from here when they are allowed there.
    pub parameters: BTreeMap<String, String>,
    /// More recovery parameters of a standby, for example `restore_command`.
    pub recovery_parameters: BTreeMap<String, String>,
    /// All lines of `pg_hba.conf`; empty: a file that somebody else wrote stays in force, otherwise safe default lines.
    pub pg_hba: Vec<String>,
    /// All lines of `pg_ident.conf`; empty: the file is left alone.
    pub pg_ident: Vec<String>,
    /// Options of `initdb` (`bootstrap.initdb`): the long option's name without dashes, and its value if it has one.
    pub initdb: Vec<(String, Option<String>)>,
    /// Roles to make when the cluster is initialised.
    pub users: Vec<BootstrapUser>,
    /// The command to run when the cluster was initialised; a connection string is appended.
    pub post_bootstrap: Option<String>,
    /// The command which may forbid a promotion by its exit status.
    pub pre_promote: Option<String>,
    /// The command to run before a stop on purpose.
    pub before_stop: Option<String>,
    /// More options of `pg_basebackup`, as for `initdb`.
    pub basebackup: Vec<(String, Option<String>)>,
    /// How a replica is made, in the order to be tried.
    pub replica_methods: Vec<ReplicaMethod>,
    /// The cluster's settings, kept in the data directory for a cluster that has lost its own; none: there are none yet.
    pub kept_document: Option<String>,
    /// How long a start of a primary may take before it counts as failed; none: as long as recovery needs.
    pub start_timeout: Option<Duration>,
}

impl Settings {
    /// Settings with PostgreSQL's usual values: everything else is beside the data directory.
    pub fn new(scope: &str, member: &str, data_dir: &Path, port: u16) -> Self {
        let state_dir = data_dir.parent().unwrap_or(Path::new("/")).to_owned();
        let beside = |suffix: &str| {
            let mut name = data_dir.file_name().unwrap_or_default().to_owned();
            name.push(suffix);
            state_dir.join(name)
        };
        Self {
            scope: scope.to_owned(),
            member: member.to_owned(),
            slot_name: None,
            config_dir: data_dir.to_owned(),
            config_base_name: "postgresql".to_owned(),
            custom_conf: None,
            log_file: beside(".pgherd-postgres.log"),
            pgpass: beside(".pgherd-pgpass"),
            state_dir,
            data_dir: data_dir.to_owned(),
            bin_dir: None,
            bin_names: BTreeMap::new(),
            listen: vec!["localhost".to_owned()],
            port,
            use_unix_socket: false,
            database: "postgres".to_owned(),
            superuser: Credentials::new("postgres", None),
            replication: Credentials::new("replicator", None),
            rewind: None,
            krbsrvname: None,
            parameters: BTreeMap::new(),
            recovery_parameters: BTreeMap::new(),
            pg_hba: Vec::new(),
            pg_ident: Vec::new(),
            initdb: Vec::new(),
            users: Vec::new(),
            post_bootstrap: None,
            pre_promote: None,
            before_stop: None,
            basebackup: Vec::new(),
            replica_methods: vec![ReplicaMethod::BaseBackup],
            kept_document: None,
            start_timeout: None,
        }
    }
}
