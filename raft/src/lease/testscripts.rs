//! Runs the golden scripts of the lease: holders, voters, and a clock which only the script moves.
//!
//! Members are named by one letter: `a` has the id 1, its guard the session 11. `record` is what was agreed on; a node
//! knows it after `apply`. A question is answered by `ask` and counted by `count`, so that answers can be late. Failsafe:
//! `list` is agreed on and applied as the record is; `question` asks the members of it, which answer by `promise`, counted
//! by `believe`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use goldenscript::{ArgumentConsumer, Command, Context, Runner};

use super::*;
use crate::model::{ClusterState, Epoch, GroupId, Incarnation, Lease, MemberId, Session, Tenure};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn id(name: &str) -> MemberId {
    MemberId(u64::from(name.as_bytes()[0] - b'a') + 1)
}

fn ids(letters: &str) -> BTreeSet<MemberId> {
    letters.chars().map(|letter| id(&letter.to_string())).collect()
}

fn letters(ids: impl IntoIterator<Item = MemberId>) -> String {
    ids.into_iter().filter_map(|id| char::from_u32(96 + u32::try_from(id.0).ok()?)).collect()
}

fn session(of: &str, args: &mut ArgumentConsumer<'_>) -> Result<Session> {
    Ok(Session(args.take_key("session").map_or(Ok(id(of).0 + 10), str::parse)?))
}

#[derive(Default)]
struct Script {
    now: BootTime,
    record: Lease,
    applied: BTreeMap<String, Lease>,
    holders: BTreeMap<String, Holder>,
    voters: BTreeMap<String, Voter>,
    /// The rounds of each holder by number.
    rounds: BTreeMap<(String, u64), Renewal>,
    /// The answers to them by holder, voter and round.
    answers: BTreeMap<(String, String, u64), RenewalAnswer>,
    list: Option<BTreeSet<MemberId>>,
    applied_lists: BTreeMap<String, Option<BTreeSet<MemberId>>>,
    members: BTreeMap<String, Promise>,
    /// The questions of each holder by number and member, and whether the member promised.
    questions: BTreeMap<(String, u64, String), (FailsafeQuestion, Option<bool>)>,
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "record" => self.set_record(&mut args)?,
            "apply" => self.apply(&mut args)?,
            "pass" => {
                let time: u64 = args.next_pos().ok_or("how long?")?.parse()?;
                self.now = self.now.after(Duration::from_millis(time));
                String::new()
            }
            "holder" => self.start_holder(&mut args)?,
            "voter" => self.start_voter(&mut args)?,
            "round" => self.round(&mut args)?,
            "ask" => self.ask(&mut args)?,
            "count" => self.count(&mut args)?,
            "written" => {
                let (name, voter) = self.voter(&mut args)?;
                let floor = voter.floor();
                voter.written(floor);
                format!("{name} holds floor {floor}\n")
            }
            "close" => self.close(&mut args)?,
            "give_up" => {
                let holder = self.holders.get_mut(args.next_pos().ok_or("who?")?).ok_or("no such holder")?;
                holder.give_up(Epoch(args.take_key("epoch").ok_or("which?")?.parse()?));
                String::new()
            }
            "licence" => self.licence(&mut args)?,
            "list" => {
                self.list = args.next_pos().filter(|list| *list != "off").map(ids);
                String::new()
            }
            "member" => self.start_member(&mut args)?,
            "at_start" => {
                let epoch = Epoch(args.take_key("epoch").ok_or("which?")?.parse()?);
                let holder = self.holders.get_mut(args.next_pos().ok_or("who?")?).ok_or("no such holder")?;
                holder.know_at_start(epoch);
                String::new()
            }
            "question" => self.question(&mut args)?,
            "promise" => self.promise(&mut args)?,
            "believe" => self.believe(&mut args)?,
            "propose" => self.propose(&mut args)?,
            "standing" => self.standing(&mut args)?,
            other => return Err(format!("unknown command {other}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}

impl Script {
    fn at(time: BootTime) -> String {
        format!("{} ms", time.0.as_millis())
    }

    fn set_record(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let ttl_ms: u64 = args.take_key("ttl").unwrap_or("5000").parse()?;
        let holder = args.take_key("holder").unwrap_or("a").to_owned();
        let tenure = Tenure {
            holder: id(&holder),
            session: session(&holder, args)?,
            ttl_ms,
            wait_ms: args.take_key("wait").map_or(Ok(ttl_ms), str::parse)?,
            pinned: args.take_key("pinned").is_some(),
        };
        self.record = Lease {
            epoch: Epoch(args.take_key("epoch").ok_or("which epoch?")?.parse()?),
            voters: args.take_key("voters").unwrap_or("abc").chars().map(|c| id(&c.to_string())).collect(),
            tenure: (holder != "none").then_some(tenure),
            left_at: None,
            last_holder: None,
        };
        Ok(String::new())
    }

    fn apply(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        for name in args.next_pos().ok_or("who?")?.chars().map(|c| c.to_string()) {
            if let Some(voter) = self.voters.get_mut(&name) {
                voter.learn(&self.record, self.now);
            }
            self.applied.insert(name.clone(), self.record.clone());
            self.applied_lists.insert(name, self.list.clone());
        }
        Ok(String::new())
    }

    fn start_holder(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let name = args.next_pos().ok_or("who?")?.to_owned();
        let incarnation = Incarnation(args.take_key("incarnation").unwrap_or("1").parse()?);
        let given_up = Epoch(args.take_key("given_up").unwrap_or("0").parse()?);
        let mut holder = Holder::new(id(&name), session(&name, args)?, incarnation, given_up);
        if let Some(epoch) = args.take_key("armed") {
            holder.armed_for(Epoch(epoch.parse()?));
        }
        self.holders.insert(name, holder);
        Ok(String::new())
    }

    fn start_voter(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let floor = Epoch(args.take_key("floor").unwrap_or("0").parse()?);
        for name in args.next_pos().ok_or("who?")?.chars().map(|c| c.to_string()) {
            self.voters.insert(name, Voter::new(floor, self.now));
        }
        Ok(String::new())
    }

    fn voter(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(String, &mut Voter)> {
        let name = args.next_pos().ok_or("who?")?.to_owned();
        let voter = self.voters.get_mut(&name).ok_or("no such voter")?;
        Ok((name, voter))
    }

    fn round(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let name = args.next_pos().ok_or("who?")?.to_owned();
        let lease = self.applied.get(&name).cloned().unwrap_or_default();
        let holder = self.holders.get_mut(&name).ok_or("no such holder")?;
        let Some(renewal) = holder.begin_round(&lease, self.now) else {
            return Ok(format!("{name} may not renew\n"));
        };
        let (round, epoch) = (renewal.round, renewal.epoch);
        self.rounds.insert((name, round), renewal);
        Ok(format!("round {round} of epoch {epoch}, sent at {}\n", Self::at(self.now)))
    }

    /// The latest round of the holder, or the named one.
    fn which(&self, holder: &str, args: &mut ArgumentConsumer<'_>) -> Result<u64> {
        if let Some(round) = args.take_key("round") {
            return Ok(round.parse()?);
        }
        let rounds = self.rounds.keys().filter(|(name, _)| name == holder);
        Ok(rounds.map(|(_, round)| *round).max().ok_or("no round yet")?)
    }

    fn ask(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let from = args.take_key("for").unwrap_or("a").to_owned();
        let round = self.which(&from, args)?;
        let renewal = self.rounds.get(&(from.clone(), round)).ok_or("no such round")?.clone();
        let mut out = String::new();
        for name in args.next_pos().ok_or("whom?")?.chars().map(|c| c.to_string()) {
            let lease = self.applied.get(&name).cloned().unwrap_or_default();
            let voter = self.voters.get_mut(&name).ok_or("no such voter")?;
            let answer = voter.renewal(&lease, &renewal, self.now);
            out += &format!("{name}: {:?}{}\n", answer.verdict, after_write(answer.floor));
            let (epoch, incarnation) = (renewal.epoch, renewal.incarnation);
            let answer = RenewalAnswer { epoch, incarnation, round, verdict: answer.verdict };
            self.answers.insert((from.clone(), name, round), answer);
        }
        Ok(out)
    }

    fn count(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let at = args.take_key("at").unwrap_or("a").to_owned();
        let round = self.which(&at, args)?;
        let mut out = String::new();
        for name in args.next_pos().ok_or("whose?")?.chars().map(|c| c.to_string()) {
            let answer = self.answers.get(&(at.clone(), name.clone(), round)).ok_or("no such answer")?;
            let holder = self.holders.get_mut(&at).ok_or("no such holder")?;
            if let Some(promise) = self.members.get(&at) {
                holder.stand_back(promise.until());
            }
            out += &match holder.count(id(&name), answer) {
                Some(won) => format!("{name}: licence {}\n", show(&won)),
                None => format!("{name}: nothing new\n"),
            };
        }
        Ok(out)
    }

    fn close(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let request = CloseRequest {
            candidate: id(args.take_key("by").unwrap_or("b")),
            epoch: Epoch(args.take_key("epoch").ok_or("which epoch?")?.parse()?),
            for_real: args.take_key("question").is_none(),
        };
        let mut out = String::new();
        for name in args.next_pos().ok_or("whom?")?.chars().map(|c| c.to_string()) {
            let lease = self.applied.get(&name).cloned().unwrap_or_default();
            let voter = self.voters.get_mut(&name).ok_or("no such voter")?;
            let answer = voter.close(&lease, &request, self.now);
            out += &format!("{name}: {:?}{}\n", answer.verdict, after_write(answer.floor));
        }
        Ok(out)
    }

    fn licence(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let holder = self.holders.get(args.next_pos().ok_or("whose?")?).ok_or("no such holder")?;
        let mut out = match holder.licence() {
            Some(won) if won.deadline > self.now => format!("licence {}", show(&won)),
            Some(won) => format!("expired at {}", Self::at(won.deadline)),
            None => "no licence".to_owned(),
        };
        if let Some(epoch) = holder.disputed() {
            out += &format!(", epoch {epoch} disputed");
        }
        if holder.failsafe().rests_on_promises {
            out += ", by promises";
        }
        Ok(out + "\n")
    }

    fn state(&self, name: &str) -> ClusterState {
        ClusterState {
            group: Some(GroupId(1)),
            lease: self.applied.get(name).cloned().unwrap_or_default(),
            failsafe: self.applied_lists.get(name).cloned().flatten(),
            ..ClusterState::default()
        }
    }

    /// `length`: what its store says, in milliseconds; `armed`: for which epoch its guard was.
    fn start_member(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let length = Duration::from_millis(args.take_key("length").unwrap_or("0").parse()?);
        let armed = args.take_key("armed").unwrap_or("0").to_owned();
        for name in args.next_pos().ok_or("who?")?.chars().map(|c| c.to_string()) {
            let mut promise = Promise::new(id(&name), length, self.now);
            if armed != "unknown" {
                promise.armed_for(Epoch(armed.parse()?));
            }
            self.members.insert(name, promise);
        }
        Ok(String::new())
    }

    fn question(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let name = args.next_pos().ok_or("who?")?.to_owned();
        let state = self.state(&name);
        let holder = self.holders.get_mut(&name).ok_or("no such holder")?;
        let (requests, licence) = holder.ask_members(&state, self.now);
        if let Some(won) = licence {
            return Ok(format!("licence {}\n", show(&won)));
        }
        let Some(first) = requests.first() else { return Ok(format!("{name} asks nobody\n")) };
        let asked = letters(requests.iter().map(|request| request.member));
        let out = format!(
            "question {} of epoch {} to {asked}, sent at {}\n",
            first.round,
            first.epoch,
            Self::at(self.now)
        );
        for request in requests {
            self.questions.insert((name.clone(), request.round, letters([request.member])), (request, None));
        }
        Ok(out)
    }

    fn which_question(&self, holder: &str, args: &mut ArgumentConsumer<'_>) -> Result<u64> {
        if let Some(number) = args.take_key("question") {
            return Ok(number.parse()?);
        }
        let numbers = self.questions.keys().filter(|(name, ..)| name == holder).map(|(_, number, _)| *number);
        Ok(numbers.max().ok_or("no question yet")?)
    }

    fn promise(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let from = args.take_key("for").unwrap_or("a").to_owned();
        let number = self.which_question(&from, args)?;
        let to = args.take_key("meant").map(str::to_owned);
        let mut out = String::new();
        for name in args.next_pos().ok_or("whom?")?.chars().map(|c| c.to_string()) {
            let state = self.state(&name);
            let asked = (from.clone(), number, to.clone().unwrap_or_else(|| name.clone()));
            let (request, promised) = self.questions.get_mut(&asked).ok_or("it was not asked")?;
            let member = self.members.get_mut(&name).ok_or("no such member")?;
            let answer = member.ask(&state, request, self.now);
            *promised = Some(answer.is_ok());
            out += &match answer {
                Ok(length) => {
                    let until = Self::at(member.until());
                    let written = length.map_or(String::new(), |length| {
                        member.written(length);
                        format!(", once a length of {} ms is written", length.as_millis())
                    });
                    format!("{name}: stands back until {until}{written}\n")
                }
                Err(why) => format!("{name}: {why}\n"),
            };
        }
        Ok(out)
    }

    fn believe(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let at = args.take_key("at").unwrap_or("a").to_owned();
        let number = self.which_question(&at, args)?;
        let mut out = String::new();
        for name in args.next_pos().ok_or("whom?")?.chars().map(|c| c.to_string()) {
            let (request, promised) =
                self.questions.get(&(at.clone(), number, name.clone())).ok_or("it was not asked")?;
            let holder = self.holders.get_mut(&at).ok_or("no such holder")?;
            if !promised.ok_or("it has not answered")? {
                holder.count_no_promise(request);
                out += &format!("{name}: question {number} is void\n");
                continue;
            }
            out += &match holder.count_promise(request) {
                Some(won) => format!("{name}: licence {}\n", show(&won)),
                None => format!("{name}: nothing new\n"),
            };
        }
        Ok(out)
    }

    fn propose(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let epoch = Epoch(args.take_key("epoch").ok_or("which?")?.parse()?);
        let holder = self.holders.get_mut(args.next_pos().ok_or("who?")?).ok_or("no such holder")?;
        let list = args.next_pos().filter(|list| *list != "off").map(ids);
        let may = holder.propose_failsafe(epoch, list.as_ref());
        Ok(if may { "it may be proposed\n".to_owned() } else { "it may not be proposed\n".to_owned() })
    }

    fn standing(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let member = self.members.get(args.next_pos().ok_or("who?")?).ok_or("no such member")?;
        Ok(match member.in_force(self.now) {
            Some(StandingBack { holder, remaining }) => {
                let whom = holder.map_or("somebody".to_owned(), |id| letters([id]));
                format!("for {whom} for {} ms more\n", remaining.as_millis())
            }
            None => "bound by nothing\n".to_owned(),
        })
    }
}

fn show(licence: &Licence) -> String {
    format!("of epoch {} until {}", licence.epoch, Script::at(licence.deadline))
}

fn after_write(floor: Option<Epoch>) -> String {
    floor.map_or(String::new(), |floor| format!(", once floor {floor} is written"))
}

#[test]
fn the_lease_does_as_the_scripts_tell() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lease/testscripts");
    let mut ran = 0;
    for entry in std::fs::read_dir(directory).expect("the scripts") {
        let path = entry.expect("a script").path();
        goldenscript::run(&mut Script::default(), &path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        ran += 1;
    }
    assert!(ran > 5, "the scripts were not found");
}
