//! Where a node's configuration comes from, remembered so that it can be read again.
//!
//! Promises: the environment is read once, when the daemon starts; what is read again is laid under the same variables.

use std::path::{Path, PathBuf};

use pgherd_raft::config::{
    ConfigErrors, Environment, Problem, Report, Severity, Warning, is_configuration_variable,
};
use pgherd_raft::yaml::{Node, Place};

use super::types::Config;
use super::{environment, validate};

/// Variables which hold a whole configuration, the first one that is set counts.
const WHOLE: [&str; 2] = ["PGHERD_CONFIGURATION", "PATRONI_CONFIGURATION"];

/// The place of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    origin: Origin,
    environment: Environment,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A file, or a directory of them.
    Path(PathBuf),
    /// A variable which holds the whole text; no other one counts beside it.
    Variable(&'static str),
    /// The variables alone. The path which was given, if any, does not exist.
    Variables(Option<PathBuf>),
}

impl Source {
    /// As Patroni finds it: the file or directory; if there is none, a variable with the whole text; else the variables
    /// alone.
    pub fn new(path: Option<&Path>, environment: Environment) -> Self {
        let is_set = |name: &&str| environment.get(*name).is_some_and(|text| !text.is_empty());
        let origin = match (path.filter(|path| path.exists()), WHOLE.into_iter().find(is_set)) {
            (Some(path), _) => Origin::Path(path.to_owned()),
            (None, Some(name)) => Origin::Variable(name),
            (None, None) => Origin::Variables(path.map(Path::to_owned)),
        };
        Self { origin, environment }
    }

    /// The file, if there is one: for messages.
    pub fn path(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Path(path) => Some(path),
            Origin::Variable(_) | Origin::Variables(_) => None,
        }
    }

    /// Reads it, for the first time or again.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn read(&self) -> Result<(Config, Vec<Warning>), ConfigErrors> {
        match &self.origin {
            Origin::Path(path) => Config::load(path, &self.environment),
            Origin::Variable(name) => {
                let text = self.environment.get(*name).map(String::as_str).unwrap_or_default();
                let others = self.environment.iter().filter(|(name, _)| !is_configuration_variable(name));
                let others = others.map(|(name, value)| (name.clone(), value.clone())).collect();
                Config::from_text(name, text, &others)
            }
            Origin::Variables(path) => self.read_variables(path.as_deref()),
        }
    }

    /// What was written, with the environment laid over it: for people. Its passwords are in it.
    ///
    /// # Errors
    /// It is no YAML.
    pub fn tree(&self) -> Result<Node, ConfigErrors> {
        let name = match &self.origin {
            Origin::Path(path) => path.display().to_string(),
            Origin::Variable(name) => (*name).to_owned(),
            Origin::Variables(_) => "the environment".to_owned(),
        };
        let variables = environment::variables();
        let whole = |root: &Node, _: &Report| Some(root.clone());
        let none = Environment::new();
        let (text, environment) = match &self.origin {
            Origin::Path(path) if path.is_dir() => {
                let read = pgherd_raft::config::from_directory(path, &self.environment, &variables, whole)?;
                return Ok(read.0);
            }
            Origin::Path(path) => (pgherd_raft::config::read_file(path)?, &self.environment),
            Origin::Variable(name) => (self.environment.get(*name).cloned().unwrap_or_default(), &none),
            Origin::Variables(_) => (String::new(), &self.environment),
        };
        super::tree(&name, &text, environment)
    }

    fn read_variables(&self, path: Option<&Path>) -> Result<(Config, Vec<Warning>), ConfigErrors> {
        let missing = path.map(|path| {
            let file = path.display().to_string();
            Problem {
                severity: Severity::Error,
                key: String::new(),
                place: Place::named(&file),
                what: "does not exist, and the environment alone is no complete configuration".to_owned(),
                cure: "check the path".to_owned(),
            }
        });
        let is_empty = !self.environment.keys().any(|name| is_configuration_variable(name));
        if is_empty {
            // Without any variable the missing file is the whole story.
            if let Some(path) = path {
                return Config::load(path, &self.environment);
            }
            let problem = Problem {
                severity: Severity::Error,
                key: String::new(),
                place: Place::named("the environment"),
                what: "Config is empty.".to_owned(),
                cure: "name a file: pgherd CONFIG.yml".to_owned(),
            };
            return Err(ConfigErrors { file: "the environment".to_owned(), problems: vec![problem] });
        }
        Config::from_text("the environment", "", &self.environment).map_err(|mut errors| {
            errors.problems.splice(0..0, missing);
            errors
        })
    }
}

impl Config {
    /// Reads a file, or the files of a directory, and lays the environment over it.
    ///
    /// # Errors
    /// All mistakes of both at once.
    pub fn load(path: &Path, environment: &Environment) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        if path.is_dir() {
            let variables = environment::variables();
            return pgherd_raft::config::from_directory(path, environment, &variables, |root, report| {
                validate::config(root, environment, report)
            });
        }
        let text = pgherd_raft::config::read_file(path)?;
        Self::from_text(&path.display().to_string(), &text, environment)
    }

    /// The same for a text; `file` names it in messages.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_text(
        file: &str,
        text: &str,
        environment: &Environment,
    ) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let variables = environment::variables();
        pgherd_raft::config::from_text(file, text, environment, &variables, |root, report| {
            validate::config(root, environment, report)
        })
    }

    /// This configuration as far as it can take effect in a daemon which runs with another one, and the keys which wait
    /// for the daemon's next start.
    pub fn while_running(mut self, running: &Self) -> (Self, Vec<&'static str>) {
        let mut waiting = Vec::new();
        let mut keep = |key: &'static str, differs: bool| {
            if differs {
                waiting.push(key);
            }
        };
        keep("scope", self.scope != running.scope);
        keep("namespace", self.namespace != running.namespace);
        keep("name", self.name != running.name);
        keep("raft", self.raft != running.raft);
        keep("postgresql.data_dir", self.postgresql.data_dir != running.postgresql.data_dir);
        keep("postgresql.config_dir", self.postgresql.config_dir != running.postgresql.config_dir);
        self.scope.clone_from(&running.scope);
        self.namespace.clone_from(&running.namespace);
        self.name.clone_from(&running.name);
        self.raft.clone_from(&running.raft);
        self.postgresql.data_dir.clone_from(&running.postgresql.data_dir);
        self.postgresql.config_dir.clone_from(&running.postgresql.config_dir);
        (self, waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "scope: demo\nname: pg-1\nraft: {self_addr: '127.0.0.1:2222'}\npostgresql:\n  listen: 127.0.0.1:5432\n  \
                        data_dir: /srv/pg\n  authentication: {replication: {username: replicator}}\n";

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refusal(source: &Source) -> String {
        source.read().expect_err("refused").to_string()
    }

    #[test]
    fn a_directory_is_read_in_the_order_of_names() {
        let directory = tempfile::tempdir().expect("directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("file");
        write("10-node.yml", NODE);
        write("20-tags.yaml", "tags: {nofailover: true, zone: a}\nname: pg-2\n");
        write("30-last.yml", "tags: {nofailover: null}\n");
        write("99-other.txt", "scope: wrong\n");
        let source = Source::new(Some(directory.path()), Environment::new());
        let (config, warnings) = source.read().expect("good");
        assert_eq!(warnings, []);
        assert_eq!(config.name.as_str(), "pg-2");
        assert_eq!(config.tags.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["zone"]);
        write("40-bad.yml", "watchdog:\n  mode: perhaps\n");
        assert!(
            refusal(&source).contains("40-bad.yml:2:9: watchdog.mode: \"perhaps\""),
            "{}",
            refusal(&source)
        );
        write("40-bad.yml", "- a list\n");
        assert!(refusal(&source).contains("a list stands where a map is needed"));
    }

    #[test]
    fn without_a_file_the_environment_counts() {
        let directory = tempfile::tempdir().expect("directory");
        let missing = directory.path().join("none.yml");
        let whole = environment(&[("PATRONI_CONFIGURATION", NODE), ("PATRONI_NAME", "ignored")]);
        let (config, _) = Source::new(Some(&missing), whole.clone()).read().expect("good");
        assert_eq!(config.name.as_str(), "pg-1");
        assert_eq!(Source::new(None, whole).read().expect("good").0, config);
        let some = Source::new(Some(&missing), environment(&[("PATRONI_NAME", "pg-3")]));
        assert!(refusal(&some).contains("none.yml: does not exist"), "{}", refusal(&some));
        assert!(refusal(&some).contains("scope: is missing"));
        assert!(refusal(&Source::new(None, Environment::new())).contains("Config is empty."));
        assert!(refusal(&Source::new(Some(&missing), Environment::new())).contains("No such file"));
    }

    #[test]
    fn some_keys_wait_for_the_daemon_s_next_start() {
        let read = |text: &str| Config::from_text("node.yml", text, &Environment::new()).expect("good").0;
        let running = read(NODE);
        let changed =
            read(&NODE.replace("scope: demo", "scope: other\ntags: {zone: b}").replace("2222", "2223"));
        let (taken, waiting) = changed.while_running(&running);
        assert_eq!(waiting, ["scope", "raft"]);
        assert_eq!((taken.scope.as_str(), taken.tags.0.len()), ("demo", 1));
        assert_eq!(read(&format!("# a comment\n{NODE}")).while_running(&running), (running.clone(), vec![]));
    }
}
