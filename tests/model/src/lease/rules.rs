//! What the protocol demands, one field a sentence; and what may happen in a scenario.

/// The rules under test: all on is the protocol, a mutant turns one off.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A deadline counts from the moment at which the round was sent.
    pub count_from_send: bool,
    /// The holder gives a margin of the ttl away.
    pub margin: bool,
    /// A close survives a restart.
    pub durable_close: bool,
    /// A voter is not quiet before it has run for so long.
    pub quiet_from_start: bool,
    /// A voter is not quiet before it has known the epoch for so long.
    pub quiet_from_learning: bool,
    /// An acknowledgement of any epoch makes a voter not quiet.
    pub quiet_for_any_epoch: bool,
    /// A voter closes only when it has been quiet for the record's wait.
    pub close_waits: bool,
    /// An epoch given up stays so over a restart.
    pub give_up_recorded: bool,
    /// Whoever hands over voids its deadline first.
    pub transfer_voids_deadline: bool,
    /// The lease belongs to one life of the guard.
    pub bound_to_session: bool,
    /// A shorter ttl does not shorten the wait at once.
    pub old_ttl_counts: bool,
    /// An acknowledgement makes a voter refuse older epochs.
    pub floor_on_ack: bool,
    /// Every command names the epoch which it replaces.
    pub compare_and_set: bool,
    /// Voters change with an epoch only.
    pub voters_in_epoch: bool,
    /// Without it: a voter refuses rounds of a holder that is two records behind.
    pub refuse_stale_voters: bool,
    /// The holder changes voters only after a renewal of the present epoch.
    pub change_after_renewal: bool,
    /// One voter at a time.
    pub one_voter_at_a_time: bool,
    /// A grant is no licence before its first renewal.
    pub licence_needs_renewal: bool,
    /// The guard is disarmed only when the pinned epoch is seen applied.
    pub disarm_when_applied: bool,
    /// A pinned epoch is not closed.
    pub pin_refuses_closes: bool,
    /// A pinned epoch is not fenced, unless its holder was stopped in pause and said so.
    pub pin_refuses_fences: bool,
    /// Resume arms the guard before it proposes an epoch that is not pinned.
    pub arm_before_resume: bool,
    /// Once armed to resume, the guard stays armed in this epoch.
    pub stay_armed: bool,
    /// The guard is disarmed only in an epoch which this life of the daemon began: else a proposal of an earlier life
    /// may end the pin unseen.
    pub disarm_in_own_epoch: bool,
    /// Failsafe: all members of the list answer.
    pub ask_everybody: bool,
    /// The start of a process counts as a promise.
    pub promise_from_start: bool,
    /// A promise stops a first renewal.
    pub promise_stops_first_renewal: bool,
    /// The lease is granted to members of the list only.
    pub grant_in_list: bool,
    /// Members of lists proposed, but not known to be committed, are asked too.
    pub ask_proposed: bool,
    /// The list changes only while the licence rests on a majority, and answers to an earlier question do not count:
    /// else a new member, which promised nothing, may be granted the lease before the deadline that the others gave.
    pub change_list_by_majority: bool,
    /// A member refuses when it knows of a later epoch.
    pub refuse_older_epoch: bool,
    /// Failsafe counts only in an epoch which this life of the daemon began.
    pub failsafe_in_own_epoch: bool,
    /// Failsafe lengthens a licence which a majority gave; it is not the first one.
    pub failsafe_only_extends: bool,
    /// A primary that ran already is adopted with the deadline armed.
    pub arm_at_adoption: bool,
    /// A primary is adopted once.
    pub adopt_once: bool,
    /// The lease is taken for a primary that runs already only after its adoption.
    pub adopt_before_renewal: bool,
    /// An unlicensed primary is stopped when the lease names another node.
    pub stop_unlicensed: bool,
}

impl Rules {
    /// The protocol.
    pub fn sound() -> Self {
        Self {
            count_from_send: true,
            margin: true,
            durable_close: true,
            quiet_from_start: true,
            quiet_from_learning: true,
            quiet_for_any_epoch: true,
            close_waits: true,
            give_up_recorded: true,
            transfer_voids_deadline: true,
            bound_to_session: true,
            old_ttl_counts: true,
            floor_on_ack: true,
            compare_and_set: true,
            voters_in_epoch: true,
            refuse_stale_voters: true,
            change_after_renewal: true,
            one_voter_at_a_time: true,
            licence_needs_renewal: true,
            disarm_when_applied: true,
            pin_refuses_closes: true,
            pin_refuses_fences: true,
            arm_before_resume: true,
            stay_armed: true,
            disarm_in_own_epoch: true,
            ask_everybody: true,
            promise_from_start: true,
            promise_stops_first_renewal: true,
            grant_in_list: true,
            ask_proposed: true,
            change_list_by_majority: true,
            refuse_older_epoch: true,
            failsafe_in_own_epoch: true,
            failsafe_only_extends: true,
            arm_at_adoption: true,
            adopt_once: true,
            adopt_before_renewal: true,
            stop_unlicensed: true,
        }
    }
}

/// What may happen in a scenario, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Who may become holder; the others are witnesses.
    pub holders: u8,
    /// The first voters.
    pub voters: u8,
    /// The last epoch.
    pub epochs: u8,
    /// Ticks for which a renewal is good: at first, and after a change.
    pub ttls: (u8, u8),
    /// Ticks by which one clock may fall behind in all; the margin covers one.
    pub slow: u8,
    pub restarts: u8,
    /// Whose daemon restarts.
    pub unstable: u8,
    pub reboots: u8,
    /// Daemons, or with `power` whole machines, that die.
    pub deaths: u8,
    /// A death takes the machine with it, and the operator says so.
    pub power: bool,
    /// New epochs for the same holder.
    pub renew: bool,
    /// Answers to a round count although another one was sent in a later epoch.
    pub two_rounds: bool,
    pub release: bool,
    pub transfer: bool,
    pub fence: bool,
    pub pause: bool,
    /// Daemons are stopped in pause, and come back.
    pub goodbye: bool,
    /// The first failsafe list; 0: none.
    pub failsafe: u8,
    /// Lists to which the holder may change it.
    pub lists: [u8; 2],
    /// A primary runs on node 0 before the first grant.
    pub adopt: bool,
    /// Who may become, or cease to be, a voter.
    pub change_voters: u8,
    /// Voters may change while the lease is vacant, and with a Transfer.
    pub vacant_voters: bool,
    /// Without: enough for a hole that needs no waiting.
    pub time: bool,
    /// Who applies at once: keeps larger scenarios small.
    pub prompt: u8,
}
