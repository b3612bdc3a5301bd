//! `remove`: a stopped node forgets a cluster.
//!
//! There is no store elsewhere: what a cluster has agreed on is on the disks of its members. So its daemons have to be
//! stopped, and the command is run on each node, with the node's configuration. PostgreSQL's data are not touched.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::arguments::RemoveArguments;
use super::client::Client;
use super::cluster::Cluster;
use super::config::Sources;
use super::list::page;
use super::output::Output;
use super::{Failure, cluster};

/// To be typed.
const AWARE: &str = "Yes I am aware";

/// Asks three times, and deletes this node's part.
pub(super) async fn run(
    output: &mut Output,
    sources: &Sources,
    client: &Client,
    options: &RemoveArguments,
) -> Result<(), Failure> {
    let scope = &options.scope;
    let found = cluster::find(sources, client, scope).await.ok();
    if let Some(cluster) = &found {
        output.say(&page(cluster, options.format.into(), false));
    }
    ask(output, scope, found.as_ref())?;
    if let Some(cluster) = found {
        let names: Vec<&str> = cluster.members.iter().map(|member| member.name.as_str()).collect();
        return Err(Failure::because(format!(
            "nothing was removed: {scope} runs, and its members keep what they agreed on themselves. Stop the daemons of {} and \
             the witnesses, then run this command on each of the nodes with the node's configuration (-c FILE)",
            names.join(", ")
        )));
    }
    let store = store(sources, scope)?;
    delete(&store)?;
    output.say(&format!("Removed {}", store.display()));
    Ok(())
}

fn ask(output: &mut Output, scope: &str, found: Option<&Cluster>) -> Result<(), Failure> {
    if output.ask("Please confirm the cluster name to remove", None)? != *scope {
        return Err(Failure::because("Cluster names specified do not match"));
    }
    let question =
        format!("You are about to remove all information in DCS for {scope}, please type: \"{AWARE}\"");
    if output.ask(&question, None)? != AWARE {
        return Err(Failure::because(format!("You did not exactly type \"{AWARE}\"")));
    }
    if let Some(leader) = found.and_then(Cluster::leader) {
        let question = "This cluster currently is healthy. Please specify the leader name to continue";
        if output.ask(question, None)? != leader.name {
            return Err(Failure::because("You did not specify the current leader of the cluster"));
        }
    }
    Ok(())
}

/// This node's part of the agreed state.
fn store(sources: &Sources, scope: &str) -> Result<PathBuf, Failure> {
    let Some(directory) = &sources.store else {
        return Err(Failure::because(
            "nothing was removed: give the configuration of a node or a witness, which names raft.data_dir (-c FILE)",
        ));
    };
    let is_name = !scope.is_empty() && scope != "." && scope != ".." && !scope.contains('/');
    let store = directory.join(scope);
    if is_name && store.join("format").is_file() {
        return Ok(store);
    }
    Err(Failure::because(format!("there is nothing of {scope} in {}", directory.display())))
}

/// Deletes it, unless a daemon uses it.
fn delete(store: &Path) -> Result<(), Failure> {
    let failed =
        |source: std::io::Error| Failure::because(format!("cannot remove {}: {source}", store.display()));
    let name = store.file_name().unwrap_or_default().to_string_lossy();
    let lock = store.with_file_name(format!(".{name}.lock"));
    let held = File::options().write(true).create(true).truncate(false).open(&lock).map_err(failed)?;
    if held.try_lock().is_err() {
        return Err(Failure::because(format!(
            "{} is in use: stop the daemon of this node first",
            store.display()
        )));
    }
    // A name that no daemon opens: what is half deleted must not be taken for a store.
    let doomed = store.with_file_name(format!(".{name}.removed"));
    std::fs::rename(store, &doomed).map_err(failed)?;
    std::fs::remove_dir_all(&doomed).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unused_store_is_deleted() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut sources = Sources::default();
        sources.store = Some(directory.path().to_owned());
        assert!(store(&sources, "demo").is_err());
        let path = directory.path().join("demo");
        std::fs::create_dir(&path).expect("made");
        std::fs::write(path.join("format"), "1").expect("written");
        assert!(store(&sources, "demo/../demo").is_err());
        let path = store(&sources, "demo").expect("a store");
        let lock = File::create(directory.path().join(".demo.lock")).expect("a lock");
        lock.lock().expect("taken");
        assert!(delete(&path).is_err() && path.is_dir());
        lock.unlock().expect("free");
        assert!(delete(&path).is_ok() && !path.exists());
    }
}
