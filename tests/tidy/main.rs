//! The house rules which no compiler checks, as tests: layers, forbidden words, clocks, sizes, rules covered.
//!
//! Everything here is read from the source text. Each finding names the file, the line, and what to do.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test program: a panic is how it fails"
)]

mod layers;
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use source::{Source, product_sources};

/// Lines of a file without its tests.
const FILE_LINES: usize = 500;
/// Lines of a function from `fn` to its closing brace, without blank ones and comments.
const FUNCTION_LINES: usize = 80;

pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Fails with all findings at once.
fn report(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn arrows_between_layers_only_point_down() {
    let mut findings = Vec::new();
    for source in product_sources() {
        for (line, path) in source.imports() {
            if let Some(reason) = layers::violation(&source.path, &path) {
                findings.push(format!("{}:{line}: `{}`: {reason}", source.path, path.join("::")));
            }
        }
    }
    report(&findings);
}

#[test]
fn pure_layers_stay_pure() {
    // `for x in &hash_map` and `elapsed()` pass clippy's list, so the words themselves are not used.
    const FORBIDDEN: &[&str] = &[
        "HashMap",
        "HashSet",
        "Instant",
        "SystemTime",
        "elapsed",
        "async",
        "await",
        "tokio",
        "tracing",
        "rand",
        "println",
        "eprintln",
        "File",
        "TcpStream",
        "UdpSocket",
        "Mutex",
        "RwLock",
        "thread_local",
        "unsafe",
    ];
    const FORBIDDEN_MODULES: &[&str] = &["fs", "net", "env", "process", "thread", "io"];
    let mut findings = Vec::new();
    for source in product_sources().iter().filter(|source| layers::is_pure(&source.path)) {
        for (number, line) in source.product_lines() {
            for word in words(line) {
                if FORBIDDEN.contains(&word) {
                    findings.push(format!(
                        "{}:{number}: `{word}` in a pure layer: take it as a value",
                        source.path
                    ));
                }
            }
        }
        for (line, path) in source.imports() {
            if path.first().is_some_and(|root| root == "std")
                && path.get(1).is_some_and(|module| FORBIDDEN_MODULES.contains(&module.as_str()))
            {
                findings.push(format!("{}:{line}: `{}` in a pure layer", source.path, path.join("::")));
            }
        }
    }
    report(&findings);
}

#[test]
fn only_clock_files_read_a_clock() {
    const CLOCKS: &[&str] =
        &["Instant", "SystemTime::now", "elapsed", "clock_gettime", "Zoned::now", "Timestamp::now"];
    let mut findings = Vec::new();
    for source in product_sources().iter().filter(|source| !source.path.ends_with("clock.rs")) {
        // The runtime's timers are set by its own Instant; clippy forbids the other one.
        let has_timers = source.imports().iter().any(|(_, path)| path.join("::") == "tokio::time::Instant");
        for (number, line) in source.product_lines() {
            for clock in CLOCKS.iter().filter(|clock| !has_timers || !["Instant", "elapsed"].contains(clock))
            {
                let word = clock.split("::").next().unwrap_or(clock);
                if line.contains(clock) && words(line).any(|found| found == word) {
                    findings.push(format!("{}:{number}: `{clock}`: ask the clock module", source.path));
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn unsafe_code_is_in_the_guard_only() {
    let mut findings = Vec::new();
    for source in product_sources().iter().filter(|source| !source.path.starts_with("src/guard")) {
        for (number, line) in source.product_lines() {
            if words(line).any(|word| word == "unsafe") {
                findings.push(format!("{}:{number}: unsafe code belongs into src/guard", source.path));
            }
        }
    }
    report(&findings);
}

#[test]
fn every_file_begins_with_its_module_doc() {
    let findings: Vec<String> = product_sources()
        .iter()
        .filter(|source| !source.raw.starts_with("//!"))
        .map(|source| format!("{}: begin with `//!`: what it owns, promises, must never do", source.path))
        .collect();
    report(&findings);
}

#[test]
fn files_and_functions_stay_small() {
    let mut findings = Vec::new();
    for source in product_sources() {
        let lines = source.product_lines().count();
        if lines > FILE_LINES {
            findings.push(format!("{}: {lines} lines without tests, {FILE_LINES} are enough", source.path));
        }
        for (line, name, length) in source.functions() {
            if length > FUNCTION_LINES {
                findings.push(format!(
                    "{}:{line}: `{name}` has {length} lines, {FUNCTION_LINES} are enough",
                    source.path
                ));
            }
        }
    }
    report(&findings);
}

#[test]
fn names_of_files_say_what_they_are_about() {
    const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "manager", "misc"];
    let findings: Vec<String> = product_sources()
        .iter()
        .filter(|source| {
            Path::new(&source.path)
                .iter()
                .filter_map(|part| part.to_str())
                .any(|part| EMPTY_NAMES.contains(&part.trim_end_matches(".rs")))
        })
        .map(|source| format!("{}: name it after its subject", source.path))
        .collect();
    report(&findings);
}

#[test]
fn banned_words_stay_out() {
    // Unfinished work belongs into the tracker; the other words have a better one (primary, standby).
    const BANNED: &[&str] = &["todo", "fixme", "xxx", "hack", "slave"];
    let mut findings = Vec::new();
    for source in product_sources() {
        for (number, line) in source.raw.lines().enumerate() {
            for word in words(line) {
                if BANNED.contains(&word.to_lowercase().as_str()) {
                    findings.push(format!("{}:{}: the word `{word}`", source.path, number + 1));
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn every_rule_is_fired_by_a_golden_script() {
    let root = repository();
    let text = std::fs::read_to_string(root.join("src/ha/rule.rs")).expect("the rules");
    let rules = Source::new("src/ha/rule.rs", &text).variants("Rule");
    assert!(!rules.is_empty(), "no `enum Rule` with variants in src/ha/rule.rs");
    let mut scripts = String::new();
    source::visit(&root.join("src/ha/testscripts"), &mut |path| {
        let text = std::fs::read_to_string(path).expect("a golden script");
        // Only what `decide` printed counts, not what a script says about itself.
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            scripts.push_str(line);
            scripts.push('\n');
        }
    });
    let fired: std::collections::BTreeSet<&str> = words(&scripts).collect();
    let findings: Vec<String> = rules
        .iter()
        .filter(|rule| !fired.contains(rule.as_str()))
        .map(|rule| format!("rule {rule} is fired by no script below src/ha/testscripts"))
        .collect();
    report(&findings);
}

#[test]
fn the_witness_knows_no_postgresql() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-p", "pgherd-witness", "-e", "normal", "--prefix", "none"])
        .current_dir(repository())
        .output()
        .expect("cargo tree starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.contains("pgherd-raft "), "an unexpected tree:\n{tree}");
    let findings: Vec<String> = tree
        .lines()
        .filter(|line| {
            matches!(line.split(' ').next(), Some("pgherd" | "tokio-postgres" | "postgres-protocol"))
        })
        .map(|line| format!("pgherd-witness depends on {line}"))
        .collect();
    report(&findings);
}

/// The identifiers of a line.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}
