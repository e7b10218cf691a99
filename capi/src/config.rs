//! Configurations that a caller passes: a text, or the path of a file.

use std::ffi::c_char;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use portcullis::{Config, ConfigError};

use crate::raw::{self, Sized32};
use crate::status::{Outcome, Status};

/// The greatest number of bytes of a configuration.
pub const MAX_CONFIG: usize = 134_217_728;

/// A configuration in TOML: either `text` or `path`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ConfigIn {
    /// `sizeof(portcullis_config)`.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// The text, in UTF-8, or NULL. It needs no NUL at its end.
    pub text: *const c_char,
    /// The number of bytes of the text.
    pub length: usize,
    /// A name of the text for messages, or NULL.
    pub name: *const c_char,
    /// The path of a regular file, or NULL. Files of address sets are relative to its folder.
    pub path: *const c_char,
    /// The wall-clock time in nanoseconds since 1970, as of which rules with `expires` are judged;
    /// 0 judges none of them as expired. They are judged at this call only: reload at the time of
    /// `portcullis_engine_next_rule_expiry`.
    pub wall_ns: u64,
}

// SAFETY: `repr(C)`, with `size` first; every field is a number or a pointer.
unsafe impl Sized32 for ConfigIn {
    const LEAST: usize = 2 * size_of::<u32>() + 4 * size_of::<usize>() + size_of::<u64>();
}
const _: () = assert!(size_of::<ConfigIn>() == ConfigIn::LEAST);

/// Reason why a call with a configuration has failed.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Refused {
    fn invalid(message: &str) -> Self {
        Self {
            status: Status::Invalid,
            message: message.to_owned(),
        }
    }

    fn file(path: &Path, error: &io::Error) -> Self {
        Self {
            status: Status::Io,
            message: format!("{}: {error}", path.display()),
        }
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self {
            status,
            message: String::new(),
        }
    }
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        Self {
            status: Status::Config,
            message: error.to_string(),
        }
    }
}

/// Returns the time of nanoseconds since 1970.
pub(crate) fn wall(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// Reads a caller's configuration.
///
/// # Safety
/// A pointer that is not NULL points to a struct of the size that it states, and its pointers are
/// NULL or as their fields say.
pub(crate) unsafe fn load(config: *const ConfigIn) -> Result<Config, Refused> {
    // SAFETY: the promise of the caller.
    let given = unsafe { raw::read(config) }?;
    if given.reserved != 0 {
        return Err(Refused::invalid("reserved is not 0"));
    }
    let mut config = match (given.text.is_null(), given.path.is_null()) {
        (false, true) => {
            // SAFETY: the promise of the caller.
            unsafe { from_text(&given) }?
        }
        (true, false) => {
            // SAFETY: the promise of the caller.
            let path = unsafe { raw::text(given.path) }?;
            from_file(Path::new(path))?
        }
        _ => {
            return Err(Refused::invalid(
                "a configuration has either a text or a path",
            ));
        }
    };
    if config.continuity.enabled {
        return Err(Refused {
            status: Status::Config,
            message: "continuity.enabled: the C interface has no store".to_owned(),
        });
    }
    if given.wall_ns > 0 {
        config.policy.as_of = Some(wall(given.wall_ns));
    }
    Ok(config)
}

/// # Safety
/// `text` has `length` readable bytes, and `name` is NULL or ends with a NUL.
unsafe fn from_text(given: &ConfigIn) -> Result<Config, Refused> {
    // SAFETY: the promise of the caller.
    let bytes = unsafe { raw::bytes(given.text.cast(), given.length, MAX_CONFIG) }?;
    let text =
        str::from_utf8(bytes).map_err(|_| Refused::invalid("the configuration is not UTF-8"))?;
    let name = match given.name.is_null() {
        true => "configuration",
        // SAFETY: not NULL; the rest is the promise of the caller.
        false => unsafe { raw::text(given.name) }?,
    };
    let mut config = Config::from_toml(text, name)?;
    config.load_sets(|path| match Path::new(path).is_absolute() {
        true => read(Path::new(path)).map_err(|error| error.to_string()),
        false => Err("a relative path, and the configuration has no folder".to_owned()),
    })?;
    Ok(config)
}

fn from_file(path: &Path) -> Result<Config, Refused> {
    let text = read(path).map_err(|error| Refused::file(path, &error))?;
    let mut config = Config::from_toml(&text, &path.display().to_string())?;
    let folder = path.parent().unwrap_or(Path::new(""));
    config.load_sets(|set| read(&folder.join(set)).map_err(|error| error.to_string()))?;
    Ok(config)
}

/// Reads a regular file of bounded size: reading any other may not end. Opening one does not wait
/// either, as a FIFO would without `O_NONBLOCK`.
fn read(path: &Path) -> io::Result<String> {
    let fault = |kind, text: &str| Err(io::Error::new(kind, text));
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return fault(io::ErrorKind::InvalidInput, "this is not a regular file");
    }
    let mut bytes = Vec::new();
    if file.take(MAX_CONFIG as u64 + 1).read_to_end(&mut bytes)? > MAX_CONFIG {
        return fault(io::ErrorKind::FileTooLarge, "this is longer than 128 MiB");
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => fault(io::ErrorKind::InvalidData, "this is not UTF-8"),
    }
}

/// Hands out what `build` makes of a caller's configuration. On failure, the handle is NULL,
/// and the caller's buffer gets the reason.
///
/// # Safety
/// Pointers are NULL or valid; `config` is as its fields say, and `message` has `size` bytes.
pub(crate) unsafe fn create<T: Send + Sync>(
    config: *const ConfigIn,
    handle: *mut *mut T,
    message: *mut c_char,
    size: usize,
    build: impl FnOnce(Config) -> Result<T, ConfigError>,
) -> Outcome {
    // Both before anything else, so that they have a value whatever fails.
    // SAFETY: the promise of the caller.
    unsafe { raw::put_message(message, size, "") };
    // SAFETY: the promise of the caller.
    unsafe { raw::put(handle, std::ptr::null_mut()) }?;
    // SAFETY: the promise of the caller.
    let created = unsafe { load(config) }.and_then(|config| Ok(build(config)?));
    let created = created.map_err(|refused| {
        // SAFETY: the promise of the caller.
        unsafe { raw::put_message(message, size, &refused.message) };
        refused.status
    })?;
    // SAFETY: the promise of the caller.
    unsafe { raw::put(handle, raw::hand_out(created)) }
}
