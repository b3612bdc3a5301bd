//! Runs the golden scripts of `apply`. Members are named by one letter: `a` has the id 1 and the session 11.
//!
//! After every command the state must have no violations; every command and every rejection is reached by a script.

use std::collections::BTreeSet;
use std::error::Error;

use goldenscript::{ArgumentConsumer, Command as ScriptCommand, Context, Runner};

use super::*;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn id(name: &str) -> MemberId {
    MemberId(u64::from(name.as_bytes()[0] - b'a') + 1)
}

fn ids(list: &str) -> BTreeSet<MemberId> {
    list.chars().map(|letter| id(&letter.to_string())).collect()
}

fn letter(id: MemberId) -> char {
    char::from(b'a' + u8::try_from(id.0 - 1).expect("a letter"))
}

fn letters(ids: &BTreeSet<MemberId>) -> String {
    ids.iter().map(|id| letter(*id)).collect()
}

fn member(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Member> {
    let kind = if args.take_key("kind") == Some("witness") { MemberKind::Witness } else { MemberKind::Data };
    Ok(Member {
        name: args.take_key("name").unwrap_or(name).parse()?,
        kind,
        raft_addr: args.take_key("addr").map_or_else(|| format!("{name}:2000"), str::to_owned),
        votes: true,
        api_url: None,
        postgres: None,
        tags: Tags::default(),
    })
}

#[derive(Default)]
struct Script {
    state: ClusterState,
    index: u64,
    commands: BTreeSet<&'static str>,
    rejections: BTreeSet<&'static str>,
}

impl Runner for Script {
    type Command = ScriptCommand;

    fn run(&mut self, command: &ScriptCommand, _: &Context) -> Result<String> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "state" => self.show(),
            other => {
                let command = parse(other, &mut args)?;
                self.apply(&command)
            }
        };
        args.reject_next()?;
        Ok(output)
    }
}

/// `"1:0/3000000,2:0/5000000"`
fn history(text: &str) -> Result<Vec<TimelineEnd>> {
    let end = |text: &str| -> Result<TimelineEnd> {
        let (timeline, lsn) = text.split_once(':').ok_or("TIMELINE:LSN")?;
        let reason = "no recovery target specified".to_owned();
        let timeline = TimelineId(timeline.parse()?);
        Ok(TimelineEnd { timeline, lsn: lsn.parse()?, reason, at_ms: None, leader: None })
    };
    text.split(',').map(end).collect()
}

fn parse(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    let epoch = Epoch(args.take_key("epoch").unwrap_or("0").parse()?);
    let first = args.next_pos().unwrap_or("");
    Ok(match name {
        "found" => Command::Found {
            group: GroupId(7),
            scope: "demo".to_owned(),
            members: found(first, args.take_key("witness").unwrap_or(""))?,
        },
        "member" => Command::PutMember {
            id: id(first),
            replaces: args.take_key("replaces").map(id),
            member: member(first, args)?,
        },
        "remove" => Command::RemoveMember { id: id(first) },
        "leaving" => Command::SetLeaving { id: id(first), leaving: true },
        "staying" => Command::SetLeaving { id: id(first), leaving: false },
        "grant" => Command::Grant {
            expected_epoch: epoch,
            to: id(first),
            session: session(first, args)?,
            ttl_ms: args.take_key("ttl").unwrap_or("5000").parse()?,
            basis: basis(args)?,
        },
        "timeline" => {
            let above = TimelineId(args.take_key("above").unwrap_or("1").parse()?);
            Command::ReserveTimeline { epoch, above }
        }
        "fence" => Command::Fence { epoch, member: id(first), position: position(args.take_key("at"))? },
        "widen" => Command::WidenSync { epoch, revision: number(args, "revision")?, to: sync_set(first)? },
        "narrow" => Command::NarrowSync { epoch, revision: number(args, "revision")?, to: sync_set(first)? },
        "failsafe" => Command::SetFailsafe { epoch, members: (first != "off").then(|| ids(first)) },
        "record" => Command::Record { event: event(args)? },
        "release" => Command::Release { epoch, position: None },
        "transfer" => Command::Transfer {
            epoch,
            to: id(first),
            session: session(first, args)?,
            voters: args.take_key("voters").map(ids),
        },
        "voters" => Command::SetVoters { epoch, voters: ids(first) },
        "system" => Command::SetSystemIdentifier { epoch, identifier: SystemIdentifier(first.parse()?) },
        "settings" => Command::SetSettings {
            expected: Revision(args.take_key("expected").unwrap_or("0").parse()?),
            document: args
                .take_key("bytes")
                .map_or(Ok(first.to_owned()), |n| n.parse().map(|n| "x".repeat(n)))?,
            by: args.take_key("by").unwrap_or_default().to_owned(),
            at_ms: 0,
        },
        "switchover" => Command::SetIntent {
            intent: Intent::Switchover { from: id(first), to: args.take_key("to").map(id) },
        },
        "schedule" => Command::ScheduleSwitchover {
            schedule: ScheduledSwitchover {
                at_ms: args.take_key("at").unwrap_or("0").parse()?,
                from: (!first.is_empty()).then(|| id(first)),
                to: args.take_key("to").map(id),
            },
        },
        "unschedule" => Command::CancelSchedule { at_ms: args.take_key("at").map(str::parse).transpose()? },
        "history" => Command::SetHistory { epoch, history: history(first)? },
        "due" => Command::BeginScheduled { at_ms: first.parse()? },
        "failover" => Command::SetIntent {
            intent: Intent::Failover {
                to: id(first),
                accepts_loss: args.take_key("loss") == Some("accepted"),
                holder_is_dead: args.take_key("holder") == Some("dead"),
            },
        },
        "refuse" => Command::EndIntent {
            id: first.parse()?,
            end: IntentEnd::Refused(args.take_key("why").unwrap_or("no").to_owned()),
        },
        other => return Err(format!("unknown command {other}").into()),
    })
}

fn basis(args: &mut ArgumentConsumer<'_>) -> Result<Basis> {
    let pinned = args.take_key("pinned") == Some("yes");
    Ok(match (args.take_key("renewed"), args.take_key("closed"), args.take_key("basis")) {
        (Some(voters), _, _) => Basis::Renewed { voters: ids(voters), pinned },
        (None, Some(by), _) => Basis::Closed { by: ids(by) },
        (None, None, Some("fenced")) => Basis::Fenced,
        (None, None, Some("cut-off")) => Basis::CutOff,
        (None, None, Some("word")) => Basis::OperatorsWord,
        (None, None, Some(other)) => return Err(format!("unknown basis {other}").into()),
        (None, None, None) => Basis::Vacant,
    })
}

fn number(args: &mut ArgumentConsumer<'_>, key: &str) -> Result<u64> {
    Ok(args.take_key(key).unwrap_or("0").parse()?)
}

/// `1/0/A0`: a timeline and a location.
fn position(text: Option<&str>) -> Result<WalPosition> {
    let (timeline, lsn) = text.and_then(|text| text.split_once('/')).ok_or("at=TIMELINE/LSN is missing")?;
    Ok(WalPosition { timeline: TimelineId(timeline.parse()?), lsn: lsn.parse().map_err(|_| "bad LSN")? })
}

/// `set1-bc` (one of b and c), `set1-none` (one of nobody), or `async`.
fn sync_set(text: &str) -> Result<SyncSet> {
    if text == "async" {
        return Ok(SyncSet::default());
    }
    let (needed, names) =
        text.strip_prefix("set").and_then(|text| text.split_once('-')).ok_or("setN-NAMES")?;
    let names = names.trim_start_matches("none").chars().map(|c| c.to_string().parse());
    Ok(SyncSet { names: names.collect::<std::result::Result<_, _>>()?, needed: needed.parse()? })
}

fn event(args: &mut ArgumentConsumer<'_>) -> Result<Event> {
    let because = args.take_key("because").unwrap_or("it was so").to_owned();
    Ok(Event {
        at_ms: 0,
        by: args.take_key("by").unwrap_or("a").parse()?,
        kind: EventKind::Promoted,
        epoch: Epoch(1),
        rule: "TakeVacant".to_owned(),
        because: args.take_key("bytes").map_or(Ok(because), |n| n.parse().map(|n| "x".repeat(n)))?,
        facts: Vec::new(),
        candidates: Vec::new(),
    })
}

/// `abc`, or `a:alice,b:bob:host`, or a number of members.
fn found(list: &str, witness: &str) -> Result<Vec<(MemberId, Member)>> {
    if let Ok(count) = list.parse::<u64>() {
        let member = |n: u64| -> Result<Member> {
            Ok(Member {
                name: format!("n{n}").parse()?,
                kind: MemberKind::Data,
                raft_addr: format!("n{n}:2000"),
                votes: true,
                api_url: None,
                postgres: None,
                tags: Tags::default(),
            })
        };
        return (0..count).map(|n| Ok((MemberId(n), member(n)?))).collect();
    }
    let mut members = Vec::new();
    let entries: Vec<String> = match list.contains(':') {
        true => list.split(',').map(str::to_owned).collect(),
        false => list.chars().map(|letter| letter.to_string()).collect(),
    };
    for entry in entries {
        let mut parts = entry.split(':');
        let letter = parts.next().unwrap_or("?");
        let name = parts.next().unwrap_or(letter);
        let kind = if letter == witness { MemberKind::Witness } else { MemberKind::Data };
        let raft_addr = format!("{}:2000", parts.next().unwrap_or(letter));
        let name = name.parse()?;
        let member = Member {
            name,
            kind,
            raft_addr,
            votes: true,
            api_url: None,
            postgres: None,
            tags: Tags::default(),
        };
        members.push((id(letter), member));
    }
    Ok(members)
}

fn session(of: &str, args: &mut ArgumentConsumer<'_>) -> Result<Session> {
    Ok(Session(args.take_key("session").map_or(Ok(id(of).0 + 10), str::parse)?))
}

impl Script {
    fn apply(&mut self, command: &Command) -> String {
        self.index += 1;
        self.commands.insert(command_name(command));
        if let Command::Grant { basis, .. } = command {
            self.commands.insert(basis_name(basis));
        }
        let before = self.state.clone();
        let outcome = apply(&mut self.state, self.index, command);
        let violations = self.state.violations();
        assert!(violations.is_empty(), "{command:?}: {violations:?}");
        match outcome {
            Outcome::Applied => "applied\n".to_owned(),
            Outcome::Rejected(rejection) => {
                assert_eq!(before, self.state, "a rejection changed the state");
                self.rejections.insert(rejection_name(&rejection));
                format!("rejected ({}): {rejection}\n", rejection_name(&rejection))
            }
        }
    }

    fn show(&self) -> String {
        let state = &self.state;
        let mut out = format!("scope {:?}, members", state.scope);
        for (id, member) in &state.members {
            let kind = if member.kind == MemberKind::Witness { " (witness)" } else { "" };
            let leaving = if state.leaving.contains(id) { " (leaving)" } else { "" };
            out += &format!(" {}={}{kind}{leaving}", letter(*id), member.name);
        }
        out += &format!("\nepoch {}, voters {}, ", state.lease.epoch, letters(&state.lease.voters));
        out += &match &state.lease.tenure {
            None => "vacant".to_owned(),
            Some(tenure) => format!(
                "held by {} session {}, ttl {}, wait {}{}",
                letter(tenure.holder),
                tenure.session.0,
                tenure.ttl_ms,
                tenure.wait_ms,
                if tenure.pinned { ", pinned" } else { "" }
            ),
        };
        if let Some(timeline) = state.timelines.reserved_in(state.lease.epoch) {
            out += &format!("\ntimeline {timeline} reserved");
        }
        if state.synchrony != Synchrony::default() {
            out += &show_synchrony(&state.synchrony);
        }
        if let Some(list) = &state.failsafe {
            out += &format!("\nfailsafe {}", letters(list));
        }
        if let (Some(first), Some(last)) = (state.events.front(), state.events.back()) {
            out += &format!("\n{} events, {} to {}", state.events.len(), first.id, last.id);
        }
        if let Some(system) = state.system_identifier {
            out += &format!("\nsystem {system}");
        }
        if state.settings.revision.0 > 0 {
            out += &format!("\nsettings {}: {}", state.settings.revision, state.settings.document);
        }
        if let Some(pending) = &state.intent {
            out += &format!("\nintent {}: {:?}", pending.id, pending.intent);
        }
        if let Some(schedule) = &state.scheduled_switchover {
            out += &format!("\nscheduled at {}: {:?} to {:?}", schedule.at_ms, schedule.from, schedule.to);
        }
        if let Some(ended) = &state.last_intent {
            out += &format!("\nlast intent {}: {:?}", ended.id, ended.end);
        }
        out + "\n"
    }
}

fn show_synchrony(synchrony: &Synchrony) -> String {
    let mut out = format!("\nsynchrony {}:", synchrony.revision);
    for set in &synchrony.sets {
        let names: String = set.names.iter().map(MemberName::as_str).collect();
        out += &if set.is_asynchronous() {
            " async".to_owned()
        } else {
            format!(" {} of ({names})", set.needed)
        };
    }
    for (member, position) in &synchrony.fences {
        out += &format!(", {} fenced at {position}", letter(*member));
    }
    out
}

macro_rules! names {
    ($function:ident, $all:ident, $type:ident: $($variant:ident)*) => {
        fn $function(value: &$type) -> &'static str {
            match value { $($type::$variant { .. } => stringify!($variant),)* }
        }
        const $all: &[&str] = &[$(stringify!($variant)),*];
    };
}

names!(command_name, COMMANDS, Command: Found PutMember RemoveMember SetLeaving Grant Release Transfer SetVoters
    SetSystemIdentifier SetSettings SetIntent EndIntent ScheduleSwitchover CancelSchedule BeginScheduled Fence WidenSync NarrowSync SetFailsafe Record SetHistory
    ReserveTimeline);
names!(rejection_name, REJECTIONS, Rejection: Founding Epoch Revision Tenure TooFewCloses Pinned Voters Member
    NameTaken AddressTaken StillVoter SystemIdentifier Intent Limit TooFewFences BehindFence Synchrony Failsafe);
names!(basis_name, BASES, Basis: Vacant Renewed Closed Fenced CutOff OperatorsWord);

#[test]
fn the_model_does_as_the_scripts_tell() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/testscripts");
    let (mut commands, mut rejections) = (BTreeSet::new(), BTreeSet::new());
    for entry in std::fs::read_dir(directory).expect("the scripts") {
        let path = entry.expect("a script").path();
        let mut script = Script::default();
        goldenscript::run(&mut script, &path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        commands.append(&mut script.commands);
        rejections.append(&mut script.rejections);
    }
    let missing: Vec<&str> = [COMMANDS, REJECTIONS, BASES]
        .concat()
        .into_iter()
        .filter(|name| !commands.contains(name) && !rejections.contains(name))
        .collect();
    assert!(missing.is_empty(), "no script reaches {missing:?}");
}
