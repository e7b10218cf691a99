//! Errors of GENEVE datagrams.

use crate::reasons::reasons;

reasons! {
    /// The reason for which a datagram is not decapsulated.
    GeneveError {
        HeaderTruncated, "geneve_header_truncated",
            "The datagram ends inside the 8 bytes of the GENEVE header.";
        Version, "geneve_version",
            "The GENEVE version is not 0, the only one there is (RFC 8926 3.4).";
        OptionsTruncated, "geneve_options_truncated",
            "The datagram ends inside the options that the GENEVE header announces.";
        OptionLength, "geneve_option_length",
            "A GENEVE option exceeds the length of the options, or the options end within its \
             header.";
        Control, "geneve_control",
            "The datagram is a GENEVE control packet (O bit), which carries no packet to forward.";
        CriticalOption, "geneve_critical_option",
            "An unknown GENEVE option is critical: a receiver that does not support it must drop \
             the packet (RFC 8926 3.5.1).";
        CriticalBit, "geneve_critical_bit",
            "The GENEVE header's C bit contradicts the options: it must be set if and only if an \
             option is critical (RFC 8926 3.4).";
        ProtocolUnknown, "geneve_protocol_unknown",
            "The packet in the tunnel is not IPv4, IPv6 or Ethernet.";
        InnerEmpty, "geneve_inner_empty",
            "The tunnel carries no packet.";
        InnerVersion, "geneve_inner_version",
            "The IP version of the packet in the tunnel does not match the GENEVE protocol type.";
    }
}
