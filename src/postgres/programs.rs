//! Where PostgreSQL's programs are.
//!
//! All come from one directory: programs of two major versions never work on one data directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The programs without which nothing works.
const NEEDED: [&str; 5] = ["postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"];
/// Where Debian's packages put a directory per major version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The major versions which are known to work.
const OLDEST: u32 = 13;

/// PostgreSQL's programs were not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramsError {
    /// No directory has all of them.
    #[error(
        "PostgreSQL's program {missing:?} was not found; looked in {looked}. Install the server package \
         (Debian: apt-get install postgresql) or set postgresql.bin_dir"
    )]
    Missing {
        /// The first one that is missing.
        missing: String,
        /// The directories.
        looked: String,
    },
    /// They are of a version which is too old.
    #[error("{directory} has PostgreSQL {major}; pgherd needs {OLDEST} or later. Set postgresql.bin_dir")]
    TooOld {
        /// Where.
        directory: PathBuf,
        /// Which.
        major: u32,
    },
    /// The version cannot be told.
    #[error("cannot tell the version of {0}: its answer to --version is not understood")]
    Version(PathBuf),
}

/// The directory of the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    directory: PathBuf,
    names: BTreeMap<String, String>,
}

impl Programs {
    /// The full path of a program.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.directory.join(name_of(program, &self.names))
    }

    /// Finds them: `bin_dir` alone when it is set; else the directory of that Debian version which the data directory
    /// needs, the first directory of PATH, the newest of Debian's.
    pub(super) fn find(
        bin_dir: Option<&Path>,
        names: &BTreeMap<String, String>,
        search_path: &str,
        data_major: Option<u32>,
    ) -> Result<Self, ProgramsError> {
        let candidates = match bin_dir {
            Some(directory) => vec![directory.to_owned()],
            None => candidates(search_path, name_of("postgres", names), Path::new(DEBIAN), data_major),
        };
        let mut nearest: Option<&str> = None;
        for directory in &candidates {
            match missing_in(directory, names) {
                None => return Ok(Self { directory: directory.clone(), names: names.clone() }),
                Some(missing) => {
                    // A directory which has the server but lacks another program is the better hint.
                    let is_better = nearest.is_none_or(|known| known == "postgres");
                    nearest = if is_better { Some(missing) } else { nearest };
                }
            }
        }
        let looked = if candidates.is_empty() {
            format!("PATH ({search_path}) and {DEBIAN}/*/bin")
        } else {
            candidates.iter().map(|c| c.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        Err(ProgramsError::Missing { missing: nearest.unwrap_or("postgres").to_owned(), looked })
    }
}

/// The major version in what `postgres --version` prints.
pub(super) fn parse_version(printed: &str, directory: &Path) -> Result<u32, ProgramsError> {
    let digits: String = printed
        .split_once("(PostgreSQL) ")
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect())
        .unwrap_or_default();
    let major = digits.parse().map_err(|_| ProgramsError::Version(directory.join("postgres")))?;
    if major < OLDEST {
        return Err(ProgramsError::TooOld { directory: directory.to_owned(), major });
    }
    Ok(major)
}

fn candidates(search_path: &str, server: &str, debian: &Path, data_major: Option<u32>) -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir(debian)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    let debian_bin = |major: u32| debian.join(major.to_string()).join("bin");
    // A link in PATH leads to the directory which has the rest: /usr/bin often has a few of the programs only.
    let in_path = search_path
        .split(':')
        .filter(|directory| !directory.is_empty())
        .filter_map(|directory| Path::new(directory).join(server).canonicalize().ok())
        .filter_map(|server| server.parent().map(Path::to_owned));
    let mut found: Vec<PathBuf> =
        data_major.filter(|major| versions.contains(major)).map(debian_bin).into_iter().collect();
    found.extend(in_path);
    found.extend(versions.iter().map(|major| debian_bin(*major)));
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|directory| seen.insert(directory.clone()));
    found
}

fn missing_in(directory: &Path, names: &BTreeMap<String, String>) -> Option<&'static str> {
    NEEDED.into_iter().find(|program| !directory.join(name_of(program, names)).is_file())
}

fn name_of<'a>(program: &'a str, names: &'a BTreeMap<String, String>) -> &'a str {
    names.get(program).map_or(program, String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(directory: &Path, programs: &[&str]) {
        std::fs::create_dir_all(directory).expect("directory");
        for program in programs {
            std::fs::write(directory.join(program), "").expect("program");
        }
    }

    #[test]
    fn a_missing_program_is_named_with_the_place_and_the_cure() {
        let root = tempfile::tempdir().expect("directory");
        install(root.path(), &["postgres", "initdb", "pg_controldata", "pg_rewind"]);
        let error = Programs::find(Some(root.path()), &BTreeMap::new(), "", None)
            .expect_err("incomplete")
            .to_string();
        assert!(error.contains("\"pg_basebackup\" was not found"), "{error}");
        assert!(error.contains(&root.path().display().to_string()), "{error}");
        assert!(error.contains("postgresql.bin_dir"), "{error}");
    }

    #[test]
    fn programs_may_have_other_names() {
        let root = tempfile::tempdir().expect("directory");
        install(root.path(), &["postgres-15", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"]);
        let names = [("postgres".to_owned(), "postgres-15".to_owned())].into();
        let found = Programs::find(Some(root.path()), &names, "", None).expect("found");
        assert_eq!(found.path("postgres"), root.path().join("postgres-15"));
        assert_eq!(found.path("initdb"), root.path().join("initdb"));
    }

    #[test]
    fn a_link_in_path_leads_to_the_directory_with_the_rest() {
        let root = tempfile::tempdir().expect("directory");
        let (real, links) = (root.path().join("15/bin"), root.path().join("links"));
        install(&real, &NEEDED);
        install(&links, &[]);
        std::os::unix::fs::symlink(real.join("postgres"), links.join("postgres")).expect("link");
        let found =
            Programs::find(None, &BTreeMap::new(), &links.display().to_string(), None).expect("found");
        assert_eq!(found.path("initdb"), real.canonicalize().expect("real").join("initdb"));
    }

    #[test]
    fn the_version_of_the_data_directory_comes_first_then_path_then_the_newest() {
        let root = tempfile::tempdir().expect("directory");
        let (debian, other) = (root.path().join("debian"), root.path().join("other"));
        for version in ["9", "15", "17", "common"] {
            install(&debian.join(version).join("bin"), &NEEDED);
        }
        install(&other, &NEEDED);
        let bin = |version: &str| debian.join(version).join("bin");
        let other = other.canonicalize().expect("real");
        let path = other.display().to_string();
        assert_eq!(
            candidates(&path, "postgres", &debian, Some(15)),
            [bin("15"), other.clone(), bin("17"), bin("9")]
        );
        assert_eq!(candidates(&path, "postgres", &debian, Some(16)), [other, bin("17"), bin("15"), bin("9")]);
        assert_eq!(candidates("", "postgres", &debian, None), [bin("17"), bin("15"), bin("9")]);
    }

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        let version = |text: &str| parse_version(text, Path::new("/x"));
        assert_eq!(version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Ok(15));
        assert_eq!(version("postgres (PostgreSQL) 18beta1\n"), Ok(18));
        assert!(matches!(version("postgres (PostgreSQL) 12.1"), Err(ProgramsError::TooOld { .. })));
        assert!(matches!(version("?"), Err(ProgramsError::Version(_))));
    }
}
