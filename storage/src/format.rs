//! The file `format`: which version of the layout a directory has.
//!
//! A version this program does not know is refused, never converted or overwritten. The checksum tells a newer
//! version from a damaged file.

use std::path::Path;

use crate::error::{AmnesiaReason, StoreError};
use crate::files;

/// Version of the layout that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

const FILE: &str = "format";
const NAME: &str = "pgherd-storage";
/// Far more than the file ever holds; a larger one is not ours.
const MAX_BYTES: usize = 256;

/// Writes the file for a new store.
pub(crate) fn write(dir: &Path) -> Result<(), StoreError> {
    files::write_new(&dir.join(FILE), render(FORMAT_VERSION).as_bytes())
}

/// Checks the version: `Ok(Err(_))` for a file that tells nothing.
pub(crate) fn check(dir: &Path) -> Result<Result<(), AmnesiaReason>, StoreError> {
    let Some(bytes) = files::read_limited(&dir.join(FILE), MAX_BYTES)? else {
        return Ok(Err(AmnesiaReason::Format));
    };
    match parse(&bytes) {
        None => Ok(Err(AmnesiaReason::Format)),
        Some(FORMAT_VERSION) => Ok(Ok(())),
        Some(found) => {
            Err(StoreError::UnknownFormat { path: dir.to_path_buf(), found, known: FORMAT_VERSION })
        }
    }
}

/// The file's text for a version.
pub(crate) fn render(version: u32) -> String {
    let line = format!("{NAME} {version}");
    let crc = crc32fast::hash(line.as_bytes());
    format!("{line} {crc:08x}\n")
}

fn parse(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    let version = text.strip_prefix(NAME)?.split_whitespace().next()?.parse().ok()?;
    (render(version) == text).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_no_newer_version() {
        assert_eq!(parse(render(1).as_bytes()), Some(1));
        assert_eq!(parse(render(7).as_bytes()), Some(7));
        for position in 0..render(1).len() {
            for bit in 0..8 {
                let mut bytes = render(1).into_bytes();
                bytes[position] ^= 1 << bit;
                assert_eq!(parse(&bytes), None, "byte {position} bit {bit}");
            }
        }
    }
}
