//! The cluster's settings as members tell them.

use hyper::StatusCode;
use serde_json::{Map, Value};

use super::Failure;
use super::client::Client;
use super::cluster::Cluster;
use super::config::Sources;

/// Patroni's default of `loop_wait`, in seconds.
pub(super) const USUAL_LOOP_WAIT: u64 = 10;

/// `/config` of the first member that answers.
pub(super) async fn read(
    sources: &Sources,
    client: &Client,
    cluster: &Cluster,
) -> Result<Map<String, Value>, Failure> {
    for address in cluster.rest_addrs(sources) {
        let Ok(answer) = client.get(&address, "/config").await else { continue };
        if answer.status == StatusCode::BAD_GATEWAY {
            let scope = &cluster.scope;
            return Err(Failure::because(format!("The config key does not exist in the cluster {scope}")));
        }
        if answer.status.is_success()
            && let Ok(settings) = serde_json::from_str(&answer.body)
        {
            return Ok(settings);
        }
    }
    Err(Failure::because("Can not find accessible cluster member"))
}

/// `loop_wait` in seconds.
pub(super) fn loop_wait(settings: &Map<String, Value>) -> u64 {
    settings.get("loop_wait").and_then(Value::as_u64).unwrap_or(USUAL_LOOP_WAIT)
}
