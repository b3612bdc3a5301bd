//! Is another node of this name running? Asked before anything else is touched: two nodes of one name would be taken for
//! one another, and a newcomer with an address of its own would stay behind as a voter that is never there.
//!
//! Promises that a start is delayed by moments only when nobody answers.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use pgherd_raft::PeerSecurity;
use pgherd_raft::group::ask_members;
use pgherd_raft::model::Member;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::Config;
use crate::http_client::{HttpClient, HttpFailure};

/// How long partners may take to say who belongs to the cluster.
const PARTNERS_PATIENCE: Duration = Duration::from_secs(1);
/// How long the bearer of the name may take to answer, as Patroni has it.
const BEARER_PATIENCE: Duration = Duration::from_secs(3);
/// What it says does not matter.
const MAX_ANSWER: usize = 64 * 1024;

/// Where a node of this one's name answers over REST; none: nobody does, as far as the partners know. This node's own
/// REST API must not listen yet.
pub(crate) async fn running(
    config: &Config,
    security: &PeerSecurity,
    to_members: &HttpClient,
) -> Option<String> {
    let members = members(config, security).await;
    let bearer = members.into_iter().find(|member| member.name == config.name)?;
    let url = bearer.api_url?;
    answers(to_members, &url).await.then_some(url)
}

/// The members as the first partner says that knows any.
async fn members(config: &Config, security: &PeerSecurity) -> Vec<Member> {
    let mut asking = JoinSet::new();
    for partner in &config.raft.partner_addrs {
        let (scope, partner, security) = (config.scope.clone(), partner.to_string(), security.clone());
        asking.spawn(async move { ask_members(&scope, &partner, &security, PARTNERS_PATIENCE).await });
    }
    let first = async {
        while let Some(answer) = asking.join_next().await {
            if let Ok(Ok(members)) = answer
                && !members.is_empty()
            {
                return members;
            }
        }
        Vec::new()
    };
    timeout(PARTNERS_PATIENCE, first).await.unwrap_or_default()
}

/// Does anything answer there? What it says does not matter, nor whether its certificate is liked.
async fn answers(to_members: &HttpClient, url: &str) -> bool {
    let url = format!("{}/liveness", url.trim_end_matches('/'));
    let Ok(request) = Request::get(url).body(Full::new(Bytes::new())) else { return false };
    match timeout(BEARER_PATIENCE, to_members.send(request, MAX_ANSWER)).await {
        Ok(Ok(_) | Err(HttpFailure::Tls(_))) => true,
        Ok(Err(HttpFailure::Url(_) | HttpFailure::Connect(_) | HttpFailure::Lost(_))) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::TlsFiles;
    use crate::http_client::settings;
    use crate::tls::Checks;

    #[tokio::test]
    async fn only_what_answers_runs() {
        let client = HttpClient::new(settings(&TlsFiles::default(), None, Checks::Nothing), None);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            for reply in ["HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", ""] {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                let mut head = [0; 16];
                stream.read_exact(&mut head).await.expect("asked");
                stream.write_all(reply.as_bytes()).await.expect("answered");
            }
        });
        let url = format!("http://{addr}");
        assert!(answers(&client, &url).await, "an answer of any status");
        assert!(!answers(&client, &url).await, "a connection that is closed");
        serving.join_next().await.expect("ran").expect("no panic");
        assert!(!answers(&client, &url).await, "nobody");
        assert!(!answers(&client, "nonsense").await);
    }
}
