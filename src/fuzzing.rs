//! What must hold for every input: the bodies of the fuzz targets in `fuzz/`, and a short run of them with `cargo test`.
//!
//! Each takes bytes and panics when a promise is broken. Compiled for tests and for `cargo fuzz` only.

use pgherd_raft::config::Environment;
use pgherd_raft::model::Lsn;

use crate::config::{self, Config};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets by name: `fuzz/fuzz_targets/NAME.rs` and `fuzz/corpus/NAME/`.
pub const TARGETS: [(&str, Target); 9] = [
    ("config", config),
    ("settings", settings),
    ("http", crate::api::fuzzing::http),
    ("control_data", crate::postgres::fuzzing::control_data),
    ("history", crate::postgres::fuzzing::history),
    ("lsn", lsn),
    ("conninfo", crate::postgres::fuzzing::conninfo),
    ("conf_value", crate::postgres::fuzzing::conf_value),
    ("pg_hba", crate::postgres::fuzzing::pg_hba),
];

/// Runs the target of this name.
///
/// # Panics
/// There is none, or a promise is broken.
pub fn run(name: &str, data: &[u8]) {
    match TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, target)) => target(data),
        None => panic!("no target {name}"),
    }
}

/// A password that no message may show.
const SECRET: &str = "Hush-4711";

/// A node's file: it is read or refused with places; its messages show no password.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let passwords: Environment = ["SUPERUSER", "REPLICATION", "RAFT", "RESTAPI"]
        .iter()
        .map(|user| (format!("PATRONI_{user}_PASSWORD"), SECRET.to_owned()))
        .collect();
    let said = match Config::from_text("fuzz.yml", &text, &passwords) {
        Ok((config, warnings)) => format!("{config:?} {warnings:?}"),
        Err(errors) => {
            assert!(!errors.problems.is_empty(), "refused without a reason");
            format!("{errors} {errors:?}")
        }
    };
    assert!(!said.contains(SECRET) || text.contains(SECRET), "a password is shown");
}

/// The cluster's settings: whatever is stored is read in the same way by every member, with values within their limits.
pub fn settings(data: &[u8]) {
    let Ok(document) = serde_json::from_slice(data) else { return };
    let (read, problems) = config::parse(&document);
    let (again, same) = config::parse(&document);
    assert_eq!((format!("{read:?}"), format!("{problems:?}")), (format!("{again:?}"), format!("{same:?}")));
    assert!(!read.ttl.is_zero() && !read.loop_wait.is_zero());
}

/// A position prints as what it was read from.
pub fn lsn(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
        assert!(text.len() <= 17, "{text:?}");
    }
    if let Some(bytes) = data.first_chunk() {
        let lsn = Lsn(u64::from_le_bytes(*bytes));
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Of each input of the corpus.
    const MUTATIONS: u64 = 150;
    /// The most bytes of a mutated input.
    const MAX_INPUT: usize = 8 * 1024;

    /// A simple generator: the same inputs in each run.
    struct Random(u64);

    impl Random {
        fn next(&mut self, below: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 16).expect("64 bits") % below.max(1)
        }
    }

    /// Words of the languages that are read: single bytes alone find few of them.
    const WORDS: [&str; 24] = [
        "\0", "\n", "'", "\"", "\\", ":", "{", "}", "[", "]", "- ", "  ", "&a", "*a", "<<: ", "null", "-1",
        "9e999", "0x", "%00", "..", "\u{85}", "é", "=",
    ];

    fn mutate(input: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        let mut data = input.to_vec();
        for _ in 0..=random.next(4) {
            let at = random.next(data.len() + 1);
            let end = (at + random.next(16)).min(data.len());
            match random.next(6) {
                0 => drop(data.drain(at..end)),
                1 => drop(data.splice(at..at, WORDS[random.next(WORDS.len())].bytes())),
                2 if at < data.len() => data[at] = u8::try_from(random.next(256)).expect("a byte"),
                3 => {
                    let copy = data[at..end].to_vec();
                    let to = random.next(data.len() + 1);
                    drop(data.splice(to..to, copy));
                }
                4 if at < data.len() => data[at] ^= 1 << random.next(8),
                _ => {
                    let other = &others[random.next(others.len())];
                    let from = random.next(other.len() + 1);
                    let piece = other[from..(from + random.next(64)).min(other.len())].to_vec();
                    drop(data.splice(at..end, piece));
                }
            }
        }
        data.truncate(MAX_INPUT);
        data
    }

    #[test]
    fn every_target_keeps_its_promises_over_its_corpus_and_near_it() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let mut files: Vec<_> = std::fs::read_dir(corpus.join(name))
                .unwrap_or_else(|error| panic!("no corpus of {name}: {error}"))
                .map(|entry| entry.expect("readable").path())
                .collect();
            files.sort();
            let inputs: Vec<Vec<u8>> =
                files.iter().map(|file| std::fs::read(file).expect("readable")).collect();
            assert!(!inputs.is_empty(), "the corpus of {name} is empty");
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            for input in &inputs {
                let mut data = input.clone();
                for turn in 0..MUTATIONS {
                    let shown = Shown { name, data: &data };
                    target(&data);
                    drop(shown);
                    // Every other one goes on from what the last one has become.
                    let from = if turn % 2 == 0 { input } else { &data.clone() };
                    data = mutate(from, &inputs, &mut random);
                }
            }
        }
    }

    /// Tells the input when the target panics.
    struct Shown<'a> {
        name: &'a str,
        data: &'a [u8],
    }

    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("target {} broke a promise at {:?}", self.name, String::from_utf8_lossy(self.data));
            }
        }
    }
}
