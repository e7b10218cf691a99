//! Paths of keys, such as `tcp.zones."a.b"`.

/// The largest number of bytes of a path in an error, so that the message has room for the cause.
const MAX_SHOWN: usize = 1_024;

/// Returns the part of a path that an error keeps.
pub(super) fn cut(path: &str) -> &str {
    let mut ends = (0..=MAX_SHOWN.min(path.len())).rev();
    ends.find_map(|end| path.get(..end)).unwrap_or_default()
}

/// Appends a name to a path.
pub(super) fn push_segment(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(&key_segment(name));
}

/// Returns a name as a part of a path, quoted if TOML requires it.
pub(super) fn key_segment(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}
