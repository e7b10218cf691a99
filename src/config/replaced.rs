//! Keys and values that other ones have replaced, for errors that name the new ones.

/// Keys by path, each with its replacement.
const KEYS: [(&str, &str); 2] = [
    (
        "tcp.split_handshake",
        "`checks.tcp_split_handshake` has replaced `tcp.split_handshake`: write `\"count\"` in \
         place \
         of `\"allow\"`",
    ),
    (
        "icmp",
        "`checks.icmp_redirect` has replaced `icmp.redirects`: write `\"count\"` in place of \
         `\"allow\"`",
    ),
];

/// The replacement of the value `loose` of `mode`.
pub(super) const LOOSE: &str = "`mode = \"liberal\"` with `midstream = \"adopt\"` has \
     replaced `loose`: a zone or rule with another mode needs `midstream = \"drop\"` then";

/// Returns the replacement of a key, if it has one.
pub(super) fn replacement(path: &str) -> Option<&'static str> {
    let (_, replacement) = KEYS.iter().find(|(key, _)| *key == path)?;
    Some(replacement)
}
