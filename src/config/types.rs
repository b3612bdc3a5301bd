//! What a checked configuration holds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pgherd_raft::address::{HostPort, ListenAddress};
use pgherd_raft::config::{Raft, Secret};
use pgherd_raft::model::{MemberName, Tags};
use pgherd_raft::telemetry::LogSettings;

use super::dynamic::Dynamic;
use super::effective::OwnSection;

/// One node's configuration: complete, paths absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cluster's name.
    pub scope: String,
    /// Patroni's prefix of the scope; kept for its answers, means nothing here.
    pub namespace: String,
    /// This member's name.
    pub name: MemberName,
    /// The REST API.
    pub restapi: RestApi,
    /// Calls to other members' REST API.
    pub ctl: Ctl,
    /// How a new cluster begins; a node without it never begins one.
    pub bootstrap: Option<Bootstrap>,
    /// The local PostgreSQL, as this node's file alone has it: see [`Config::effective`].
    pub postgresql: Postgresql,
    /// The section `postgresql` as it was written.
    pub(super) own: OwnSection,
    /// The group. The store's default is `<postgresql.data_dir>-raft`: beside the data directory, so that nothing
    /// which empties that one touches it, and different for each node of a machine.
    pub raft: Raft,
    /// What this member may become, and anything else.
    pub tags: Tags,
    /// The log.
    pub log: LogSettings,
    /// The watchdog device.
    pub watchdog: Watchdog,
    /// The command which cuts a silent primary off; none: its lease has to expire.
    pub fencing: Option<Fencing>,
}

/// The section `restapi`.
#[derive(Clone, Debug, PartialEq)]
pub struct RestApi {
    /// Default 127.0.0.1:8008.
    pub listen: ListenAddress,
    /// Where others reach it; default `listen`.
    pub connect_address: HostPort,
    /// Needed for requests which change something.
    pub authentication: Option<BasicAuthentication>,
    /// Certificates; `certfile` makes it HTTPS.
    pub tls: TlsFiles,
    /// Addresses, networks and host names which may use what changes something; empty: all, unless
    /// `allowlist_include_members` says otherwise.
    pub allowlist: Vec<String>,
    /// The other members' hosts may use it.
    pub allowlist_include_members: bool,
    /// Added to every answer, in the order of the file; names and values can be sent as they are.
    pub http_extra_headers: Vec<(String, String)>,
    /// Added to every answer over TLS; these win over the former.
    pub https_extra_headers: Vec<(String, String)>,
    /// How many connections may wait to be accepted; none: as many as suit this server.
    pub request_queue_size: Option<u32>,
    /// How much the header `Server` tells.
    pub server_tokens: ServerTokens,
}

/// How much the header `Server` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ServerTokens {
    /// All there is to tell.
    #[default]
    Original,
    /// Product and version.
    Minimal,
    /// The product.
    ProductOnly,
}

impl RestApi {
    /// The scheme of its addresses.
    pub fn scheme(&self) -> &'static str {
        if self.tls.certfile.is_some() { "https" } else { "http" }
    }

    /// Where others reach it.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme(), self.connect_address)
    }
}

/// A user for HTTP basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuthentication {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Files of TLS.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// The own certificate.
    pub certfile: Option<PathBuf>,
    /// Its key.
    pub keyfile: Option<PathBuf>,
    /// The key's password.
    pub keyfile_password: Option<Secret>,
    /// Who signs the others' certificates.
    pub cafile: Option<PathBuf>,
    /// `none`, `optional` or `required`; servers only.
    pub verify_client: Option<String>,
    /// OpenSSL's names of ciphers, with colons; servers only.
    pub ciphers: Option<String>,
}

/// The section `ctl`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ctl {
    /// Sent with requests; default the one of `restapi`.
    pub authentication: Option<BasicAuthentication>,
    /// Do not check servers' certificates.
    pub insecure: bool,
    /// The client certificate, and who signs servers' certificates.
    pub tls: TlsFiles,
}

/// The section `bootstrap`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// The first settings of the cluster as they are stored: a JSON object.
    pub dcs: serde_json::Value,
    /// The same, read.
    pub settings: Dynamic,
    /// initdb or something else.
    pub method: BootstrapMethod,
    /// Long options for initdb, in the order of the file.
    pub initdb: Vec<ToolOption>,
    /// Lines for pg_hba.conf, when neither the node nor the cluster has any.
    pub pg_hba: Vec<String>,
    /// Roles to create.
    pub users: Vec<BootstrapUser>,
    /// A command for the end of the bootstrap.
    pub post_bootstrap: Option<String>,
}

/// How the first data directory is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapMethod {
    /// By initdb.
    Initdb,
    /// By a command of the operator.
    Custom {
        /// The method's name: a section below `bootstrap`.
        name: String,
        /// Split like a shell does it.
        command: String,
        /// Do not add `--scope` and `--datadir`.
        no_params: bool,
        /// Leave recovery settings as the command made them.
        keep_existing_recovery_conf: bool,
        /// Recovery settings for the first start.
        recovery_conf: BTreeMap<String, String>,
        /// `--KEY=VALUE` for the command, in the order of the file.
        arguments: Vec<(String, String)>,
    },
}

/// An option of a program: `--NAME` or `--NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolOption {
    /// Without dashes.
    pub name: String,
    /// None for a flag.
    pub value: Option<String>,
}

impl ToolOption {
    /// The argument for the command line.
    pub fn argument(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

/// A role which is created with the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapUser {
    /// The role's name.
    pub name: String,
    /// None: no password.
    pub password: Option<Secret>,
    /// Options of CREATE ROLE in upper case, each from a fixed list: safe to put into SQL.
    pub options: Vec<String>,
}

/// The section `postgresql`.
#[derive(Clone, Debug, PartialEq)]
pub struct Postgresql {
    /// Where PostgreSQL listens.
    pub listen: ListenAddress,
    /// Where others reach it; default `listen`.
    pub connect_address: HostPort,
    /// Published for clients, nothing else.
    pub proxy_address: Option<HostPort>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where postgresql.conf and pg_hba.conf live; default the data directory.
    pub config_dir: PathBuf,
    /// The password file which pgherd writes; default `~/pgpass`, without a home directory `<data_dir>-pgpass`.
    pub pgpass: PathBuf,
    /// The roles which pgherd uses.
    pub authentication: Authentication,
    /// This node's parameters; those which must be equal on all nodes are not among them.
    pub parameters: BTreeMap<String, String>,
    /// What the cluster's settings may hold as well: see [`Config::effective`].
    pub shared: SharedPostgresql,
}

/// Keys of the section `postgresql` which a node's file and the cluster's settings may hold; the node's win, each as a
/// whole.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedPostgresql {
    /// Where the programs are; none: to be found.
    pub bin_dir: Option<PathBuf>,
    /// Other names of the programs, by their usual ones.
    pub bin_names: BTreeMap<String, String>,
    /// The database for own connections.
    pub database: String,
    /// `<config_base_name>.conf` is the server's configuration file; default `postgresql`.
    pub config_base_name: String,
    /// Included in place of `postgresql.base.conf`; never written.
    pub custom_conf: Option<PathBuf>,
    /// Kerberos' name of the service.
    pub krbsrvname: Option<String>,
    /// The whole pg_hba.conf.
    pub pg_hba: Option<Vec<String>>,
    /// The whole pg_ident.conf.
    pub pg_ident: Option<Vec<String>>,
    /// Own connections go through the socket directory.
    pub use_unix_socket: bool,
    /// Commands for events.
    pub callbacks: Callbacks,
    /// How a replica is made, in the order to be tried; default `basebackup`.
    pub create_replica_methods: Vec<String>,
    /// The methods among them which are commands.
    pub replica_methods: BTreeMap<String, ReplicaMethod>,
    /// Long options for pg_basebackup.
    pub basebackup: Vec<ToolOption>,
    /// Rewind a diverged former primary? Default true.
    pub use_pg_rewind: bool,
    /// Recovery settings for standbys.
    pub recovery_conf: BTreeMap<String, String>,
    /// Runs with the lease won and before the promotion; a status other than zero gives the lease back.
    pub pre_promote: Option<String>,
    /// Runs before PostgreSQL is stopped.
    pub before_stop: Option<String>,
}

impl SharedPostgresql {
    /// The methods in the order to be tried; none beside a name: it is pgherd's own.
    pub fn replica_methods_in_order(&self) -> impl Iterator<Item = (&String, Option<&ReplicaMethod>)> {
        self.create_replica_methods.iter().map(|name| (name, self.replica_methods.get(name)))
    }

    /// Does one of the methods need no primary?
    pub fn restores_alone(&self) -> bool {
        self.replica_methods_in_order().any(|(_, method)| method.is_some_and(|method| method.no_leader))
    }
}

/// The roles which pgherd uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Owns the cluster: initdb, own connections.
    pub superuser: Credentials,
    /// Streams.
    pub replication: Credentials,
    /// Runs pg_rewind; none: the superuser.
    pub rewind: Option<Credentials>,
}

/// A role with what libpq needs to log in as it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The role.
    pub username: String,
    /// None: PostgreSQL lets it in without.
    pub password: Option<Secret>,
    /// `sslmode`, `sslrootcert` and the like: libpq's names and values.
    pub options: BTreeMap<String, String>,
    /// The password of `sslkey`.
    pub sslpassword: Option<Secret>,
}

/// Commands for events.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Callbacks {
    /// PostgreSQL was started.
    pub on_start: Option<String>,
    /// It was stopped.
    pub on_stop: Option<String>,
    /// It was restarted.
    pub on_restart: Option<String>,
    /// It was reloaded.
    pub on_reload: Option<String>,
    /// It was promoted or demoted.
    pub on_role_change: Option<String>,
}

/// A command which makes a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaMethod {
    /// Split like a shell does it.
    pub command: String,
    /// Do not empty the data directory before.
    pub keep_data: bool,
    /// Do not add `--scope`, `--role`, `--datadir` and `--connstring`.
    pub no_params: bool,
    /// May run while there is no primary.
    pub no_leader: bool,
    /// `--KEY=VALUE` for the command, in the order of the file.
    pub arguments: Vec<(String, String)>,
}

/// The section `fencing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fencing {
    /// Split like a shell does it.
    pub command: String,
    /// It is ended after this time; default 20 s.
    pub timeout: Duration,
}

/// The section `watchdog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// Default automatic.
    pub mode: WatchdogMode,
    /// Default /dev/watchdog.
    pub device: PathBuf,
    /// A fifo stands in for the device (driver `testing`).
    pub is_testing: bool,
    /// Seconds between the watchdog's timeout and the end of the lease; -1: half of the ttl.
    pub safety_margin_seconds: i64,
}

/// Is the watchdog used?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogMode {
    /// No.
    Off,
    /// When there is one.
    Automatic,
    /// Without one this node does not become primary.
    Required,
}
