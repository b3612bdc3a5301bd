//! The rules that events name, in plain words for an operator.

/// What a rule of an event says; none: there is no more to say than the event does.
pub fn meaning(rule: &str) -> Option<&'static str> {
    let words = match rule {
        "TakeClosed" => {
            "the primary was silent for its whole lease, a majority of the voters closed its epoch, and this was the best candidate"
        }
        "TakeFenced" => {
            "the primary was silent, and so many of its synchronous standbys stopped following that it could acknowledge nothing more"
        }
        "TakeCutOff" => {
            "the primary was silent, and the operator's fencing.command confirmed that it was cut off, so nobody waited for its lease to expire"
        }
        "CutOff" => {
            "the primary was silent, and the operator's fencing.command was run to cut it off; meanwhile its lease goes on to expire"
        }
        "TakeVacant" => "nobody held the lease, and this was the best candidate",
        "HandOverTransfer" => {
            "the primary stopped cleanly and handed the lease to a standby that had received everything"
        }
        "HandOverStop" => "the primary stopped cleanly, to hand over to a standby",
        "Bootstrap" => "the cluster had no database system, and this member made it",
        "StrangerToEpoch" => {
            "the lease still named this member after its restart, and was granted to it anew"
        }
        "RestartInPlace" => {
            "PostgreSQL ended while its node held the lease, and was started again where it was"
        }
        "Sick" => "PostgreSQL ran, but was of no use to clients",
        "Demote" => "PostgreSQL may not be writable without the lease, so it was stopped at once",
        "AwaitLicence" => {
            "no majority of the voters acknowledged renewals, so the lease ended and PostgreSQL may not write"
        }
        "WatchdogMissing" => {
            "the member may be the primary only with a watchdog device, and its device does not work"
        }
        "GivenUpEpoch" | "GiveBack" | "HolderWithoutData" => {
            "the primary gave the lease back, since it could not serve"
        }
        "ShutDownStop" | "ShutDownHandOver" | "ShutDownRelease" => {
            "the daemon was asked to end, and PostgreSQL was stopped first"
        }
        "MayNotPromote" => "this member is not allowed to become the primary, or lacks what a primary needs",
        "BetterCandidate" => "another member goes first: by its WAL position, its priority, or its name",
        "AwaitFences" => "some synchronous standby that may have acknowledged commits has not been heard of",
        "Suspect" => "the primary is silent, but its epoch may not be closed",
        "Fence" => {
            "a synchronous standby stopped following, so that the silent primary can acknowledge nothing more"
        }
        "Switchover" | "Failover" => "an operator's request",
        "Pause" => "while an epoch is pinned, nobody takes over by itself",
        "Resume" => "the epoch is not pinned any more, and a silent primary is replaced",
        _ => return None,
    };
    Some(words)
}
