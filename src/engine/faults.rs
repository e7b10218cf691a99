//! Drop reasons for the faults that the trackers find.

use crate::track::tcp::Fault;
use crate::track::{dccp, sctp};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

pub(super) const fn drop_of(fault: Fault) -> DropReason {
    match fault {
        Fault::State => DropReason::TcpState,
        Fault::SeqAboveWindow => DropReason::TcpSeqAboveWindow,
        Fault::AckOfUnseen => DropReason::TcpAckOfUnseen,
        Fault::SplitHandshake => DropReason::TcpSplitHandshake,
        Fault::RstBelowWindow => DropReason::TcpRstBelowWindow,
    }
}

pub(super) const fn drop_of_sctp(fault: sctp::Fault) -> DropReason {
    match fault {
        sctp::Fault::State => DropReason::SctpState,
        sctp::Fault::Tag => DropReason::SctpTag,
    }
}

pub(super) const fn drop_of_dccp(fault: dccp::Fault) -> DropReason {
    match fault {
        dccp::Fault::State => DropReason::DccpState,
        dccp::Fault::Ack => DropReason::DccpAckOfUnseen,
    }
}

pub(super) const fn invalid(reason: DropReason) -> Verdict {
    Verdict::Drop(reason, Tracked::class(Class::Invalid))
}
