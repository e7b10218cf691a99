//! The ways in which a packet can be malformed.

use crate::reasons::reasons;

reasons! {
    /// Reason for which a packet cannot be parsed or has no valid meaning.
    ///
    /// Each reason has a stable [`name`](Self::name) for counters and logs and a
    /// [description](Self::describe). If several reasons apply, that of the outermost header is
    /// given.
    Malformed {
        Empty, "empty", "The packet has no bytes.";
        IpVersionUnknown, "ip_version_unknown", "The IP version is neither 4 nor 6.";

        Ipv4HeaderTruncated, "ipv4_header_truncated",
            "The packet ends inside the IPv4 header.";
        Ipv4HeaderLength, "ipv4_header_length",
            "The IPv4 header length is below 5 words.";
        Ipv4TotalLengthBelowHeader, "ipv4_total_length_below_header",
            "The IPv4 total length is below the header length.";
        Ipv4TotalLengthBeyondPacket, "ipv4_total_length_beyond_packet",
            "The IPv4 total length exceeds the packet.";
        Ipv4HeaderChecksum, "ipv4_header_checksum",
            "The IPv4 header checksum is wrong.";
        Ipv4Option, "ipv4_option",
            "An IPv4 option has a length below 2 or one that exceeds the header, has a pointer \
             outside the option, or is a second source route.";

        Ipv6HeaderTruncated, "ipv6_header_truncated",
            "The packet ends inside the 40 bytes of the IPv6 header.";
        Ipv6PayloadLengthZero, "ipv6_payload_length_zero",
            "The IPv6 payload length is 0 although a header must follow, as in a jumbogram.";
        Ipv6PayloadLengthBeyondPacket, "ipv6_payload_length_beyond_packet",
            "The IPv6 payload length exceeds the packet.";
        Ipv6ExtensionTruncated, "ipv6_extension_truncated",
            "The packet ends inside an IPv6 extension header.";
        Ipv6ExtensionChainTooLong, "ipv6_extension_chain_too_long",
            "The packet has more than 8 IPv6 extension headers before the transport header.";
        Ipv6HopByHopNotFirst, "ipv6_hop_by_hop_not_first",
            "An IPv6 hop-by-hop header is not directly after the IPv6 header.";
        Ipv6RoutingHeaderType0, "ipv6_routing_header_type_0",
            "An IPv6 routing header of type 0 has segments left; RFC 5095 forbids forwarding such \
             packets.";
        Ipv6FragmentHeaderRepeated, "ipv6_fragment_header_repeated",
            "The packet has more than one IPv6 fragment header.";

        SourceAddressNotUnicast, "source_address_not_unicast",
            "The source address is a multicast address or the broadcast address.";

        FragmentEmpty, "fragment_empty", "The fragment carries no bytes.";
        FragmentLengthNotMultipleOf8, "fragment_length_not_multiple_of_8",
            "More fragments are to follow, but the length of this one is not a multiple of 8.";
        FragmentBeyond65535, "fragment_beyond_65535",
            "The fragment would make the packet longer than its length field can state.";
        FragmentTiny, "fragment_tiny",
            "The first fragment ends inside the transport header (RFC 1858, RFC 7112).";
        FragmentInsideTcpHeader, "fragment_inside_tcp_header",
            "A fragment of a TCP segment begins inside the TCP header (RFC 1858, RFC 3128).";

        TcpHeaderTruncated, "tcp_header_truncated",
            "The IP payload is shorter than the 20 bytes of a TCP header.";
        TcpHeaderLength, "tcp_header_length",
            "The TCP data offset is below 5 words or exceeds the IP payload.";
        TcpFlags, "tcp_flags", "The combination of TCP flags is invalid.";
        TcpChecksum, "tcp_checksum", "The TCP checksum is wrong.";

        UdpHeaderTruncated, "udp_header_truncated",
            "The IP payload is shorter than the 8 bytes of a UDP header.";
        UdpLength, "udp_length",
            "The UDP length is below 8 or exceeds the IP payload.";
        UdpChecksum, "udp_checksum", "The UDP checksum is wrong.";
        UdpChecksumMissingIpv6, "udp_checksum_missing_ipv6",
            "The UDP checksum is 0 over IPv6, and `engine.checksums` is `require`.";

        IcmpHeaderTruncated, "icmp_header_truncated",
            "The IP payload is shorter than the 8 bytes of an ICMP header.";
        IcmpChecksum, "icmp_checksum", "The ICMP or ICMPv6 checksum is wrong.";
        IcmpVersionMismatch, "icmp_version_mismatch",
            "The packet is ICMPv6 over IPv4, or ICMP over IPv6.";
        IcmpErrorQuoteTruncated, "icmp_error_quote_truncated",
            "The ICMP error quotes less than the IP header and 8 bytes of the transport header.";
        IcmpErrorQuoteMalformed, "icmp_error_quote_malformed",
            "The packet that the ICMP error quotes has an invalid IP or GRE header, is of the \
             other IP version, or has a multicast source.";

        DiscoverySource, "discovery_source",
            "The source address is not allowed for this kind of discovery: router, redirect and \
             listener messages need a link-local source, and only a host without an address may \
             use ::.";
        DiscoveryHeaders, "discovery_headers",
            "Neighbor discovery follows IPv6 extension headers, or listener discovery follows \
             other headers than one hop-by-hop header with the router alert alone (RFC 3810 6.2).";
        DiscoveryLength, "discovery_length",
            "The discovery message is too short for its type, its length does not match its \
             records and sources, or more than 32 bytes follow it.";
        DiscoveryFields, "discovery_fields",
            "The type of the discovery message does not allow its code, flags, destination, target \
             or multicast address (RFC 4861, RFC 2710, RFC 3810).";
        DiscoveryOptions, "discovery_options",
            "An option of the discovery message is empty, exceeds the message or is not allowed \
             for its type, or more than 32 bytes of options are foreign to its type.";

        SctpHeaderTruncated, "sctp_header_truncated",
            "The IP payload is shorter than the 12 bytes of an SCTP common header.";
        SctpNoChunk, "sctp_no_chunk", "The SCTP packet has no chunk.";
        SctpChunkLength, "sctp_chunk_length",
            "An SCTP chunk's length is below 4, or the chunk with its padding exceeds the packet.";
        SctpTooManyChunks, "sctp_too_many_chunks", "The SCTP packet has more than 1024 chunks.";
        SctpBundling, "sctp_bundling",
            "The packet bundles SCTP chunks that may not be bundled: INIT, INIT ACK or SHUTDOWN \
             COMPLETE with any other, COOKIE ECHO or COOKIE ACK after another, or DATA with ABORT.";
        SctpInit, "sctp_init",
            "An SCTP INIT or INIT ACK is shorter than 20 bytes or has the initiate tag 0.";
        SctpTagOfInit, "sctp_tag_of_init",
            "The verification tag is 0 in an SCTP packet without INIT, or not 0 in one with INIT.";
        SctpChecksum, "sctp_checksum", "The SCTP checksum is wrong.";

        DccpHeaderTruncated, "dccp_header_truncated",
            "The IP payload is shorter than the header of a DCCP packet of its type.";
        DccpType, "dccp_type", "The DCCP packet is of a reserved type.";
        DccpShortSequence, "dccp_short_sequence",
            "A DCCP packet other than Data, Ack and DataAck has a sequence number of 24 bits.";
        DccpDataOffset, "dccp_data_offset",
            "The DCCP data offset is below the header length of its type or exceeds the IP \
             payload.";
        DccpChecksumCoverage, "dccp_checksum_coverage",
            "The DCCP checksum coverage exceeds the IP payload.";
        DccpChecksum, "dccp_checksum", "The DCCP checksum is wrong.";

        UdpLiteHeaderTruncated, "udp_lite_header_truncated",
            "The IP payload is shorter than the 8 bytes of a UDP-Lite header.";
        UdpLiteChecksumCoverage, "udp_lite_checksum_coverage",
            "The UDP-Lite checksum coverage is 1 to 7 or exceeds the IP payload.";
        UdpLiteChecksumMissing, "udp_lite_checksum_missing",
            "The UDP-Lite checksum is 0, which is not allowed.";
        UdpLiteChecksum, "udp_lite_checksum", "The UDP-Lite checksum is wrong.";

        GreHeaderTruncated, "gre_header_truncated",
            "The IP payload is shorter than the GRE header that its flags announce.";
        GreVersion, "gre_version", "The GRE version is neither 0 nor 1.";
        GreFlags, "gre_flags",
            "The GRE header has flags of RFC 1701 that must be 0, or is of version 1 and not the \
             form of PPTP: a key, no checksum, PPP inside.";
        GrePayloadLength, "gre_payload_length",
            "The payload length of a GRE packet of version 1 exceeds the IP payload.";
        GreChecksum, "gre_checksum", "The GRE checksum is wrong.";

        EspHeaderTruncated, "esp_header_truncated",
            "The IP payload is shorter than the 8 bytes of an ESP header.";
        EspSpiZero, "esp_spi_zero", "The security parameters index of ESP is 0, which is reserved.";
        AhHeaderTruncated, "ah_header_truncated",
            "The IP payload is shorter than the 12 fixed bytes of an authentication header.";
        AhLength, "ah_length",
            "The length of the authentication header is below 12, exceeds the IP payload or, in \
             IPv6, is not a multiple of 8.";
        AhSpiZero, "ah_spi_zero",
            "The security parameters index of the authentication header is 0, which is reserved.";
    }
}

impl Malformed {
    /// Returns the position of the reason in [`ALL`](Self::ALL), for a table of counters.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Malformed;

    #[test]
    fn names_are_snake_case_and_different() {
        let names: HashSet<_> = Malformed::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Malformed::ALL.len());
        for name in names {
            assert!(
                name.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
                "{name}"
            );
        }
    }

    #[test]
    fn an_index_finds_its_reason_in_all() {
        for (position, reason) in Malformed::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
            assert!(reason.describe().ends_with('.'));
            assert_eq!(reason.to_string(), reason.describe());
        }
    }
}
