//! Meaning of a session's two numbers.

use portcullis::policy::Protocol;

/// Returns the port of a session, or the identifier of an ICMP query; `None` where the protocol has
/// neither.
pub(crate) fn port_or_identifier(protocol: Protocol, number: u16) -> Option<u16> {
    let is_icmp = protocol == Protocol::ICMP || protocol == Protocol::ICMPV6;
    (is_icmp || protocol.has_ports()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_with_ports_and_icmp_have_numbers() {
        for number in 0..=u8::MAX {
            let expected = matches!(number, 1 | 6 | 17 | 33 | 58 | 132 | 136);
            let found = port_or_identifier(Protocol(number), 7);
            assert_eq!(found, expected.then_some(7), "protocol {number}");
        }
    }
}
