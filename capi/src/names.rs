//! Versions, and names of numbers.

use std::ffi::{CStr, CString, c_char};
use std::sync::LazyLock;

use portcullis::{DropReason, EndReason};

use crate::raw;
use crate::status::{Outcome, Status};

/// Number of this interface. Functions, fields at the end of structs and numbers of enumerations
/// may be added without a change; anything else changes the number and the name of the library.
pub const ABI_VERSION: u32 = 1;

/// Name and text of a number that begins at 1.
struct Named {
    name: CString,
    text: CString,
}

impl Named {
    /// Returns texts for C. Names and texts of the library contain no NUL.
    fn new(name: &str, text: &str) -> Self {
        let of = |text| CString::new(text).unwrap_or_default();
        Self {
            name: of(name),
            text: of(text),
        }
    }
}

static REASONS: LazyLock<Vec<Named>> = LazyLock::new(|| {
    DropReason::all()
        .map(|reason| Named::new(reason.name(), reason.describe()))
        .collect()
});

static END_REASONS: LazyLock<Vec<Named>> = LazyLock::new(|| {
    EndReason::ALL
        .iter()
        .map(|reason| Named::new(reason.name(), ""))
        .collect()
});

/// Returns the number of a reason: 0 for none.
pub(crate) fn reason_number(reason: Option<DropReason>) -> u16 {
    reason.map_or(0, |reason| reason.index() as u16 + 1)
}

/// Returns the number of the reason for an end: 0 for none.
pub(crate) fn end_number(reason: Option<EndReason>) -> u8 {
    let place = |reason| EndReason::ALL.iter().position(|each| *each == reason);
    reason.and_then(place).map_or(0, |place| place as u8 + 1)
}

fn of(all: &'static [Named], number: usize) -> Option<&'static Named> {
    all.get(number.checked_sub(1)?)
}

fn or_null(text: Option<&'static CStr>) -> *const c_char {
    text.map_or(std::ptr::null(), CStr::as_ptr)
}

/// Returns `PORTCULLIS_ABI_VERSION` of the library that is linked.
///
/// Any thread may call this at any time.
#[unsafe(no_mangle)]
pub extern "C" fn portcullis_abi_version() -> u32 {
    ABI_VERSION
}

/// Returns the version of the library that is linked, such as "0.1.0". The text is never released.
///
/// Any thread may call this at any time.
#[unsafe(no_mangle)]
pub extern "C" fn portcullis_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Returns the number of drop reasons. They are numbered from 1.
///
/// Any thread may call this at any time.
#[unsafe(no_mangle)]
pub extern "C" fn portcullis_reason_count() -> u16 {
    DropReason::COUNT as u16
}

/// Returns the stable name of a drop reason, such as "policy_deny", or NULL for a number that is
/// none. The text is never released.
///
/// Names are stable; numbers may differ between versions of the library. Any thread may call this
/// at any time.
#[unsafe(no_mangle)]
pub extern "C" fn portcullis_reason_name(reason: u16) -> *const c_char {
    or_null(of(&REASONS, usize::from(reason)).map(|named| named.name.as_c_str()))
}

/// Returns a description of a drop reason in one or more sentences, or NULL for a number that is
/// none. The text is never released.
///
/// Any thread may call this at any time.
#[unsafe(no_mangle)]
pub extern "C" fn portcullis_reason_text(reason: u16) -> *const c_char {
    or_null(of(&REASONS, usize::from(reason)).map(|named| named.text.as_c_str()))
}

/// Returns the number of the drop reason of a name, or 0 if there is none.
///
/// Any thread may call this at any time.
///
/// # Safety
/// A `name` that is not NULL is a text with a NUL at its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_reason_find(name: *const c_char) -> u16 {
    // SAFETY: the promise of the caller.
    let name = unsafe { raw::text(name) };
    let found = name.ok().and_then(|name| {
        let place = REASONS
            .iter()
            .position(|each| each.name.as_bytes() == name.as_bytes())?;
        u16::try_from(place + 1).ok()
    });
    found.unwrap_or(0)
}

/// Returns the stable name of the reason for a session's end, such as "timeout", or NULL for a
/// number that is none. The text is never released.
///
/// Any thread may call this at any time.
#[unsafe(no_mangle)]
pub extern "C" fn portcullis_end_reason_name(reason: u8) -> *const c_char {
    or_null(of(&END_REASONS, usize::from(reason)).map(|named| named.name.as_c_str()))
}

/// Returns the stable name of a verdict's `kind`, such as "forward", or NULL for a number that is
/// none. The text is never released.
///
/// Any thread may call this at any time.
#[unsafe(no_mangle)]
pub extern "C" fn portcullis_verdict_name(kind: u8) -> *const c_char {
    let names = [c"forward", c"drop", c"reject", c"hold"];
    or_null(names.get(usize::from(kind)).copied())
}

/// Returns the stable name of a verdict's `class_of`, such as "established", or NULL for a number
/// that is none. The text is never released.
///
/// Any thread may call this at any time.
#[unsafe(no_mangle)]
pub extern "C" fn portcullis_class_name(class_of: u8) -> *const c_char {
    let names = [c"new", c"established", c"related", c"invalid", c"untracked"];
    or_null(names.get(usize::from(class_of)).copied())
}

/// Copies a text into a field, with a NUL at its end. What is too long is cut.
pub(crate) fn copy_text<const SIZE: usize>(text: &str) -> [c_char; SIZE] {
    let mut field = [0; SIZE];
    let text = raw::beginning(text, SIZE.saturating_sub(1));
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
    field
}

/// Returns the number of a small enumeration that a caller passed.
pub(crate) fn one_of<T: Copy>(choices: &[T], number: u32) -> Outcome<T> {
    let place = usize::try_from(number).map_err(|_| Status::Invalid)?;
    choices.get(place).copied().ok_or(Status::Invalid)
}
