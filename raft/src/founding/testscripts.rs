//! Runs the golden scripts of founding and joining: nodes `a`, `b`, ... with the ids 1, 2, ... and the addresses `a:1`,
//! `b:1`, ... Messages arrive at once, except where a script holds them back; the founding begun by `a` has the id 1.
//!
//! `run` lets time pass and shows what was decided and what each node then waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use goldenscript::{Command, Context, Runner};

use super::*;
use crate::lease::BootTime;
use crate::model::{GroupId, Member, MemberId, MemberKind, Tags};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Default)]
struct Node {
    identity: Option<Identity>,
    partners: Vec<String>,
    durable: Option<Promise>,
    group: Option<GroupId>,
    machine: Option<Founding>,
    up: bool,
    foundings: u64,
}

enum Event {
    Probe { from: String, to: String, number: u64 },
    Status { from: String, to: String, number: u64, status: Status },
    Ask { from: String, to: String, request: PromiseRequest },
    Answer { from: String, to: String, answer: PromiseAnswer },
    Join { from: String, via: String },
    Wish { from: String, to: String, partners: Vec<String> },
    Raft { to: String, group: GroupId },
}

#[derive(Default)]
struct Script {
    now: BootTime,
    nodes: BTreeMap<String, Node>,
    cut: BTreeSet<(String, String)>,
    /// Answers of the first node to the second are kept here.
    held: BTreeMap<(String, String), Vec<Event>>,
    events: Vec<Event>,
    out: String,
}

fn number(name: &str) -> u64 {
    u64::from(name.as_bytes()[0] - b'a') + 1
}

fn addr(name: &str) -> String {
    format!("{name}:1")
}

fn at(addr: &str) -> String {
    addr.trim_end_matches(":1").to_owned()
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String> {
        let mut args = command.consume_args();
        let first = args.next_pos().unwrap_or("").to_owned();
        match command.name.as_str() {
            "node" => {
                let is_witness = args.take_key("kind") == Some("witness");
                let votes = args.take_key("votes") != Some("no");
                let name = args.take_key("name").unwrap_or(&first).parse()?;
                let member = Member {
                    name,
                    kind: if is_witness { MemberKind::Witness } else { MemberKind::Data },
                    raft_addr: addr(args.take_key("addr").unwrap_or(&first)),
                    votes,
                    api_url: None,
                    postgres: None,
                    tags: Tags::default(),
                };
                let id = MemberId(args.take_key("id").map_or(Ok(number(&first)), str::parse)?);
                let node = Node {
                    identity: Some(Identity { id, member }),
                    partners: args
                        .take_key("lists")
                        .unwrap_or("")
                        .chars()
                        .map(|c| addr(&c.to_string()))
                        .collect(),
                    ..Node::default()
                };
                self.nodes.insert(first.clone(), node);
            }
            "start" => first.chars().for_each(|name| self.start(&name.to_string())),
            "stop" => {
                let node = self.node(&first);
                (node.up, node.machine) = (false, None);
            }
            "cut" => {
                let second = args.next_pos().ok_or("from whom?")?.to_owned();
                self.cut.extend([(first.clone(), second.clone()), (second, first)]);
            }
            "heal" => self.cut.clear(),
            "hold" => {
                let second = args.next_pos().ok_or("to whom?")?.to_owned();
                self.held.insert((first, second), Vec::new());
            }
            "let_go" => {
                let second = args.next_pos().ok_or("to whom?")?.to_owned();
                let mut held = self.held.remove(&(first, second)).unwrap_or_default();
                self.events.append(&mut held);
                self.deliver();
            }
            "run" => self.pass(first.parse()?),
            "invite" => {
                let via = args.take_key("via").ok_or("via whom?")?.to_owned();
                let group = self.node(&via).group.ok_or("no member")?;
                let now = self.now;
                let machine = self.node(&first).machine.as_mut().ok_or("not waiting")?;
                let actions = machine.invited(group, &addr(&via), now);
                self.act(&first, actions);
                self.deliver();
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        if command.name == "run" {
            self.show_states();
        }
        Ok(std::mem::take(&mut self.out))
    }
}

impl Script {
    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap_or_else(|| panic!("no node {name}"))
    }

    fn start(&mut self, name: &str) {
        let now = self.now;
        let node = self.node(name);
        node.up = true;
        if node.group.is_none() {
            let identity = node.identity.clone().expect("made by `node`");
            node.machine = Some(Founding::new(identity, &node.partners, node.durable.clone(), now));
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(50) {
            self.now = self.now.after(Duration::from_millis(50));
            for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
                let now = self.now;
                let node = self.node(&name);
                let fresh = GroupId(number(&name) + 10 * node.foundings);
                let Some(machine) = node.machine.as_mut() else { continue };
                let actions = machine.tick(now, fresh);
                self.act(&name, actions);
                self.deliver();
            }
        }
    }

    fn show_states(&mut self) {
        for (name, node) in &self.nodes {
            self.out += &match (&node.machine, node.group) {
                _ if !node.up => format!("{name} is down\n"),
                (Some(machine), _) => format!("{name} waits for {}\n", machine.waiting_for()),
                (None, Some(group)) => format!("{name} is a member of group {}\n", group.0),
                (None, None) => format!("{name} has ended\n"),
            };
        }
    }

    fn act(&mut self, name: &str, actions: Vec<Action>) {
        for action in actions {
            let from = name.to_owned();
            match action {
                Action::PersistPromise(promise) => {
                    self.out += &match &promise {
                        None => format!("{name} is promised to nobody\n"),
                        Some(promise) if promise.sealed.is_some() => {
                            format!("{name} seals founding {}\n", promise.founding.0)
                        }
                        Some(promise) => format!(
                            "{name} promises itself to founding {} by {}\n",
                            promise.founding.0,
                            at(&promise.coordinator_addr)
                        ),
                    };
                    let mine = promise.as_ref().is_some_and(|p| p.coordinator.0 == number(name));
                    let node = self.node(name);
                    node.foundings += u64::from(mine);
                    node.durable = promise;
                }
                Action::Probe { addr, number } => {
                    self.events.push(Event::Probe { from, to: at(&addr), number });
                }
                Action::AskPromise { addr, request } => {
                    self.events.push(Event::Ask { from, to: at(&addr), request });
                }
                Action::Initialise { founding, founders } => {
                    let names: Vec<String> =
                        founders.iter().map(|(_, member)| at(&member.raft_addr)).collect();
                    self.out +=
                        &format!("{name} initialises group {} with {}\n", founding.0, names.join(", "));
                    let node = self.node(name);
                    (node.group, node.machine) = (Some(founding), None);
                    for to in names.into_iter().filter(|to| to != name) {
                        self.events.push(Event::Raft { to, group: founding });
                    }
                    return;
                }
                Action::Join { via, .. } => self.events.push(Event::Join { from, via: at(&via) }),
                Action::Wish { addr, partners } => {
                    self.events.push(Event::Wish { from, to: at(&addr), partners });
                }
                Action::Refuse(why) => {
                    self.out += &format!("{name} gives up: {why}\n");
                    let node = self.node(name);
                    (node.up, node.machine) = (false, None);
                    return;
                }
            }
        }
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        let up = self.nodes.get(to).is_some_and(|node| node.up);
        up && !self.cut.contains(&(from.to_owned(), to.to_owned()))
    }

    fn deliver(&mut self) {
        while !self.events.is_empty() {
            let event = self.events.remove(0);
            self.one(event);
        }
    }

    fn reply(&mut self, from: &str, to: &str, event: Event) {
        match self.held.get_mut(&(from.to_owned(), to.to_owned())) {
            Some(held) => held.push(event),
            None => self.events.push(event),
        }
    }

    fn one(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Probe { from, to, number } => {
                let status = self.reaches(&from, &to).then(|| {
                    let node = self.node(&to);
                    let id = node.identity.clone().expect("made by `node`").id;
                    match (&node.machine, node.group) {
                        (Some(machine), _) => machine.status(),
                        (None, Some(group)) => Status::Member { id, group, raft_leader_addr: None },
                        (None, None) => Status::OtherScope,
                    }
                });
                let status = status.unwrap_or(Status::Unreachable);
                let answer = Event::Status { from: to.clone(), to: from.clone(), number, status };
                self.reply(&to, &from, answer);
            }
            Event::Status { from, to, number, status } => {
                let Some(machine) = self.node(&to).machine.as_mut() else { return };
                let actions = machine.probed(&addr(&from), number, status, now);
                self.act(&to, actions);
            }
            Event::Ask { from, to, request } if self.reaches(&from, &to) => {
                let Some(machine) = self.node(&to).machine.as_mut() else { return };
                let (actions, answer) = machine.asked(&request, now);
                self.act(&to, actions);
                let answer = Event::Answer { from: to.clone(), to: from.clone(), answer };
                self.reply(&to, &from, answer);
            }
            Event::Answer { from, to, answer } => {
                let Some(machine) = self.node(&to).machine.as_mut() else { return };
                let actions = machine.answered(&addr(&from), &answer, now);
                self.act(&to, actions);
            }
            Event::Join { from, via } if self.reaches(&from, &via) => {
                if let Some(group) = self.node(&via).group {
                    self.out += &format!("{from} joins group {} through {via}\n", group.0);
                    let node = self.node(&from);
                    (node.group, node.machine) = (Some(group), None);
                }
            }
            Event::Wish { from, to, partners } if self.reaches(&from, &to) => {
                self.out += &format!("{from} wishes that {to} founds\n");
                let Some(machine) = self.node(&to).machine.as_mut() else { return };
                let actions = machine.wished(&partners, now);
                self.act(&to, actions);
            }
            Event::Raft { to, group } if self.nodes.get(&to).is_some_and(|node| node.up) => {
                let node = self.node(&to);
                if node.machine.as_ref().is_some_and(|machine| machine.accepts() == Some(group)) {
                    (node.group, node.machine) = (Some(group), None);
                }
            }
            Event::Ask { .. } | Event::Join { .. } | Event::Wish { .. } | Event::Raft { .. } => {}
        }
    }
}

#[test]
fn nodes_found_and_join_as_the_scripts_tell() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/founding/testscripts");
    let mut ran = 0;
    for entry in std::fs::read_dir(directory).expect("the scripts") {
        let path = entry.expect("a script").path();
        goldenscript::run(&mut Script::default(), &path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        ran += 1;
    }
    assert!(ran > 5, "the scripts were not found");
}

/// The members still take the node whose store was lost, at this node's own address, for their Raft leader.
#[test]
fn a_node_is_not_told_to_ask_itself() {
    let member = Member {
        name: "a".parse().expect("a valid name"),
        kind: MemberKind::Data,
        raft_addr: addr("a"),
        votes: true,
        api_url: None,
        postgres: None,
        tags: Tags::default(),
    };
    let identity = Identity { id: MemberId(9), member };
    let mut machine = Founding::new(identity, &[addr("b")], None, BootTime::default());
    machine.invited(GroupId(1), &addr("b"), BootTime::default());
    assert!(machine.waiting_for().ends_with("to let this node in, asked at b:1"));
    machine.invited(GroupId(1), &addr("a"), BootTime::default());
    let waits = machine.waiting_for();
    assert!(waits.contains("to have another Raft leader") && !waits.contains("asked at"), "{waits}");
}
