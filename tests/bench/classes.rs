//! The classes of faults: what breaks, in which mode, and what is aimed at.

use std::time::Duration;

use anyhow::Result;

use crate::harness::cluster::Plan;

/// What happens to the primary, or to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9 of the postmaster, whose daemon lives.
    Postmaster,
    /// kill -9 of the daemon, the guard and PostgreSQL.
    Node,
    /// kill -9 of the daemon, which is started again at once.
    DaemonRestarted,
    /// kill -9 of the daemon, which is not started again.
    DaemonKilled,
    /// SIGSTOP to the daemon.
    DaemonStopped,
    /// The network between the primary and all others is silent, for replication as well; clients still reach it.
    Partition,
    /// An operator's switchover.
    Switchover,
    /// kill -9 of all nodes, which are started again at once.
    AllNodes,
}

/// Which standbys a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Async,
    On,
    Quorum,
}

impl Mode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::On => "on",
            Self::Quorum => "quorum",
        }
    }

    /// How many of two standbys are synchronous.
    pub(crate) fn standbys(self) -> usize {
        match self {
            Self::Async => 0,
            Self::On => 1,
            Self::Quorum => 2,
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Class {
    /// How it is asked for, and its name in the results.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) fault: Fault,
    pub(crate) mode: Mode,
    /// In seconds.
    pub(crate) ttl: u32,
    /// The p50 and p99 aimed at, in milliseconds.
    pub(crate) goal: Option<(u64, u64)>,
}

const fn class(
    name: &'static str,
    title: &'static str,
    fault: Fault,
    mode: Mode,
    ttl: u32,
    goal: Option<(u64, u64)>,
) -> Class {
    Class { name, title, fault, mode, ttl, goal }
}

/// All, in the order of the table.
pub(crate) const ALL: &[Class] = &[
    class("postmaster", "postmaster killed", Fault::Postmaster, Mode::Async, 5, Some((600, 1500))),
    class("switchover", "switchover", Fault::Switchover, Mode::Async, 5, Some((500, 1500))),
    class("switchover-quorum", "switchover", Fault::Switchover, Mode::Quorum, 5, Some((500, 1500))),
    class("node-on", "node killed", Fault::Node, Mode::On, 5, Some((2000, 4000))),
    class("node-quorum", "node killed", Fault::Node, Mode::Quorum, 5, Some((2000, 4000))),
    class("node-ttl2", "node killed", Fault::Node, Mode::Async, 2, Some((2500, 4000))),
    class("node", "node killed", Fault::Node, Mode::Async, 5, Some((5500, 7000))),
    class(
        "daemon-restarted",
        "daemon killed and started again",
        Fault::DaemonRestarted,
        Mode::Async,
        5,
        Some((0, 0)),
    ),
    class(
        "daemon-killed-quorum",
        "daemon killed for good",
        Fault::DaemonKilled,
        Mode::Quorum,
        5,
        Some((2000, 4000)),
    ),
    class("daemon-killed", "daemon killed for good", Fault::DaemonKilled, Mode::Async, 5, Some((5500, 7000))),
    class(
        "daemon-stopped-quorum",
        "daemon stopped (SIGSTOP)",
        Fault::DaemonStopped,
        Mode::Quorum,
        5,
        Some((2000, 4000)),
    ),
    class(
        "daemon-stopped",
        "daemon stopped (SIGSTOP)",
        Fault::DaemonStopped,
        Mode::Async,
        5,
        Some((5500, 7000)),
    ),
    class(
        "partition-quorum",
        "primary cut off from all others",
        Fault::Partition,
        Mode::Quorum,
        5,
        Some((3000, 5000)),
    ),
    class("partition", "primary cut off from all others", Fault::Partition, Mode::Async, 5, None),
    class("all-nodes", "all nodes killed and started again", Fault::AllNodes, Mode::Quorum, 5, None),
];

impl Class {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|class| class.name == name)
    }

    pub(crate) fn plan(&self) -> Result<Plan> {
        // So many killed postmasters would be taken for a crash loop.
        let mut settings = vec!["primary_health_timeout: 0".to_owned()];
        if self.mode != Mode::Async {
            settings.push(format!("synchronous_mode: {}", self.mode.as_str()));
        }
        let lines: Vec<&str> = settings.iter().map(String::as_str).collect();
        let plan = Plan::of(3)?.with_ttl(self.ttl).with_settings(&lines);
        Ok(if self.needs_network() { plan.with_network() } else { plan })
    }

    /// Do the nodes need networks of their own?
    pub(crate) fn needs_network(&self) -> bool {
        self.fault == Fault::Partition
    }

    /// Can the old primary's PostgreSQL outlive its licence?
    pub(crate) fn asks_for_two_writers(&self) -> bool {
        matches!(self.fault, Fault::DaemonKilled | Fault::DaemonStopped | Fault::Partition)
    }

    /// What is broken, with the mode and the ttl.
    pub(crate) fn describe(&self) -> String {
        format!("{}, {}, ttl {}", self.title, self.mode.as_str(), self.ttl)
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl.into())
    }
}
