//! The witness' configuration: a YAML file in the form of a data node's, with the few keys a witness needs.
//!
//! ```yaml
//! scopes: [sales, support]     # or scope: NAME
//! name: witness-1
//! raft:
//!   self_addr: 10.0.0.9:2222
//!   data_dir: /var/lib/pgherd-witness
//!   partner_addrs: [10.0.0.1:2222, 10.0.0.2:2222]
//! ```
//!
//! `partner_addrs` may be empty where the data nodes list the witness: they invite it. With several clusters it holds the
//! nodes of all of them, or none. All of them have the witness' `raft.password`: a port has one. Scopes are listed and not
//! taken on as somebody asks for them: whoever may speak could make stores here without end, and a mistyped scope would
//! find a voter.
//!
//! Owns what its keys mean. Promises: all mistakes of a file at once, each with key, place and cure.

use std::collections::BTreeSet;
use std::path::Path;

use pgherd_raft::address::HostPort;
use pgherd_raft::config::{
    ConfigErrors, Environment, Raft, Report, Section, Warning, common_variables, from_text, read_file,
    read_log, read_raft, read_scope,
};
use pgherd_raft::model::MemberName;
use pgherd_raft::telemetry::LogSettings;
use pgherd_raft::yaml::Node;

/// Each scope is a group with a store and tasks of its own; more belong on a second witness.
const MAX_SCOPES: usize = 64;

/// Sections which only mean something on a node with PostgreSQL. A witness may share a file with one.
const OF_DATA_NODES: [&str; 8] =
    ["bootstrap", "ctl", "namespace", "postgresql", "restapi", "tags", "watchdog", "citus"];

/// One witness: complete, paths absolute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// The clusters it votes in, each once; at least one.
    pub scopes: Vec<String>,
    /// Its name, the same in every cluster.
    pub name: MemberName,
    /// Where the others reach it.
    pub self_addr: HostPort,
    /// The rest of the section `raft`; each scope's store is a directory below its `data_dir`.
    pub raft: Raft,
    /// The section `log`.
    pub log: LogSettings,
}

impl Config {
    /// Reads a file and lays the environment over it.
    ///
    /// # Errors
    /// All mistakes of both at once.
    pub(crate) fn load(path: &Path, environment: &Environment) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let text = read_file(path)?;
        Self::from_text(&path.display().to_string(), &text, environment)
    }

    fn from_text(
        file: &str,
        text: &str,
        environment: &Environment,
    ) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        from_text(file, text, environment, &common_variables(), validate)
    }
}

fn validate(root: &Node, report: &Report) -> Option<Config> {
    let mut top = Section::top(root, "", report);
    let scopes = scopes(&mut top);
    let name = top.member_name("name");
    let log = read_log(top.section("log"));
    let mut raft = top.section("raft");
    if raft.get("self_addr").is_none() {
        raft.missing("self_addr", "add `self_addr: HOST:PORT`: where the other members reach this witness");
    }
    if raft.get("data_dir").is_none() {
        raft.missing("data_dir", "add `data_dir: PATH`: where the witness keeps what it has voted for");
    }
    // Without an address the reading below would report the same once more.
    let raft = if raft.get("self_addr").is_some() { read_raft(raft, None) } else { None };
    for section in OF_DATA_NODES {
        top.get(section);
    }
    top.close();
    let raft = raft?;
    Some(Config { scopes: scopes?, name: name?, self_addr: raft.self_addr.clone()?, raft, log })
}

fn scopes(top: &mut Section<'_>) -> Option<Vec<String>> {
    let one = top.get("scope").is_some();
    let Some(nodes) = top.list("scopes") else {
        return match one {
            true => top.scope("scope").map(|scope| vec![scope]),
            false => {
                top.missing("scopes", "add `scopes: [NAME, ...]`: the clusters in which the witness votes");
                None
            }
        };
    };
    let place = top.value_place("scopes");
    if one {
        top.report.error(
            "scope",
            &top.value_place("scope"),
            "stands beside `scopes`",
            "keep one of them: `scopes` takes several names",
        );
    }
    if nodes.is_empty() || nodes.len() > MAX_SCOPES {
        let what = format!("has {} names", nodes.len());
        top.report.error("scopes", &place, what, format!("name 1 to {MAX_SCOPES} clusters"));
        return None;
    }
    let mut scopes = BTreeSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("scopes[{index}]");
        let Some(scope) = read_scope(top.report, &path, node) else { continue };
        if !scopes.insert(scope) {
            top.report.warning(&path, &node.place, "is named twice", "remove one of them");
        }
    }
    Some(scopes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Config, Vec<Warning>), ConfigErrors> {
        Config::from_text("witness.yml", text, &Environment::new())
    }

    #[test]
    fn one_scope_or_several() {
        let raft = "name: w\nraft: {self_addr: '127.0.0.1:7401', data_dir: /tmp/w, partner_addrs: []}\n";
        let (config, warnings) = read(&format!("scope: demo\n{raft}")).expect("valid");
        assert_eq!(config.scopes, ["demo"]);
        assert_eq!(config.name.as_str(), "w");
        assert_eq!(config.self_addr.to_string(), "127.0.0.1:7401");
        assert_eq!(config.raft.data_dir, Path::new("/tmp/w"));
        assert_eq!(config.log, LogSettings::default());
        assert_eq!(warnings, []);
        let (config, _) = read(&format!("scopes: [b, a, b]\n{raft}")).expect("valid");
        assert_eq!(config.scopes, ["a", "b"]);
    }

    #[test]
    fn all_mistakes_at_once() {
        let errors = read("nam: w\nraft:\n  data_dir: 7\n  self_addr: 10.0.0.9\n").expect_err("wrong");
        assert_eq!(
            errors.to_string(),
            "cannot use the configuration witness.yml: 3 mistakes
witness.yml:1:1: scopes: is missing
    add `scopes: [NAME, ...]`: the clusters in which the witness votes
witness.yml:1:1: name: is missing
    add `name: NAME`: this node's name, different on each node of the cluster
witness.yml:1:1: warning: nam: is not a known key and has no effect
    did you mean `name`?
witness.yml:4:14: raft.self_addr: \"10.0.0.9\" is no address: the port is missing
    write 10.0.0.9:PORT"
        );
        let errors = read("scope: a\nscopes: [b]\nname: w\n").expect_err("wrong");
        let keys: Vec<&str> = errors.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["raft.self_addr", "raft.data_dir", "scope"]);
    }

    #[test]
    fn the_environment_overrules_the_file() {
        let environment = [
            ("PATRONI_NAME", "other"),
            ("PGHERD_RAFT_SELF_ADDR", "127.0.0.1:1"),
            ("PATRONI_RAFT_SELF_ADDR", "127.0.0.1:2"),
            ("PATRONI_RESTAPI_LISTEN", "nonsense, but not for a witness"),
        ];
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let text = "scope: demo\nname: w\nraft: {data_dir: /tmp/w}\n";
        let (config, _) = Config::from_text("witness.yml", text, &environment).expect("valid");
        assert_eq!(config.name.as_str(), "other");
        assert_eq!(config.self_addr.port, 1);
    }
}
