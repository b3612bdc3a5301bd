//! The fuzz target of the REST API: whole requests, from the request line to the body.

use std::sync::OnceLock;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use tokio::runtime::Runtime;

use super::testing::{FakeGroup, Fate, protected, state, view};
use super::{Shared, answer, operations};

/// Lines: method, path with query, body. Nothing may panic, every answer has a known status, and who does not know the
/// password changes nothing and does not see it.
pub(crate) fn http(data: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    });
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default().trim();
    let (Ok(method), Ok(uri)) = (Method::from_bytes(line().as_bytes()), line().parse::<Uri>()) else {
        return;
    };
    let body = lines.next().unwrap_or_default().to_owned();
    for number in [1, 3] {
        let group = FakeGroup::new(Fate::Ignored);
        let before = group.state();
        let api = protected(state(view(number, pgherd_raft::clock::now()), std::sync::Arc::clone(&group)));
        let mut request = axum::extract::Request::new(Body::from(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        let shared = Shared { api, operations: operations::Operations::default() };
        let (status, said) = runtime.block_on(async { read(answer(State(shared), request).await).await });
        assert!((200..600).contains(&status.as_u16()), "{status}");
        assert!(!said.contains("secret"), "the password is shown");
        assert_eq!(group.state(), before, "{method} {uri} changed the cluster without a password");
    }
}

async fn read(response: Response) -> (StatusCode, String) {
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 16 * 1024 * 1024).await.expect("a body");
    (head.status, String::from_utf8_lossy(&body).into_owned())
}
