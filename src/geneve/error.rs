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
            "A GENEVE option goes beyond the end of the options, or ends them within its header.";
        Control, "geneve_control",
            "A GENEVE control packet (O bit): it carries no packet to forward.";
        CriticalOption, "geneve_critical_option",
            "An unknown GENEVE option is critical: who does not know it must drop the packet (RFC \
             8926 3.5.1).";
        CriticalBit, "geneve_critical_bit",
            "The GENEVE header's C bit does not say whether there is a critical option (RFC 8926 \
             3.4).";
        ProtocolUnknown, "geneve_protocol_unknown",
            "The packet in the tunnel is neither IPv4, IPv6 nor Ethernet.";
        InnerEmpty, "geneve_inner_empty",
            "The tunnel carries no packet.";
        InnerVersion, "geneve_inner_version",
            "The IP version of the packet in the tunnel is not that of the GENEVE protocol type.";
    }
}
