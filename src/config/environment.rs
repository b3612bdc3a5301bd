//! Environment variables which stand in for, or overrule, keys of a data node's file.
//!
//! Each is called `PATRONI_...` and `PGHERD_...`; the latter wins.

use pgherd_raft::config::{Form, Variable, common_variables};

const VARIABLES: &[(&str, &str, Form)] = &[
    ("NAMESPACE", "namespace", Form::Text),
    ("RESTAPI_LISTEN", "restapi.listen", Form::Text),
    ("RESTAPI_CONNECT_ADDRESS", "restapi.connect_address", Form::Text),
    ("RESTAPI_USERNAME", "restapi.authentication.username", Form::Text),
    ("RESTAPI_PASSWORD", "restapi.authentication.password", Form::Text),
    ("RESTAPI_CERTFILE", "restapi.certfile", Form::Text),
    ("RESTAPI_KEYFILE", "restapi.keyfile", Form::Text),
    ("RESTAPI_KEYFILE_PASSWORD", "restapi.keyfile_password", Form::Text),
    ("RESTAPI_CAFILE", "restapi.cafile", Form::Text),
    ("RESTAPI_VERIFY_CLIENT", "restapi.verify_client", Form::Text),
    ("RESTAPI_CIPHERS", "restapi.ciphers", Form::Text),
    ("RESTAPI_ALLOWLIST", "restapi.allowlist", Form::List),
    ("RESTAPI_HTTP_EXTRA_HEADERS", "restapi.http_extra_headers", Form::Map),
    ("RESTAPI_HTTPS_EXTRA_HEADERS", "restapi.https_extra_headers", Form::Map),
    ("RESTAPI_REQUEST_QUEUE_SIZE", "restapi.request_queue_size", Form::Scalar),
    ("RESTAPI_THREAD_POOL_SIZE", "restapi.thread_pool_size", Form::Scalar),
    ("RESTAPI_SERVER_TOKENS", "restapi.server_tokens", Form::Text),
    ("RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", "restapi.allowlist_include_members", Form::Scalar),
    ("CTL_USERNAME", "ctl.authentication.username", Form::Text),
    ("CTL_PASSWORD", "ctl.authentication.password", Form::Text),
    ("CTL_INSECURE", "ctl.insecure", Form::Scalar),
    ("CTL_CACERT", "ctl.cacert", Form::Text),
    ("CTL_CERTFILE", "ctl.certfile", Form::Text),
    ("CTL_KEYFILE", "ctl.keyfile", Form::Text),
    ("CTL_KEYFILE_PASSWORD", "ctl.keyfile_password", Form::Text),
    ("POSTGRESQL_LISTEN", "postgresql.listen", Form::Text),
    ("POSTGRESQL_CONNECT_ADDRESS", "postgresql.connect_address", Form::Text),
    ("POSTGRESQL_PROXY_ADDRESS", "postgresql.proxy_address", Form::Text),
    ("POSTGRESQL_DATA_DIR", "postgresql.data_dir", Form::Text),
    ("POSTGRESQL_CONFIG_DIR", "postgresql.config_dir", Form::Text),
    ("POSTGRESQL_BIN_DIR", "postgresql.bin_dir", Form::Text),
    ("POSTGRESQL_PGPASS", "postgresql.pgpass", Form::Text),
    ("POSTGRESQL_BIN_PG_CTL", "postgresql.bin_name.pg_ctl", Form::Text),
    ("POSTGRESQL_BIN_INITDB", "postgresql.bin_name.initdb", Form::Text),
    ("POSTGRESQL_BIN_PG_CONTROLDATA", "postgresql.bin_name.pg_controldata", Form::Text),
    ("POSTGRESQL_BIN_PG_BASEBACKUP", "postgresql.bin_name.pg_basebackup", Form::Text),
    ("POSTGRESQL_BIN_POSTGRES", "postgresql.bin_name.postgres", Form::Text),
    ("POSTGRESQL_BIN_PG_ISREADY", "postgresql.bin_name.pg_isready", Form::Text),
    ("POSTGRESQL_BIN_PG_REWIND", "postgresql.bin_name.pg_rewind", Form::Text),
    ("THREAD_POOL_SIZE", "thread_pool_size", Form::Scalar),
    ("THREAD_STACK_SIZE", "thread_stack_size", Form::Scalar),
    ("CITUS_GROUP", "citus.group", Form::Scalar),
    ("CITUS_DATABASE", "citus.database", Form::Text),
];

/// `PATRONI_SUPERUSER_PASSWORD` and the like.
const USERS: [(&str, &str); 3] =
    [("SUPERUSER", "superuser"), ("REPLICATION", "replication"), ("REWIND", "rewind")];
const USER_KEYS: [(&str, &str); 12] = [
    ("USERNAME", "username"),
    ("PASSWORD", "password"),
    ("SSLMODE", "sslmode"),
    ("SSLCERT", "sslcert"),
    ("SSLKEY", "sslkey"),
    ("SSLPASSWORD", "sslpassword"),
    ("SSLROOTCERT", "sslrootcert"),
    ("SSLCRL", "sslcrl"),
    ("SSLCRLDIR", "sslcrldir"),
    ("GSSENCMODE", "gssencmode"),
    ("CHANNEL_BINDING", "channel_binding"),
    ("SSLNEGOTIATION", "sslnegotiation"),
];

/// All variables of a data node.
pub(super) fn variables() -> Vec<Variable> {
    let mut variables = common_variables();
    variables.extend(VARIABLES.iter().map(|(name, key, form)| Variable::new(name, key, *form)));
    for (user, section) in USERS {
        for (name, key) in USER_KEYS {
            let key = format!("postgresql.authentication.{section}.{key}");
            variables.push(Variable::new(&format!("{user}_{name}"), &key, Form::Text));
        }
    }
    variables
}
