//! The ways in which a packet can be malformed.

use crate::reasons::reasons;

reasons! {
    /// Reason for which a packet cannot be parsed or has no valid meaning.
    ///
    /// Each reason has a stable [`name`](Self::name) for counters and logs and a sentence that
    /// [`describe`](Self::describe)s it. Where several apply, the outermost header's is given.
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
            "The IPv4 total length is beyond the end of the packet.";
        Ipv4HeaderChecksum, "ipv4_header_checksum",
            "The IPv4 header checksum is wrong.";
        Ipv4Option, "ipv4_option",
            "An IPv4 option has a length below 2 or beyond the header, or a pointer outside the \
             option, or is a second source route.";

        Ipv6HeaderTruncated, "ipv6_header_truncated",
            "The packet ends inside the 40 bytes of the IPv6 header.";
        Ipv6PayloadLengthZero, "ipv6_payload_length_zero",
            "The IPv6 payload length is 0 although a header is to follow, as in a jumbogram.";
        Ipv6PayloadLengthBeyondPacket, "ipv6_payload_length_beyond_packet",
            "The IPv6 payload length is beyond the end of the packet.";
        Ipv6ExtensionTruncated, "ipv6_extension_truncated",
            "The packet ends inside an IPv6 extension header.";
        Ipv6ExtensionChainTooLong, "ipv6_extension_chain_too_long",
            "More than 8 IPv6 extension headers stand before the transport header.";
        Ipv6HopByHopNotFirst, "ipv6_hop_by_hop_not_first",
            "An IPv6 hop-by-hop header stands elsewhere than directly behind the IPv6 header.";
        Ipv6RoutingHeaderType0, "ipv6_routing_header_type_0",
            "An IPv6 routing header of type 0 has segments left, which RFC 5095 forbids to \
             forward.";
        Ipv6FragmentHeaderRepeated, "ipv6_fragment_header_repeated",
            "The packet has more than one IPv6 fragment header.";

        SourceAddressNotUnicast, "source_address_not_unicast",
            "The source address is a multicast address or the broadcast address.";

        FragmentEmpty, "fragment_empty", "The fragment carries no bytes.";
        FragmentLengthNotMultipleOf8, "fragment_length_not_multiple_of_8",
            "More fragments are to follow, but the length of this one is no multiple of 8.";
        FragmentBeyond65535, "fragment_beyond_65535",
            "The fragment would make a packet longer than its length field can say.";
        FragmentTiny, "fragment_tiny",
            "The first fragment ends inside the transport header (RFC 1858, RFC 7112).";
        FragmentInsideTcpHeader, "fragment_inside_tcp_header",
            "A fragment of a TCP segment begins inside the TCP header (RFC 1858, RFC 3128).";

        TcpHeaderTruncated, "tcp_header_truncated",
            "The IP payload is shorter than the 20 bytes of a TCP header.";
        TcpHeaderLength, "tcp_header_length",
            "The TCP data offset is below 5 words or beyond the end of the IP payload.";
        TcpFlags, "tcp_flags", "The combination of TCP flags means nothing.";
        TcpChecksum, "tcp_checksum", "The TCP checksum is wrong.";

        UdpHeaderTruncated, "udp_header_truncated",
            "The IP payload is shorter than the 8 bytes of a UDP header.";
        UdpLength, "udp_length",
            "The UDP length is below 8 or beyond the end of the IP payload.";
        UdpChecksum, "udp_checksum", "The UDP checksum is wrong.";
        UdpChecksumMissingIpv6, "udp_checksum_missing_ipv6",
            "The UDP checksum is 0 over IPv6, and `engine.checksums` is `require`.";

        IcmpHeaderTruncated, "icmp_header_truncated",
            "The IP payload is shorter than the 8 bytes of an ICMP header.";
        IcmpChecksum, "icmp_checksum", "The ICMP or ICMPv6 checksum is wrong.";
        IcmpVersionMismatch, "icmp_version_mismatch",
            "ICMPv6 stands in IPv4, or ICMP in IPv6.";
        IcmpErrorQuoteTruncated, "icmp_error_quote_truncated",
            "The ICMP error quotes less than the IP header and 8 bytes of the transport header.";
        IcmpErrorQuoteMalformed, "icmp_error_quote_malformed",
            "The packet that the ICMP error quotes has a bad IP or GRE header, is of the other IP \
             version or comes from a group.";

        DiscoverySource, "discovery_source",
            "The source address may not send this kind of discovery: a router, a redirect or a \
             listener needs a link-local one, and only a host without an address may use ::.";
        DiscoveryHeaders, "discovery_headers",
            "Neighbor discovery stands behind IPv6 extension headers, or listener discovery behind \
             others than one hop-by-hop header with the router alert alone (RFC 3810 6.2).";
        DiscoveryLength, "discovery_length",
            "The discovery message is shorter than its type, or not as long as its records and \
             sources, or more than 32 bytes follow it.";
        DiscoveryFields, "discovery_fields",
            "The code, a flag, the destination, the target or a multicast address of the discovery \
             message is not one that its type allows (RFC 4861, RFC 2710, RFC 3810).";
        DiscoveryOptions, "discovery_options",
            "An option of the discovery message is empty, goes beyond its end or is not one that \
             its type allows, or more than 32 bytes of options are foreign to its type.";

        SctpHeaderTruncated, "sctp_header_truncated",
            "The IP payload is shorter than the 12 bytes of an SCTP common header.";
        SctpNoChunk, "sctp_no_chunk", "The SCTP packet has no chunk.";
        SctpChunkLength, "sctp_chunk_length",
            "An SCTP chunk's length is below 4, or the chunk with its padding ends beyond the \
             packet.";
        SctpTooManyChunks, "sctp_too_many_chunks", "The SCTP packet has more than 1024 chunks.";
        SctpBundling, "sctp_bundling",
            "SCTP chunks stand together that may not: INIT, INIT ACK or SHUTDOWN COMPLETE with any \
             other, COOKIE ECHO or COOKIE ACK behind another, or DATA with ABORT.";
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
            "The DCCP data offset is below the header of its type or beyond the end of the IP \
             payload.";
        DccpChecksumCoverage, "dccp_checksum_coverage",
            "The DCCP checksum coverage is beyond the end of the IP payload.";
        DccpChecksum, "dccp_checksum", "The DCCP checksum is wrong.";

        UdpLiteHeaderTruncated, "udp_lite_header_truncated",
            "The IP payload is shorter than the 8 bytes of a UDP-Lite header.";
        UdpLiteChecksumCoverage, "udp_lite_checksum_coverage",
            "The UDP-Lite checksum coverage is 1 to 7 or beyond the end of the IP payload.";
        UdpLiteChecksumMissing, "udp_lite_checksum_missing",
            "The UDP-Lite checksum is 0, which is not allowed.";
        UdpLiteChecksum, "udp_lite_checksum", "The UDP-Lite checksum is wrong.";

        GreHeaderTruncated, "gre_header_truncated",
            "The IP payload is shorter than the GRE header that its flags announce.";
        GreVersion, "gre_version", "The GRE version is neither 0 nor 1.";
        GreFlags, "gre_flags",
            "The GRE header has flags of RFC 1701 that must be 0, or is of version 1 and not \
             PPTP's: a key, no checksum, PPP inside.";
        GrePayloadLength, "gre_payload_length",
            "The payload length of a GRE packet of version 1 is beyond the end of the IP payload.";
        GreChecksum, "gre_checksum", "The GRE checksum is wrong.";

        EspHeaderTruncated, "esp_header_truncated",
            "The IP payload is shorter than the 8 bytes of an ESP header.";
        EspSpiZero, "esp_spi_zero", "The security parameters index of ESP is 0, which is reserved.";
        AhHeaderTruncated, "ah_header_truncated",
            "The IP payload is shorter than the 12 fixed bytes of an authentication header.";
        AhLength, "ah_length",
            "The length of the authentication header is below 12, beyond the end of the IP payload \
             or, in IPv6, no multiple of 8.";
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
