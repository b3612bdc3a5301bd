//! Which layer may import what: the picture in `src/lib.rs`, as a table.

/// What a module of the root package must not import from its own crate.
const NOT_FROM_CRATE: &[(&str, &[&str])] = &[
    ("postgres", &["guard", "agent", "api", "cli", "web", "daemon", "config"]),
    ("guard", &["postgres", "agent", "api", "cli", "web", "daemon", "config"]),
    ("config", &["postgres", "guard", "agent", "api", "cli", "web", "daemon"]),
    ("agent", &["api", "cli", "web", "daemon"]),
    // They write intents and read the published view; only the agent acts.
    ("api", &["postgres", "guard", "cli", "daemon"]),
    // It runs an operator's own SQL.
    ("cli", &["guard", "agent", "daemon"]),
    ("telemetry", &["ha", "postgres", "guard", "agent", "api", "cli", "daemon"]),
    ("shutdown", &["ha", "postgres", "guard", "agent", "api", "cli", "daemon"]),
    ("metrics", &["postgres", "guard", "cli", "daemon"]),
    ("tls", &["ha", "postgres", "guard", "agent", "api", "cli", "daemon"]),
    ("http_client", &["ha", "postgres", "guard", "agent", "api", "cli", "daemon"]),
];

/// Crates that only some directories may name: (crate, directories, reason).
const CRATES: &[(&str, &[&str], &str)] = &[
    ("sled", &["storage/"], "only storage knows sled"),
    ("openraft", &["storage/", "raft/"], "no openraft type leaves the raft crate"),
    ("tonic", &["raft/"], "only the raft crate speaks to peers"),
    ("tonic_prost", &["raft/"], "only the raft crate speaks to peers"),
    ("pgherd_storage", &["storage/", "raft/"], "the store is the raft crate's business"),
    ("pgherd_raft", &["raft/", "witness/", "src/"], "storage knows nothing of pgherd"),
    ("pgherd", &["src/"], "arrows point down"),
    ("tokio_postgres", &["src/postgres/"], "only src/postgres talks to PostgreSQL"),
    ("rustls", &["raft/", "src/tls/"], "who is believed is decided in one place"),
    ("tokio_rustls", &["raft/", "src/tls/"], "who is believed is decided in one place"),
    ("axum", &["src/api/", "src/web/", "src/daemon"], "only the API serves HTTP"),
];

/// Is this file in a layer without I/O, clock and async?
pub(crate) fn is_pure(file: &str) -> bool {
    ["src/ha/", "raft/src/model/", "raft/src/lease/", "raft/src/founding/", "raft/src/membership.rs"]
        .iter()
        .any(|layer| file.starts_with(layer))
}

/// Why this file must not import this path; none: it may.
pub(crate) fn violation(file: &str, path: &[String]) -> Option<String> {
    let root = path.first()?.as_str();
    if is_pure(file) {
        return pure_violation(file, path);
    }
    if let Some((_, homes, reason)) = CRATES.iter().find(|(name, _, _)| *name == root)
        && !homes.iter().any(|home| file.starts_with(home))
    {
        return Some((*reason).to_owned());
    }
    if root != "crate" || !file.starts_with("src/") {
        return None;
    }
    let module = file.trim_start_matches("src/").split(['/', '.']).next()?;
    let target = path.get(1)?.as_str();
    let (_, denied) = NOT_FROM_CRATE.iter().find(|(name, _)| *name == module)?;
    denied.contains(&target).then(|| format!("{module} is below {target}, or beside it"))
}

fn pure_violation(file: &str, path: &[String]) -> Option<String> {
    let part = |index: usize| path.get(index).map_or("", String::as_str);
    let allowed = match (file.starts_with("src/ha/"), part(0)) {
        (_, "std" | "core" | "serde" | "serde_json" | "thiserror" | "Self") => true,
        (true, "crate") => part(1) == "ha",
        (true, "pgherd_raft") => matches!(part(1), "model" | "lease" | "membership"),
        (false, "crate") => match part(1) {
            "model" => true,
            "lease" => !file.starts_with("raft/src/model/"),
            "founding" => file.starts_with("raft/src/founding/"),
            _ => false,
        },
        // A path which begins with a type or an own module is no import of another crate.
        (_, other) => !KNOWN_CRATES.contains(&other),
    };
    (!allowed).then(|| "a pure layer imports std, serde and the pure layers below it".to_owned())
}

const KNOWN_CRATES: &[&str] = &[
    "anyhow",
    "axum",
    "bytes",
    "futures_util",
    "hyper",
    "hyper_util",
    "jiff",
    "openraft",
    "pgherd",
    "pgherd_raft",
    "pgherd_storage",
    "prost",
    "rustix",
    "sled",
    "tokio",
    "tokio_postgres",
    "tokio_util",
    "tonic",
    "tracing",
];
