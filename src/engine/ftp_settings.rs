//! Settings of control sessions of FTP: ports, refusals and announcements of helpers.

use std::sync::Arc;

use crate::config::{FtpConfig, FtpHandling, RefusedAnnouncement};
use crate::flow::End;
use crate::ftp::helper::Rules;
use crate::packet::{PROTOCOL_TCP, Parsed, TcpFlags, Transport};
use crate::policy::{NewSession, RuleId};
use crate::session::{SessionId, SessionUid, Slot};

/// The control session of an announced session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parent {
    pub(super) session: SessionId,
    pub(super) uid: SessionUid,
    pub(super) rule: RuleId,
}

/// Settings of control sessions.
#[derive(Debug)]
pub(super) struct FtpSettings {
    /// Every port that some rule treats as a control port.
    pub(super) candidates: Box<[u16]>,
    /// A bit for each candidate, by its port modulo 64, which excludes nearly all other sessions
    /// without a search.
    candidate_bits: u64,
    ports: Box<[u16]>,
    refused: RefusedAnnouncement,
    /// Settings of rules that differ, in the order of the rules' numbers.
    by_rule: Box<[(RuleId, FtpHandling)]>,
    pub(super) rules: Arc<Rules>,
    pub(super) max_memory: u32,
}

const fn bit(port: u16) -> u64 {
    1 << (port % 64)
}

impl FtpSettings {
    pub(super) fn new(config: &FtpConfig, by_rule: &[(RuleId, FtpHandling)]) -> Self {
        let of_rules = by_rule
            .iter()
            .flat_map(|(_, handling)| handling.ports.iter().flatten());
        let mut candidates: Vec<u16> = config.ports.iter().chain(of_rules).copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let mut by_rule = by_rule.to_vec();
        by_rule.sort_unstable_by_key(|(rule, _)| *rule);
        Self {
            candidate_bits: candidates.iter().fold(0, |bits, port| bits | bit(*port)),
            candidates: candidates.into(),
            ports: config.ports.clone().into(),
            refused: config.refused,
            by_rule: by_rule.into(),
            rules: Arc::new(Rules::new(config.settings())),
            max_memory: config.max_memory,
        }
    }

    /// Returns whether a session may be a control session: a TCP session to a control port of any
    /// rule.
    #[inline(always)]
    pub(super) fn may_be_control(&self, slot: &Slot) -> bool {
        // The raw ports of a TCP session are its ports.
        let [low, high] = slot.key.raw_ports();
        let port = match slot.initiator() {
            End::Low => high,
            End::High => low,
        };
        self.candidate_bits & bit(port) != 0
            && slot.key.protocol() == PROTOCOL_TCP
            && self.candidates.contains(&port)
    }

    /// Returns whether a session is a control session under the rule that admitted it.
    pub(super) fn is_control(&self, slot: &Slot, rule: RuleId) -> bool {
        let port = slot.key.port(slot.initiator().opposite());
        slot.key.protocol() == PROTOCOL_TCP && self.is_port(Some(port), rule)
    }

    /// Returns whether the first segment of a session must be dropped because its data, those of a
    /// SYN, cannot be read.
    pub(super) fn bars_opening(
        &self,
        query: &NewSession,
        rule: RuleId,
        parsed: &Parsed,
        is_whole: bool,
    ) -> bool {
        let Transport::Tcp { segment, .. } = &parsed.transport else {
            return false;
        };
        let brings = segment.payload_len > 0 || !is_whole;
        brings
            && segment.flags.contains(TcpFlags::SYN)
            && self.stops(rule)
            && self.is_port(query.dst_port, rule)
    }

    /// Returns whether a port is a control port under a rule.
    pub(super) fn is_port(&self, port: Option<u16>, rule: RuleId) -> bool {
        let ports = self
            .handling(rule)
            .and_then(|handling| handling.ports.as_deref());
        port.is_some_and(|port| ports.unwrap_or(&self.ports).contains(&port))
    }

    fn handling(&self, rule: RuleId) -> Option<&FtpHandling> {
        let place = self
            .by_rule
            .binary_search_by_key(&rule, |(rule, _)| *rule)
            .ok()?;
        self.by_rule.get(place).map(|(_, handling)| handling)
    }

    pub(super) fn stops(&self, rule: RuleId) -> bool {
        let of_rule = self.handling(rule).and_then(|handling| handling.refused);
        of_rule.unwrap_or(self.refused) == RefusedAnnouncement::Drop
    }
}
