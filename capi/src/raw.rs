//! Pointers of C: the checks that are possible, and the only places that follow them.

use std::ffi::{CStr, c_char};
use std::slice;

use crate::status::{Outcome, Status};

/// Struct that a caller passes, with its size in its first field.
///
/// A later version adds fields at the end alone. A caller with an older header passes a shorter
/// struct: fields that it lacks are 0 when read, and are not written.
///
/// # Safety
/// The type is `repr(C)`, its first field is a `u32` that holds the size, and zeros are a value of
/// the type. A type that is read from a caller's memory has no invalid values.
pub(crate) unsafe trait Sized32: Copy {
    /// Size in the first version of the interface: no caller has a shorter one.
    const LEAST: usize;
}

/// The greatest size of a struct in any version of the interface.
const MOST: usize = 4096;

/// Length of the field `size`.
const SIZE_FIELD: usize = size_of::<u32>();

/// Returns the object of a handle.
///
/// # Safety
/// A pointer that is not NULL points to a live `T`, which nobody releases or changes during `'a`.
pub(crate) unsafe fn object<'a, T>(pointer: *const T) -> Outcome<&'a T> {
    check(pointer)?;
    // SAFETY: not NULL and aligned, as just checked; the rest is the caller's promise.
    Ok(unsafe { &*pointer })
}

/// Returns an error for a pointer that is NULL or misaligned.
pub(crate) fn check<T>(pointer: *const T) -> Outcome {
    if pointer.is_null() {
        return Err(Status::Null);
    }
    match pointer.is_aligned() {
        true => Ok(()),
        false => Err(Status::Invalid),
    }
}

/// Returns an error for a pointer that is misaligned; it may be NULL.
pub(crate) fn check_if_asked<T>(pointer: *const T) -> Outcome {
    match pointer.is_null() {
        true => Ok(()),
        false => check(pointer),
    }
}

/// Returns bytes. A length of 0 needs no pointer; a length above `max` is invalid.
///
/// # Safety
/// A pointer that is not NULL points to `length` readable bytes, which nobody changes during `'a`.
pub(crate) unsafe fn bytes<'a>(pointer: *const u8, length: usize, max: usize) -> Outcome<&'a [u8]> {
    debug_assert!(max <= isize::MAX as usize);
    match length {
        0 => return Ok(&[]),
        _ if length > max => return Err(Status::Invalid),
        _ => check(pointer)?,
    }
    // SAFETY: not NULL, and at most `max` bytes, which no address space exceeds; the rest is the
    // caller's promise.
    Ok(unsafe { slice::from_raw_parts(pointer, length) })
}

/// Returns a text that ends with a NUL.
///
/// # Safety
/// A pointer that is not NULL points to a text that ends with a NUL, which nobody changes during
/// `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Outcome<&'a str> {
    check(pointer)?;
    // SAFETY: not NULL, as just checked; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Status::Invalid)
}

/// Writes a value through a pointer.
///
/// # Safety
/// A pointer that is not NULL points to writable memory for a `T`.
pub(crate) unsafe fn put<T>(pointer: *mut T, value: T) -> Outcome {
    check(pointer)?;
    // SAFETY: not NULL and aligned, as just checked; the rest is the caller's promise.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Writes a value through a pointer that may be NULL, in which case nothing is written.
///
/// # Safety
/// As for [`put`].
pub(crate) unsafe fn put_if_asked<T>(pointer: *mut T, value: T) -> Outcome {
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: the promise of the caller is that of `put`.
    unsafe { put(pointer, value) }
}

/// Writes a text and a NUL into a buffer; all of it or, with [`Status::TooSmall`], nothing.
///
/// # Safety
/// A pointer that is not NULL points to `size` writable bytes.
pub(crate) unsafe fn put_text(pointer: *mut c_char, size: usize, text: &str) -> Outcome {
    check(pointer)?;
    if text.len() >= size {
        return Err(Status::TooSmall);
    }
    // SAFETY: the buffer is longer than the text, as just checked.
    unsafe { pointer.copy_from_nonoverlapping(text.as_ptr().cast(), text.len()) };
    // SAFETY: as above.
    let end = unsafe { pointer.add(text.len()) };
    // SAFETY: as above: the last byte of the buffer is at or after `end`.
    unsafe { end.write(0) };
    Ok(())
}

/// Writes as much of a message and a NUL as a buffer has room for. No buffer, no message.
///
/// # Safety
/// As for [`put_text`].
pub(crate) unsafe fn put_message(pointer: *mut c_char, size: usize, message: &str) {
    let Some(room) = size.checked_sub(1) else {
        return;
    };
    // A buffer that is NULL takes no message.
    // SAFETY: the promise of the caller is that of `put_text`.
    let _ = unsafe { put_text(pointer, size, beginning(message, room)) };
}

/// Returns the beginning of a text, in whole characters and at most `room` bytes.
pub(crate) fn beginning(text: &str, room: usize) -> &str {
    let mut length = text.len().min(room);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    text.get(..length).unwrap_or_default()
}

/// Returns the size of a caller's struct; an error for a size that no version has.
///
/// # Safety
/// A pointer that is not NULL points to a readable `u32`.
pub(crate) unsafe fn size_of_struct<T: Sized32>(pointer: *const T) -> Outcome<usize> {
    check(pointer)?;
    // SAFETY: not NULL and aligned for a type that begins with a `u32`; the rest is the caller's
    // promise.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    match (T::LEAST..=MOST).contains(&size) && size.is_multiple_of(align_of::<T>()) {
        true => Ok(size),
        false => Err(Status::Invalid),
    }
}

/// Reads a caller's struct. Fields that the caller lacks are 0. Fields that only the caller has
/// must be 0: a request that this version does not know is an error, as for `clone3` of Linux.
///
/// # Safety
/// A pointer that is not NULL points to a `u32`, and to as many readable bytes as it states.
pub(crate) unsafe fn read<T: Sized32>(pointer: *const T) -> Outcome<T> {
    // SAFETY: the promise of the caller.
    let size = unsafe { size_of_struct(pointer) }?;
    let known = size.min(size_of::<T>());
    // SAFETY: the caller's struct has `size` bytes, of which `known` are skipped.
    let unknown = unsafe { pointer.cast::<u8>().add(known) };
    // SAFETY: as above.
    if unsafe { bytes(unknown, size - known, MOST) }?
        .iter()
        .any(|byte| *byte != 0)
    {
        return Err(Status::Invalid);
    }
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let (from, to) = (pointer.cast::<u8>(), value.as_mut_ptr().cast::<u8>());
    // SAFETY: the caller's struct has `size` bytes, and `value` the other number; they are two
    // objects.
    unsafe { to.copy_from_nonoverlapping(from, known) };
    // SAFETY: the type has no invalid values (`Sized32`).
    Ok(unsafe { value.assume_init() })
}

/// Writes a caller's struct, except for its size. Fields that the caller lacks are not written.
///
/// # Safety
/// A pointer that is not NULL points to a `u32`, and to as many writable bytes as it states.
pub(crate) unsafe fn write<T: Sized32>(pointer: *mut T, value: &T) -> Outcome {
    // SAFETY: the promise of the caller.
    let size = unsafe { size_of_struct(pointer) }?;
    let length = size.min(size_of::<T>()) - SIZE_FIELD;
    // SAFETY: every such struct is longer than its first field.
    let from = unsafe { (&raw const *value).cast::<u8>().add(SIZE_FIELD) };
    // SAFETY: as above.
    let to = unsafe { pointer.cast::<u8>().add(SIZE_FIELD) };
    // SAFETY: both structs have `length` bytes after their first field, and are two objects.
    unsafe { to.copy_from_nonoverlapping(from, length) };
    Ok(())
}

/// A caller's array of structs, each as long as the first one says.
#[derive(Debug)]
pub(crate) struct Array<T> {
    first: *const T,
    count: usize,
    stride: usize,
}

impl<T: Sized32> Array<T> {
    /// Returns an array; one of at most `max` structs. An empty one needs no pointer.
    ///
    /// # Safety
    /// A pointer that is not NULL points to `count` structs of the size that the first one states,
    /// which live as long as the array.
    pub(crate) unsafe fn new(first: *const T, count: usize, max: usize) -> Outcome<Self> {
        if count > max {
            return Err(Status::Invalid);
        }
        let stride = match count {
            0 => 0,
            // SAFETY: the first of the caller's structs.
            _ => unsafe { size_of_struct(first) }?,
        };
        // No array is longer than half of an address space.
        match count.checked_mul(stride) {
            Some(length) if length <= isize::MAX as usize => Ok(Self {
                first,
                count,
                stride,
            }),
            _ => Err(Status::Invalid),
        }
    }

    /// Returns the number of structs.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Returns the place of a struct.
    fn place(&self, number: usize) -> Outcome<*const T> {
        if number >= self.count {
            return Err(Status::Invalid);
        }
        // SAFETY: `new` was promised `count` structs at this distance.
        let place = unsafe { self.first.byte_add(number * self.stride) };
        // SAFETY: as above, so the place has a readable size.
        match unsafe { size_of_struct(place) }? == self.stride {
            true => Ok(place),
            false => Err(Status::Invalid),
        }
    }

    /// Returns an error unless the struct has the size of the first one.
    pub(crate) fn check(&self, number: usize) -> Outcome {
        self.place(number).map(|_| ())
    }

    /// Reads a struct.
    pub(crate) fn read(&self, number: usize) -> Outcome<T> {
        let place = self.place(number)?;
        // SAFETY: a struct of the array, as `new` was promised.
        unsafe { read(place) }
    }

    /// Writes a struct, except for its size.
    ///
    /// # Safety
    /// The array is in writable memory.
    pub(crate) unsafe fn write(&self, number: usize, value: &T) -> Outcome {
        let place = self.place(number)?;
        // SAFETY: a struct of the array, as `new` was promised, in writable memory.
        unsafe { write(place.cast_mut(), value) }
    }
}

/// Returns a pointer to a new object that C owns. Any thread may use and release it.
pub(crate) fn hand_out<T: Send + Sync>(object: T) -> *mut T {
    Box::into_raw(Box::new(object))
}

/// Takes back and drops an object that C owned, unless it is in use. NULL is ignored.
///
/// # Safety
/// As for [`release`], except that the object may be in use.
pub(crate) unsafe fn release_unless<T>(
    pointer: *mut T,
    is_in_use: impl FnOnce(&T) -> bool,
) -> Outcome {
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: not NULL; the rest is the promise of the caller.
    let in_use = is_in_use(unsafe { object(pointer) }?);
    if in_use {
        return Err(Status::Busy);
    }
    // SAFETY: the promise of the caller, and nothing uses the object.
    unsafe { release(pointer) };
    Ok(())
}

/// Takes back and drops an object that C owned. NULL is ignored.
///
/// # Safety
/// A pointer that is not NULL comes from [`hand_out`], was not released before, and is not in use.
pub(crate) unsafe fn release<T>(pointer: *mut T) {
    if check(pointer).is_ok() {
        // SAFETY: the promise of the caller.
        drop(unsafe { Box::from_raw(pointer) });
    }
}
