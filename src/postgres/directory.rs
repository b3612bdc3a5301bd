//! The data directory as a whole: emptied, put aside, filled anew.
//!
//! What is not known to be pgherd's own incomplete work is put aside by renaming, never deleted. A data directory which
//! is a mount point cannot be renamed: then its content is moved into a directory inside it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::PgError;
use super::files;
use super::layout::{Layout, Marker, is_own_name};

/// Tablespaces which were put aside have this in their name.
const LINKED: &str = ".pgherd-before-clone.";
/// More names than this are not tried for one.
const MOST_LINKED: u32 = 100;
/// PostgreSQL starts only when nobody else may read the data directory.
const PRIVATE: u32 = 0o700;

/// Makes the data directory ready to be filled by a program which wants an empty directory; the directory to fill.
pub(super) fn prepare(layout: &Layout) -> Result<PathBuf, PgError> {
    let data_dir = &layout.data_dir;
    create(data_dir)?;
    fs::set_permissions(data_dir, fs::Permissions::from_mode(PRIVATE))
        .map_err(PgError::file("set the mode of", data_dir))?;
    if entries(data_dir)?.is_empty() {
        return Ok(data_dir.clone());
    }
    let staging = layout.staging();
    remove_tree(&staging)?;
    create(&staging)?;
    Ok(staging)
}

/// Moves what was filled to where it belongs.
pub(super) fn settle(layout: &Layout, filled: &Path) -> Result<(), PgError> {
    if filled != layout.data_dir {
        move_content(filled, &layout.data_dir, |_| true)?;
        fs::remove_dir(filled).map_err(PgError::file("remove", filled))?;
    }
    Ok(())
}

/// Empties a data directory whose marker says that this daemon was filling it.
pub(super) fn empty(layout: &Layout) -> Result<(), PgError> {
    match layout.marker()? {
        Some(Marker::Filling(_) | Marker::Copied) => {}
        Some(Marker::PuttingAside(_)) => return put_aside(layout),
        Some(Marker::Rewinding) | None => {
            return Err(PgError::Refused(format!(
                "{} is not emptied: it is not an unfinished copy",
                layout.data_dir.display()
            )));
        }
    }
    // What was a copy is from here on less than a copy.
    layout.mark(&Marker::Filling("removal".to_owned()))?;
    empty_linked(&layout.data_dir)?;
    for path in entries(&layout.data_dir)? {
        let is_kept = layout.asides().contains(&path);
        let is_foreign = path.file_name().is_some_and(|name| name == "lost+found");
        if !is_kept && !is_foreign {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Puts the content of the data directory aside. Repeating it goes on where it was interrupted.
pub(super) fn put_aside(layout: &Layout) -> Result<(), PgError> {
    if let Some(Marker::PuttingAside(name)) = layout.marker()? {
        return move_inside(layout, &layout.in_data(&name));
    }
    put_linked_aside(&layout.data_dir)?;
    let aside = room_aside(layout, Layout::next_aside)?;
    match fs::rename(&layout.data_dir, &aside) {
        Ok(()) => files::sync_parent(&layout.data_dir).map_err(PgError::file("put aside", &layout.data_dir)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // A mount point, or a parent directory which belongs to somebody else.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ResourceBusy | ErrorKind::CrossesDevices | ErrorKind::PermissionDenied
            ) =>
        {
            let aside = room_aside(layout, Layout::next_aside_inside)?;
            let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
            layout.mark(&Marker::PuttingAside(name))?;
            move_inside(layout, &aside)
        }
        Err(error) => Err(PgError::file("put aside", &layout.data_dir)(error)),
    }
}

/// Gives what was put aside up: renamed at once, to be removed by [`remove_discarded`].
pub(super) fn discard_asides(layout: &Layout) -> Result<(), PgError> {
    layout.asides().iter().try_for_each(|aside| files::rename(aside, &layout.next_discarded(aside)))
}

/// Removes what was given up.
pub(super) fn remove_discarded(layout: &Layout) -> Result<(), PgError> {
    layout.discarded().iter().try_for_each(|path| remove_aside(path))
}

/// A free place; when there is none, the oldest data makes room.
fn room_aside(layout: &Layout, next: impl Fn(&Layout) -> PathBuf) -> Result<PathBuf, PgError> {
    let place = next(layout);
    if place.symlink_metadata().is_err() {
        return Ok(place);
    }
    let oldest = place.with_extension("1");
    remove_aside(&oldest)?;
    files::rename(&place, &oldest)?;
    Ok(place)
}

/// Tablespaces and a `pg_wal` elsewhere are put aside where they are, because the new copy wants the same places.
fn put_linked_aside(data_dir: &Path) -> Result<(), PgError> {
    for link in links(data_dir)? {
        let place = fs::read_link(&link).map_err(PgError::file("read the link", &link))?;
        if is_linked_aside(&place) {
            continue;
        }
        let aside = linked_aside(&place);
        match fs::rename(&place, &aside) {
            Ok(()) => {}
            // As after an interruption between the two steps.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(PgError::Refused(format!(
                    "{} must be put aside for a new copy of the data directory, but cannot be renamed ({error}): \
                     give PostgreSQL's user a directory below its mount point, or move its content away",
                    place.display()
                )));
            }
        }
        let relink = fs::remove_file(&link).and_then(|()| std::os::unix::fs::symlink(&aside, &link));
        relink.map_err(PgError::file("change the link", &link))?;
    }
    Ok(())
}

/// The links of a data directory to places outside.
fn links(data_dir: &Path) -> Result<Vec<PathBuf>, PgError> {
    let mut links = entries(&data_dir.join("pg_tblspc"))?;
    links.push(data_dir.join("pg_wal"));
    links.retain(|link| link.is_symlink());
    Ok(links)
}

fn is_linked_aside(place: &Path) -> bool {
    place.file_name().is_some_and(|name| name.to_string_lossy().contains(LINKED))
}

/// A free name beside a linked directory; the last one taken when the directory itself is gone already.
fn linked_aside(place: &Path) -> PathBuf {
    let named = |number: u32| {
        let mut name = place.as_os_str().to_owned();
        name.push(format!("{LINKED}{number}"));
        PathBuf::from(name)
    };
    let mut number = 1;
    while named(number).symlink_metadata().is_ok() && number < MOST_LINKED {
        number += 1;
    }
    let is_gone = place.symlink_metadata().is_err();
    if is_gone && number > 1 { named(number - 1) } else { named(number) }
}

/// Removes put aside data with the linked directories which were put aside for it.
fn remove_aside(aside: &Path) -> Result<(), PgError> {
    for link in links(aside)? {
        if let Ok(place) = fs::read_link(&link)
            && is_linked_aside(&place)
        {
            remove_tree(&place)?;
        }
    }
    remove_tree(aside)
}

fn move_inside(layout: &Layout, aside: &Path) -> Result<(), PgError> {
    create(aside)?;
    let is_content =
        |path: &Path| path.file_name().is_some_and(|name| !is_own_name(name) && name != "lost+found");
    move_content(&layout.data_dir, aside, is_content)?;
    layout.unmark()
}

fn move_content(from: &Path, to: &Path, is_moved: impl Fn(&Path) -> bool) -> Result<(), PgError> {
    for path in entries(from)?.into_iter().filter(|path| is_moved(path)) {
        let Some(name) = path.file_name() else { continue };
        fs::rename(&path, to.join(name)).map_err(PgError::file("move", &path))?;
    }
    for directory in [from, to] {
        let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(PgError::file("sync", directory))?;
    }
    Ok(())
}

/// `pg_wal` and tablespaces may lie elsewhere, behind links which the interrupted program made.
fn empty_linked(data_dir: &Path) -> Result<(), PgError> {
    for link in links(data_dir)?.into_iter().filter(|link| link.is_dir()) {
        entries(&link)?.iter().try_for_each(|path| remove_tree(path))?;
    }
    Ok(())
}

fn create(directory: &Path) -> Result<(), PgError> {
    let made = fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(directory);
    made.map_err(PgError::file("create", directory))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, PgError> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect()),
    };
    listed.map_err(PgError::file("list", directory))
}

/// Removes a file, a link (not what it leads to) or a directory with everything in it.
fn remove_tree(path: &Path) -> Result<(), PgError> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Ok(is) if is.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.map_err(PgError::file("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Settings;

    fn filled(root: &Path) -> Layout {
        let layout = Layout::of(&Settings::new("s", "m", &root.join("data"), 1));
        fs::create_dir_all(root.join("data/base")).expect("directory");
        fs::write(root.join("data/base/1"), "x").expect("file");
        layout
    }

    #[test]
    fn data_is_renamed_aside_and_two_generations_are_kept() {
        let root = tempfile::tempdir().expect("directory");
        for generation in ["one", "two", "three"] {
            let layout = filled(root.path());
            fs::write(layout.in_data("name"), generation).expect("file");
            put_aside(&layout).expect("aside");
            assert!(!layout.data_dir.exists());
        }
        let layout = Layout::of(&Settings::new("s", "m", &root.path().join("data"), 1));
        let names: Vec<String> = layout
            .asides()
            .iter()
            .map(|aside| fs::read_to_string(aside.join("name")).expect("name"))
            .collect();
        assert_eq!(names, ["two", "three"]);
        discard_asides(&layout).expect("discarded");
        assert!(layout.asides().is_empty());
        assert_eq!(layout.discarded().len(), 2);
        remove_discarded(&layout).expect("removed");
        assert_eq!(fs::read_dir(root.path()).expect("list").count(), 0);
    }

    #[test]
    fn tablespaces_are_put_aside_and_removed_with_their_data() {
        let root = tempfile::tempdir().expect("directory");
        let space = root.path().join("space");
        for generation in ["one", "two"] {
            let layout = filled(root.path());
            fs::create_dir(&space).expect("directory");
            fs::write(space.join("name"), generation).expect("file");
            fs::create_dir(layout.in_data("pg_tblspc")).expect("directory");
            let link = layout.in_data("pg_tblspc/16384");
            std::os::unix::fs::symlink(&space, &link).expect("link");
            put_aside(&layout).expect("aside");
            assert!(!space.exists());
        }
        let layout = Layout::of(&Settings::new("s", "m", &root.path().join("data"), 1));
        for (aside, generation) in layout.asides().iter().zip(["one", "two"]) {
            let name = fs::read_to_string(aside.join("pg_tblspc/16384/name")).expect("name");
            assert_eq!(name, generation);
        }
        discard_asides(&layout).expect("discarded");
        remove_discarded(&layout).expect("removed");
        assert_eq!(fs::read_dir(root.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_renamed_is_emptied_into_itself_also_after_an_interruption() {
        let root = tempfile::tempdir().expect("directory");
        let layout = filled(root.path());
        fs::create_dir(layout.in_data("lost+found")).expect("directory");
        fs::write(layout.in_data("PG_VERSION"), "15").expect("file");
        let aside = layout.next_aside_inside();
        let name = aside.file_name().expect("name").to_string_lossy().into_owned();
        layout.mark(&Marker::PuttingAside(name)).expect("marked");
        create(&aside).expect("directory");
        fs::rename(layout.in_data("base"), aside.join("base")).expect("as if interrupted");
        put_aside(&layout).expect("goes on");
        assert!(aside.join("base/1").is_file() && aside.join("PG_VERSION").is_file());
        assert_eq!(layout.classify(), crate::ha::DataDir::Empty);
        let staging = prepare(&layout).expect("prepared");
        assert_ne!(staging, layout.data_dir);
        fs::write(staging.join("PG_VERSION"), "15").expect("file");
        settle(&layout, &staging).expect("settled");
        assert!(layout.in_data("PG_VERSION").is_file() && !staging.exists());
    }

    #[test]
    fn only_unfinished_work_is_emptied() {
        let root = tempfile::tempdir().expect("directory");
        let layout = filled(root.path());
        assert!(empty(&layout).is_err());
        assert!(layout.in_data("base/1").is_file());
        let elsewhere = root.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("directory");
        fs::write(elsewhere.join("segment"), "x").expect("file");
        std::os::unix::fs::symlink(&elsewhere, layout.in_data("pg_wal")).expect("link");
        layout.mark(&Marker::Filling("base backup".to_owned())).expect("marked");
        empty(&layout).expect("emptied");
        assert!(entries(&layout.data_dir).expect("list").is_empty());
        assert!(entries(&elsewhere).expect("list").is_empty() && elsewhere.is_dir());
    }
}
