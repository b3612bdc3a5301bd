//! Watchdog devices: what Linux offers, and a fifo in its place for tests.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use rustix::fs::OFlags;
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};

use super::message::WatchdogConfig;

/// Any byte but [`MAGIC_CLOSE`] starts the device's time anew.
const PING: &[u8] = b"1";
/// A device that is closed after this byte stops counting.
const MAGIC_CLOSE: &[u8] = b"V";

const GET_SUPPORT: Opcode = opcode::read::<Info>(b'W', 0);
const SET_TIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
const GET_TIMEOUT: Opcode = opcode::read::<i32>(b'W', 7);
/// `options` of [`Info`].
const CAN_SET_TIMEOUT: u32 = 0x0080;
const CAN_DISARM: u32 = 0x0100;

/// `struct watchdog_info` of linux/watchdog.h.
#[repr(C)]
struct Info {
    options: u32,
    firmware: u32,
    identity: [u8; 32],
}

/// An open device: it counts from its opening on, and resets the machine unless it is pinged or disarmed.
pub(super) trait Device: fmt::Debug {
    /// What it is, for the log.
    fn describe(&self) -> String;
    /// Sets the timeout; the one which the device took instead, in seconds.
    fn set_timeout(&mut self, seconds: u32) -> io::Result<u32>;
    /// Starts its time anew.
    fn ping(&mut self) -> io::Result<()>;
    /// Can it be disarmed, as far as it says?
    fn can_disarm(&self) -> bool;
    /// Disarms and closes it. Closed without this it goes on counting.
    fn disarm(self: Box<Self>) -> io::Result<()>;
}

/// Opens the configured device.
///
/// # Errors
/// Why there is none that works; a sentence.
pub(super) fn open(config: &WatchdogConfig) -> Result<Box<dyn Device>, String> {
    let path = config.device.display();
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(libc::EBUSY) => format!("{path} is in use by another program"),
        Some(libc::EACCES) => format!("{path} may not be opened by this user: {error}"),
        _ => format!("{path} cannot be opened: {error}"),
    };
    // Looked at before it is opened: a device of another kind may do something when it is.
    let kind = std::fs::metadata(&config.device).map_err(failed)?.file_type();
    let is_usable = kind.is_char_device() || kind.is_fifo() && config.is_testing;
    if !is_usable {
        let cure = if kind.is_fifo() { ": only the driver `testing` takes a fifo" } else { "" };
        return Err(format!("{path} is no watchdog device{cure}"));
    }
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().write(true).custom_flags(flags).open(&config.device).map_err(failed)?;
    if kind.is_fifo() {
        return Ok(Box::new(Fifo { file }));
    }
    match support(&file) {
        Ok(info) => Ok(Box::new(Character { file, info })),
        Err(error) => Err(format!("{path} is no watchdog device: {error}")),
    }
}

#[expect(unsafe_code, reason = "ioctl(2)")]
fn support(file: &File) -> io::Result<Info> {
    // SAFETY: the opcode belongs to this structure, which is valid for every bit pattern.
    Ok(unsafe { ioctl(file, Getter::<GET_SUPPORT, Info>::new()) }?)
}

/// A device of Linux' watchdog API.
#[derive(Debug)]
struct Character {
    file: File,
    info: Info,
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, firmware, identity } = self;
        write!(f, "{} ({options:#x}, {firmware:#x})", String::from_utf8_lossy(identity))
    }
}

impl Device for Character {
    fn describe(&self) -> String {
        let identity: Vec<u8> = self.info.identity.iter().copied().take_while(|byte| *byte != 0).collect();
        format!("{} with firmware {}", String::from_utf8_lossy(&identity), self.info.firmware)
    }

    #[expect(unsafe_code, reason = "ioctl(2)")]
    fn set_timeout(&mut self, seconds: u32) -> io::Result<u32> {
        if self.info.options & CAN_SET_TIMEOUT != 0 {
            let mut value = i32::try_from(seconds).unwrap_or(i32::MAX);
            // SAFETY: the opcode reads and writes one int, which outlives the call.
            unsafe { ioctl(&self.file, Updater::<SET_TIMEOUT, i32>::new(&mut value)) }?;
        }
        // SAFETY: the opcode writes one int.
        let taken = unsafe { ioctl(&self.file, Getter::<GET_TIMEOUT, i32>::new()) }?;
        u32::try_from(taken).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn ping(&mut self) -> io::Result<()> {
        self.file.write_all(PING)
    }

    fn can_disarm(&self) -> bool {
        self.info.options & CAN_DISARM != 0
    }

    fn disarm(mut self: Box<Self>) -> io::Result<()> {
        self.file.write_all(MAGIC_CLOSE)
    }
}

/// A fifo of a test: what a device would be told comes out at its other end.
#[derive(Debug)]
struct Fifo {
    file: File,
}

impl Fifo {
    /// A reader that does not read must not stop the guard.
    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            written => written,
        }
    }
}

impl Device for Fifo {
    fn describe(&self) -> String {
        "Watchdog test harness".to_owned()
    }

    fn set_timeout(&mut self, seconds: u32) -> io::Result<u32> {
        self.say(format!("Ctimeout={seconds}\n").as_bytes())?;
        Ok(seconds)
    }

    fn ping(&mut self) -> io::Result<()> {
        self.say(PING)
    }

    fn can_disarm(&self) -> bool {
        true
    }

    fn disarm(mut self: Box<Self>) -> io::Result<()> {
        self.say(MAGIC_CLOSE)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::{Path, PathBuf};

    use super::*;

    fn config(device: &Path, is_testing: bool) -> WatchdogConfig {
        WatchdogConfig { device: device.to_owned(), is_testing, is_required: true, safety_margin: None }
    }

    #[test]
    fn the_ioctls_are_those_of_linux() {
        assert_eq!(GET_SUPPORT, 0x8028_5700);
        assert_eq!(SET_TIMEOUT, 0xc004_5706);
        assert_eq!(GET_TIMEOUT, 0x8004_5707);
    }

    #[test]
    fn what_is_no_watchdog_is_refused() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let refused = |path: &Path, is_testing| open(&config(path, is_testing)).expect_err("refused");
        let file = temp.path().join("file");
        std::fs::write(&file, "").expect("write");
        assert!(refused(&file, true).ends_with("is no watchdog device"));
        assert!(refused(&temp.path().join("none"), false).contains("cannot be opened: No such file"));
        assert!(refused(&PathBuf::from("/dev/null"), false).contains("/dev/null is no watchdog device"));
        let fifo = temp.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a fifo");
        assert!(refused(&fifo, false).contains("driver `testing`"));
        // Nobody reads it.
        assert!(refused(&fifo, true).contains("cannot be opened"));
    }

    #[test]
    fn a_fifo_shows_what_a_device_is_told() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let fifo = temp.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a fifo");
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("fits");
        let mut reader = OpenOptions::new().read(true).custom_flags(flags).open(&fifo).expect("a reader");
        let mut device = open(&config(&fifo, true)).expect("open");
        assert_eq!(device.set_timeout(15).expect("set"), 15);
        device.ping().expect("pinged");
        device.disarm().expect("disarmed");
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("read");
        assert_eq!(said, "Ctimeout=15\n1V");
    }
}
