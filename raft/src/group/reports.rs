//! Reports: what the data members tell each other about themselves, as opaque bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::node::Node;
use super::view::ReceivedReport;
use crate::clock;
use crate::model::MemberId;
use crate::network::{Kind, Target};

/// How often reports are exchanged.
const INTERVAL: Duration = Duration::from_millis(500);
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
pub(crate) struct Reports(Mutex<Kept>);

impl Reports {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        }
    }
}

/// Exchanges reports until the group is shut down.
pub(crate) async fn run(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        exchange(&node, INTERVAL).await;
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
