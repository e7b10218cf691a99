//! The engine's verdicts on packets.
//!
//! A malformed packet gets a verdict with a reason, never an error. All types here are `Copy` and
//! allocate nothing. Every reason has one stable name, which is its counter's label and its key in
//! logs.

use std::time::Duration;

use crate::flow::Direction;
use crate::fragment::id::{HoldCause, HoldId};
use crate::packet::{Malformed, SeqNum};
use crate::session::end::EndReason;
use crate::session::id::SessionId;
use crate::session::time::TICK;

/// The verdict on one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a verdict has no effect unless the caller acts on it"]
pub enum Verdict {
    /// Forward the packet, byte for byte.
    Forward(Tracked),
    /// Discard the packet silently.
    Drop(DropReason, Tracked),
    /// Discard the packet and send the reply, if the budget allows one. An
    /// [`Outbox`](crate::Outbox) holds the reply, or
    /// [`Engine::write_reply`](crate::Engine::write_reply) writes it.
    Reject(DropReason, Reply, Tracked),
    /// Keep the packet and submit it again when it is released: it is a fragment that arrived
    /// before the first one of its datagram, or a packet whose session another engine may have had,
    /// about which a [`Question`](crate::Question) is asked. [`HeldPackets`](crate::HeldPackets)
    /// keeps such packets.
    ///
    /// Only packets marked with [`Packet::can_hold`](crate::Packet::can_hold) get this verdict: a
    /// fragment only while `fragments.hold` is above 0, another packet only with
    /// `continuity.enabled`, and both only while there is room. If the caller marks no packets,
    /// such a fragment is dropped ([`DropReason::FragmentBeforeFirst`]), and nothing is asked.
    Hold(HoldId, Tracked),
}

/// The engine's classification of a packet, independent of the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// The packet's relation to the sessions.
    pub class: Class,
    /// The packet's direction in its session.
    pub direction: Option<Direction>,
    /// The packet's session.
    pub session: Option<SessionId>,
    /// The reason for which the packet would have been dropped, if it was tolerated: a check only
    /// counts, the session is tracked liberally, or the rule's action is audit
    /// ([`DropReason::PolicyDeny`]).
    pub tolerated: Option<DropReason>,
    /// For a late packet, the remembered end of its session.
    pub late: Option<Late>,
}

/// The end of a session that a late packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// The reason for which the session ended.
    pub reason: EndReason,
    ticks: u32,
}

impl Late {
    pub(crate) const fn new(reason: EndReason, ticks: u32) -> Self {
        Self { reason, ticks }
    }

    /// Returns the time since the end, to a tenth of a second ([`crate::session::TICK`]).
    #[must_use]
    pub fn ago(self) -> Duration {
        TICK * self.ticks
    }
}

impl Tracked {
    pub(crate) const fn class(class: Class) -> Self {
        Self {
            class,
            direction: None,
            session: None,
            tolerated: None,
            late: None,
        }
    }
}

/// The relation of a packet to the sessions, which Linux calls the conntrack state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// The packet opens a session, or belongs to one that has not been answered yet.
    New = 0,
    /// The packet belongs to a session with traffic in both directions, or is the first answer.
    Established = 1,
    /// The packet is an ICMP error about a session, or belongs to the child of one.
    Related = 2,
    /// The packet fits no session in its current state, and cannot open one.
    Invalid = 3,
    /// The packet is never tracked: neighbor and multicast listener discovery on a link, and ICMPv6
    /// redirects where their check only counts.
    Untracked = 4,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 5] = [
        Self::New,
        Self::Established,
        Self::Related,
        Self::Invalid,
        Self::Untracked,
    ];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Related => "related",
            Self::Invalid => "invalid",
            Self::Untracked => "untracked",
        }
    }
}

/// The reply to a rejected packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// A TCP RST, as a closed port sends it (RFC 9293 3.5.2).
    TcpReset,
    /// A TCP RST with this sequence number, which the packet's sender expects.
    TcpResetAt(SeqNum),
    /// An SCTP ABORT to the sender of an INIT, with the initiate tag of that chunk and without the
    /// flag T (RFC 9260 8.4, rule 3).
    SctpAbort,
    /// ICMP destination unreachable, administratively prohibited (RFC 1812 5.2.7.1; RFC 4443 3.1).
    Prohibited,
    /// A SYN-ACK that acknowledges this number, which no SYN-SENT stack accepts: its sender answers
    /// with a RST that carries the number (RFC 9293 3.10.7.3). The SYN-ACK takes the reverse path
    /// of the SYN.
    Challenge(SeqNum),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// The reason for which a packet was not forwarded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DropReason {
            /// The packet is malformed.
            Malformed(Malformed),
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// All reasons except the malformations.
            pub const TRACKING: &'static [Self] = &[$(Self::$variant),+];

            /// Returns a number below [`DropReason::COUNT`], the index of the reason's counter. The
            /// number may change between versions.
            #[must_use]
            pub fn index(self) -> usize {
                /// The reasons except the malformations, numbered.
                enum Place {
                    $($variant,)+
                }
                match self {
                    Self::Malformed(malformed) => Self::TRACKING.len() + malformed.index(),
                    $(Self::$variant => Place::$variant as usize,)+
                }
            }

            /// Returns the stable name: counter label and log key.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Malformed(malformed) => malformed.name(),
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns a description for operators, in one or more sentences.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self {
                    Self::Malformed(malformed) => malformed.describe(),
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The packet is a later fragment of a datagram whose first fragment, the one with the ports,
    /// has not arrived: not within `fragments.hold`, if the packet could be held.
    FragmentBeforeFirst = "fragment_before_first",
    /// The packet is a later fragment of a datagram that was dropped: its first fragment was
    /// refused, or a fragment before this one broke the datagram.
    FragmentOfDropped = "fragment_of_dropped",
    /// The packet is a fragment whose bytes have all passed before.
    FragmentDuplicate = "fragment_duplicate",
    /// The packet is a fragment that overlaps bytes that have passed before (RFC 5722). The rest of
    /// the datagram is dropped too.
    FragmentOverlap = "fragment_overlap",
    /// The packet is a fragment that exceeds the end of its datagram or contradicts it. The rest of
    /// the datagram is dropped too.
    FragmentBeyondEnd = "fragment_beyond_end",
    /// The packet is a fragment of a datagram with too many fragments or too many gaps. The rest of
    /// the datagram is dropped too.
    FragmentTooMany = "fragment_too_many",
    /// The packet is a later fragment of a datagram whose lifetime has expired.
    FragmentExpired = "fragment_expired",
    /// The packet is a later fragment of a datagram that was evicted for a newer one, because its
    /// source has too many fragmented datagrams (`fragments.max_per_source`).
    FragmentSourceLimit = "fragment_source_limit",
    /// The packet is a later fragment of a datagram that was evicted for a newer one, because there
    /// are too many fragmented datagrams (`fragments.max_datagrams`) and its source had the most.
    FragmentTableFull = "fragment_table_full",
    /// The packet is a fragment of neighbor or multicast listener discovery, which is never
    /// fragmented (RFC 6980).
    DiscoveryFragmented = "discovery_fragmented",
    /// The packet has a source route: an IPv4 LSRR or SSRR option, or an IPv6 routing header with
    /// segments left. After its destination address it would travel to another one, which no rule
    /// can match (RFC 7126 4.3, 4.4).
    SourceRoute = "source_route",
    /// The packet has an IPv4 option, or an IPv6 hop-by-hop, destination or routing header, which
    /// neither `ip.options` nor its rule allows.
    IpOptions = "ip_options",
    /// The packet's time to live, or hop limit, is 0: no host sends and no router forwards such a
    /// packet.
    TtlZero = "ttl_zero",
    /// The packet's source and destination are the same address.
    AddressLand = "address_land",
    /// A packet address is a loopback address (127.0.0.0/8, ::1), which never leaves its host. On a
    /// link, a packet of a loopback interface, with two such addresses, is forwarded.
    AddressLoopback = "address_loopback",
    /// A packet address is unspecified (0.0.0.0, ::). On a link, a source without an address may
    /// request one (DHCP), and may send IGMP or discovery.
    AddressUnspecified = "address_unspecified",
    /// A packet address is reserved (0.0.0.0/8, 240.0.0.0/4), or is the limited broadcast address
    /// (255.255.255.255) in a tunnel.
    AddressReserved = "address_reserved",
    /// A packet address is an IPv6 address that represents an IPv4 address (::ffff:0.0.0.0/96,
    /// ::/96), which no IPv4 rule would match.
    AddressMapped = "address_mapped",
    /// A packet address is link-local (fe80::/10, or a group of that scope), and the packet comes
    /// through a tunnel.
    AddressLinkLocal = "address_link_local",
    /// The packet is TCP, SCTP or DCCP to a multicast or broadcast address: these protocols connect
    /// two hosts.
    ConnectionToMulticast = "connection_to_multicast",
    /// Neither end of the session that the packet would open lies in the prefixes of its zone
    /// (`ip.inside`).
    AddressOutside = "address_outside",
    /// The packet is TCP, has no session, and is not a SYN that could open one.
    TcpNoSession = "tcp_no_session",
    /// The packet's TCP flags do not fit the session's state and direction.
    TcpState = "tcp_state",
    /// The packet's sequence number is above the receiver's window (bound I).
    TcpSeqAboveWindow = "tcp_seq_above_window",
    /// The packet acknowledges data that was never sent (bound III).
    TcpAckOfUnseen = "tcp_ack_of_unseen",
    /// The packet is a RST older than what its receiver has acknowledged (RFC 5961 3.2).
    TcpRstBelowWindow = "tcp_rst_below_window",
    /// The packet completes a split handshake: the responder answered a SYN with a SYN and not with
    /// a SYN-ACK, so the ends have swapped roles.
    TcpSplitHandshake = "tcp_split_handshake",
    /// The packet is SCTP, has no session, and is not an INIT that could open one.
    SctpNoSession = "sctp_no_session",
    /// The packet's SCTP chunks do not fit the session's state and direction.
    SctpState = "sctp_state",
    /// The packet's SCTP verification tag is not the one that its receiver has chosen (RFC 9260
    /// 8.5).
    SctpTag = "sctp_tag",
    /// The packet is DCCP, has no session, and is not a Request that could open one.
    DccpNoSession = "dccp_no_session",
    /// The packet's DCCP type does not fit the session's state and direction.
    DccpState = "dccp_state",
    /// The packet acknowledges a DCCP packet that was never sent.
    DccpAckOfUnseen = "dccp_ack_of_unseen",
    /// The packet is an ICMP reply without a query.
    IcmpReplyNoSession = "icmp_reply_no_session",
    /// The packet is an ICMPv6 error of a type that is not assigned, reserved, or for private
    /// experiments: 0 and 5 to 127 (RFC 4443).
    IcmpTypeUnsupported = "icmp_type_unsupported",
    /// The packet is an ICMP error that quotes a packet without a session.
    IcmpErrorNoSession = "icmp_error_no_session",
    /// The packet is an ICMP error that quotes a packet of a session that ended recently. The error
    /// is late and harmless: a host that waited for the rest of a datagram sends one, and a router
    /// about the last packet of a session.
    IcmpErrorAfterEnd = "icmp_error_after_end",
    /// The packet is an ICMP error that is not addressed to the sender of the quoted packet.
    IcmpErrorNotToSender = "icmp_error_not_to_sender",
    /// The packet is an ICMP error about an ICMP error, which RFC 1122 3.2.2 forbids.
    IcmpErrorAboutError = "icmp_error_about_error",
    /// The packet is an ICMP error that quotes a TCP sequence number that the quoted packet's
    /// sender cannot have in flight (RFC 5927 4.1).
    IcmpErrorSequence = "icmp_error_sequence",
    /// The packet is an ICMP source quench, which hosts and routers must neither send nor honor
    /// (RFC 6633).
    IcmpSourceQuench = "icmp_source_quench",
    /// The packet is an ICMP error that announces an MTU below the minimum: 68 bytes in IPv4 (RFC
    /// 791), 1280 in IPv6 (RFC 8200 5, RFC 8201 4).
    IcmpErrorMtuTooSmall = "icmp_error_mtu_too_small",
    /// The packet is an ICMP error that announces an MTU into which the quoted packet fits. Quoted
    /// packets of tunnels are exempt.
    IcmpErrorMtuFits = "icmp_error_mtu_fits",
    /// The packet is neighbor, router or multicast listener discovery in a tunnel, where link
    /// traffic does not belong (`engine.attachment`).
    DiscoveryInTunnel = "discovery_in_tunnel",
    /// The packet is discovery whose hop limit is not that of its type, 255 or 1, so it has left
    /// its link (RFC 4861 7.1.1, RFC 3810 5).
    DiscoveryOffLink = "discovery_off_link",
    /// The packet is an ICMP redirect, which belongs on the link of its receiver. In a tunnel it is
    /// dropped even if `checks.icmp_redirect` is set to count.
    IcmpRedirect = "icmp_redirect",
    /// The packet is a SYN-ACK, and the SYN that it answers has not passed here. The SYN may have
    /// taken another path.
    TcpSynAckWithoutSyn = "tcp_syn_ack_without_syn",
    /// The packet completes a handshake whose SYN-ACK has not passed here. The SYN-ACK may have
    /// taken another path.
    TcpAckWithoutSynAck = "tcp_ack_without_syn_ack",
    /// The packet's session is in another zone: the two directions of the conversation come through
    /// different endpoints.
    OtherZone = "other_zone",
    /// The packet's session has expired here, but its ends still use it.
    TcpAfterTimeout = "tcp_after_timeout",
    /// The packet's session was ended by a RST.
    TcpAfterReset = "tcp_after_reset",
    /// The packet's session was evicted for another when the table was full.
    TcpAfterEviction = "tcp_after_eviction",
    /// The packet's session was ended by a reload of the policy, which no longer admits it.
    TcpAfterRevocation = "tcp_after_revocation",
    /// The packet's session was ended by an operator.
    TcpAfterDeletion = "tcp_after_deletion",
    /// The packet belongs to a control session in which an announcement was refused, and the rule
    /// does not allow such a session to continue. Or the packet cannot be read completely and in
    /// order, as the rule requires.
    FtpRefused = "ftp_refused",
    /// A rule or the default action denies the session that the packet would open.
    PolicyDeny = "policy_deny",
    /// A rule or the default action rejects the session that the packet would open.
    PolicyReject = "policy_reject",
    /// The packet is a SYN of an unknown source under flood. It is answered with a SYN-ACK that
    /// checks whether the source exists (`syn_challenge`). A real host sends its SYN again, which
    /// is then forwarded.
    SynChallenged = "syn_challenged",
    /// The packet is a SYN of an unknown source under flood, and `syn_challenge.per_second`
    /// challenges have already been sent in this second.
    SynChallengeBudget = "syn_challenge_budget",
    /// The packet is the RST that answers a challenge. Its source is real, and the next SYN of that
    /// source is forwarded.
    SynValidated = "syn_validated",
    /// The session that the packet would open exceeds the limit of its zone or its rule
    /// (`max_sessions` of `limits`).
    LimitSessions = "limit_sessions",
    /// The session that the packet would open exceeds the limit for its source (`max_per_source`).
    LimitSource = "limit_source",
    /// The session that the packet would open exceeds the limit for its destination
    /// (`max_per_destination`).
    LimitDestination = "limit_destination",
    /// The TCP session that the packet would open exceeds its source's limit of sessions whose
    /// handshake is not complete (`max_half_open_per_source`).
    LimitHalfOpen = "limit_half_open",
    /// The packet's source opens sessions faster than allowed (`new_per_second_per_source`).
    LimitRate = "limit_rate",
    /// The packet's source has at least 64 sessions, and more than the slots that are left for
    /// others. This limit needs no setting and applies only when the table is filling up.
    LimitSourceShare = "limit_source_share",
    /// The packet's zone has more sessions than its guaranteed share. The only slots left are
    /// guaranteed to other zones, or hold sessions of a higher eviction class.
    LimitZoneShare = "limit_zone_share",
    /// The session table is full, and no session in reach has a lower eviction class than the
    /// session that the packet would open.
    TableFull = "table_full",
    /// The packet would open a session, and its worker is overloaded. Packets of sessions take
    /// precedence, and so do SYNs unless they are the flood.
    Overload = "overload",
    /// The packet would open a session, and the session log cannot be written
    /// (`log.fail_closed`). Packets of sessions are forwarded as always.
    LogUnavailable = "log_unavailable",
}

impl DropReason {
    /// The reasons of checks that can be set to count instead of drop.
    pub const CHECKS: [Self; 13] = [
        Self::TcpState,
        Self::TcpSeqAboveWindow,
        Self::TcpAckOfUnseen,
        Self::TcpRstBelowWindow,
        Self::TcpSplitHandshake,
        Self::IcmpErrorNotToSender,
        Self::IcmpErrorSequence,
        Self::IcmpErrorMtuFits,
        Self::IcmpRedirect,
        Self::SctpState,
        Self::SctpTag,
        Self::DccpState,
        Self::DccpAckOfUnseen,
    ];

    /// The number of reasons.
    pub const COUNT: usize = Self::TRACKING.len() + Malformed::ALL.len();

    /// Returns all reasons, in the order of [`DropReason::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        Self::TRACKING
            .iter()
            .copied()
            .chain(Malformed::ALL.iter().copied().map(Self::Malformed))
    }

    /// Returns whether the reason keeps a SYN from opening a session until its source is validated.
    pub(crate) const fn is_challenge(self) -> bool {
        matches!(self, Self::SynChallenged | Self::SynChallengeBudget)
    }
}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl Verdict {
    /// Returns the engine's classification of the packet.
    #[must_use]
    pub const fn tracked(&self) -> &Tracked {
        match self {
            Self::Forward(tracked)
            | Self::Drop(_, tracked)
            | Self::Reject(_, _, tracked)
            | Self::Hold(_, tracked) => tracked,
        }
    }

    /// Returns whether the packet is forwarded.
    #[must_use]
    pub const fn is_forward(&self) -> bool {
        matches!(self, Self::Forward(_))
    }

    /// Returns the reason for which the packet is not forwarded, or is held.
    #[must_use]
    pub const fn reason(&self) -> Option<DropReason> {
        match self {
            Self::Forward(_) => None,
            Self::Drop(reason, _) | Self::Reject(reason, _, _) => Some(*reason),
            Self::Hold(id, _) => Some(match id.cause() {
                None => DropReason::FragmentBeforeFirst,
                Some(HoldCause::Tcp) => DropReason::TcpNoSession,
                Some(HoldCause::Sctp) => DropReason::SctpNoSession,
                Some(HoldCause::Dccp) => DropReason::DccpNoSession,
                Some(HoldCause::IcmpReply) => DropReason::IcmpReplyNoSession,
                Some(HoldCause::Denied) => DropReason::PolicyDeny,
                Some(HoldCause::IcmpError) => DropReason::IcmpErrorNoSession,
            }),
        }
    }

    /// Returns the stable name: `forward`, `drop`, `reject` or `hold`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Drop(..) => "drop",
            Self::Reject(..) => "reject",
            Self::Hold(..) => "hold",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_counter() {
        let names: HashSet<_> = DropReason::all().map(DropReason::name).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (index, reason) in DropReason::all().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(!reason.describe().is_empty());
            assert!(
                reason
                    .name()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
        }
    }

    #[test]
    fn a_verdict_fits_five_words() {
        assert!(size_of::<Verdict>() <= 40, "{}", size_of::<Verdict>());
    }
}
