//! Reports: what the data members tell each other about themselves, as opaque bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::node::Node;
use super::view::ReceivedReport;
use crate::clock;
use crate::model::MemberId;
use crate::network::{Kind, Target};

/// How often reports are exchanged.
const INTERVAL: Duration = Duration::from_millis(500);
/// Exchanges out of turn are at least so far apart, however often they are asked for.
const AT_ONCE: Duration = Duration::from_millis(40);
/// As many exchanges may be under way: a member that is silent delays none of the others' next ones.
const MOST_UNDER_WAY: usize = 4;
/// The largest report, in bytes: a daemon's view of itself is a few KiB.
pub(crate) const MAX_REPORT_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Kept {
    /// Empty: nothing was published yet.
    own: Bytes,
    received: BTreeMap<MemberId, ReceivedReport>,
}

/// The own report and the last one of each other member.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    kept: Mutex<Kept>,
    wanted: Notify,
    news: Notify,
}

impl Reports {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next exchange does not wait for its turn.
    pub(crate) fn exchange_soon(&self) {
        self.wanted.notify_one();
    }

    /// Returns when a report came in since the last call. For one waiter.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    pub(crate) fn publish(&self, bytes: Vec<u8>) {
        if bytes.len() > MAX_REPORT_BYTES {
            tracing::warn!("a report of {} bytes is not sent: the limit is {MAX_REPORT_BYTES}", bytes.len());
            return;
        }
        self.kept().own = Bytes::from(bytes);
    }

    pub(crate) fn received(&self) -> BTreeMap<MemberId, ReceivedReport> {
        self.kept().received.clone()
    }

    pub(crate) fn own(&self) -> Bytes {
        self.kept().own.clone()
    }

    /// Keeps what a member of the cluster said; forgets those who are members no more.
    pub(crate) fn keep(&self, from: MemberId, report: &[u8], members: &[(MemberId, String)]) {
        let mut kept = self.kept();
        kept.received.retain(|id, _| members.iter().any(|(member, _)| member == id));
        let is_member = members.iter().any(|(member, _)| *member == from);
        if is_member && (1..=MAX_REPORT_BYTES).contains(&report.len()) {
            kept.received.insert(from, ReceivedReport { at: clock::now(), bytes: report.to_vec() });
            self.news.notify_one();
        }
    }
}

/// Exchanges reports until the group is shut down.
pub(crate) async fn run(node: Arc<Node>) {
    let mut under_way = JoinSet::new();
    loop {
        while under_way.try_join_next().is_some() {}
        if under_way.len() < MOST_UNDER_WAY {
            let node = Arc::clone(&node);
            under_way.spawn(async move { exchange(&node, INTERVAL).await });
        }
        tokio::time::sleep(AT_ONCE).await;
        let rest = INTERVAL.saturating_sub(AT_ONCE);
        // Its end by the clock is the usual case.
        drop(tokio::time::timeout(rest, node.reports.wanted.notified()).await);
    }
}

/// One exchange with every other data member.
pub(crate) async fn exchange(node: &Arc<Node>, within: Duration) {
    let members = node.other_data_members();
    let mut calls = JoinSet::new();
    for (id, addr) in members {
        let node = Arc::clone(node);
        calls.spawn(async move {
            let target = Target { addr, id: Some(id) };
            let group = node.identity.group();
            let answer =
                node.peers.call_bytes(&target, group, Kind::Report, node.reports.own(), within).await;
            if let Ok(report) = answer {
                node.reports.keep(id, &report, &node.other_data_members());
            }
        });
    }
    while calls.join_next().await.is_some() {}
}
