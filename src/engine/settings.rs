//! Settings of the packet path: everything that a reload changes, in one value.

use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use super::budget::Rates;
use super::challenge::zones::ChallengeSettings;
use super::enforcement::Enforcement;
use super::ftp_settings::FtpSettings;
use super::screen::Screen;
use super::zone_hints::ZoneHints;
use crate::config::{AsymmetryConfig, Attachment, Compiled, OnReload, ResetsConfig, Zones};
use crate::explain::{Step, Trace};
use crate::flow::Zone;
use crate::lifetime::{LifetimeTable, Subject};
use crate::limits::{Accounts, Adaptive, Counts, Limits};
use crate::packet::Ip;
use crate::policy::address::AddressMap;
use crate::policy::handling::{
    Asymmetric, Handling, LatePacket, Midstream, OptionsMode, TcpHandling, TcpMode,
};
use crate::policy::{CompiledPolicy, NewSession, RuleId};
use crate::reserve::NoMemory;
use crate::session::{Micros, Slot};
use crate::track::tcp::State;
use crate::track::{EvictionClass, Lifetime, LifetimeClass};
use crate::verdict::DropReason;

/// The settings. Each shard of the table holds them beside its sessions, so that all settings read
/// under the shard's lock belong to one configuration.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) policy: Arc<CompiledPolicy>,
    pub(super) lifetimes: LifetimeTable,
    /// Kind of link or tunnel from which packets arrive.
    pub(super) attachment: Attachment,
    pub(super) screen: Screen,
    /// Handling of packets with IP options for rules that do not specify it.
    options: OptionsMode,
    /// Whether packets with IP options may have to be dropped.
    pub(super) any_strict_options: bool,
    /// Prefixes that must contain one end of each new session, in the order of the zones. Most
    /// configurations have none.
    inside: Box<[(Zone, AddressMap<()>)]>,
    pub(super) enforcement: Enforcement,
    pub(super) asymmetry: AsymmetryConfig,
    resets: ResetsConfig,
    /// Settings for challenging the source of a SYN.
    pub(super) challenge: ChallengeSettings,
    /// Time after the first packet during which connections are adopted, in microseconds.
    pub(super) failover_us: u64,
    pub(super) ftp: FtpSettings,
    pub(super) on_reload: OnReload,
    tcp: Handling,
    tcp_zones: Box<[(Zone, TcpHandling)]>,
    /// Adaptive lifetimes of unanswered sessions.
    adaptive: Adaptive,
    accounts: Arc<Accounts>,
    /// The zones that share bounded resources, in order.
    pub(super) zones: Box<[Zone]>,
    /// The zones by name.
    pub(super) zone_names: Zones,
    /// The time at which the next rule expires.
    pub(super) rules_expire: Option<SystemTime>,
    /// Limits of zones, rules and sources.
    pub(super) limits: Limits,
    /// Hints about the zone of a packet's session.
    pub(super) zone_hints: ZoneHints,
    /// Whether any connection may be adopted midstream, or midstream segments may be rejected. If
    /// not, the packet path skips these checks.
    pub(super) any_midstream: bool,
    /// Whether some asymmetric paths may be reported or bypassed.
    pub(super) any_asymmetric: bool,
    /// Whether some sessions may be tracked other than strictly.
    any_liberal: bool,
}

impl Settings {
    /// Returns the settings of a configuration; hints of `previous` settings about sessions in
    /// other zones are kept.
    pub(super) fn new(
        compiled: Compiled,
        hasher: ahash::RandomState,
        accounts: &Arc<Accounts>,
        previous: Option<&Self>,
    ) -> Result<Self, NoMemory> {
        let tcp = compiled.tcp.handling();
        let zones = &compiled.tcp_zones;
        let any = |says: &dyn Fn(&TcpHandling) -> bool| {
            zones.iter().any(|(_, handling)| says(handling)) || compiled.policy.any_tcp(says)
        };
        let any_midstream = tcp.midstream != Midstream::Drop
            || any(&|handling| {
                handling
                    .midstream
                    .is_some_and(|midstream| midstream != Midstream::Drop)
            });
        let any_asymmetric = tcp.asymmetric != Asymmetric::Drop
            || any(&|handling| {
                handling
                    .asymmetric
                    .is_some_and(|mode| mode != Asymmetric::Drop)
            });
        let any_liberal = tcp.mode != TcpMode::Strict
            || any(&|handling| handling.mode.is_some_and(|mode| mode != TcpMode::Strict));
        let any_strict_options =
            compiled.ip.options == OptionsMode::Strict || compiled.policy.any_strict_options();
        let inside = compiled
            .inside
            .iter()
            .map(|(zone, prefixes)| (*zone, address_set(prefixes)));
        let inside = inside.collect();
        Ok(Self {
            enforcement: Enforcement::new(&compiled, hasher),
            challenge: ChallengeSettings::new(
                &compiled,
                previous.map(|settings| &settings.challenge),
            ),
            any_midstream,
            any_asymmetric,
            any_liberal,
            zones: compiled.zones.named().into(),
            tcp,
            zone_hints: ZoneHints::new(
                compiled.zones.distinct().collect(),
                any_asymmetric,
                compiled.fixed.max_sessions as usize,
                previous.map(|settings| &settings.zone_hints),
            )?,
            policy: Arc::new(compiled.policy),
            lifetimes: compiled.lifetimes,
            attachment: compiled.attachment,
            screen: Screen::new(compiled.checksums, compiled.attachment, &compiled.ip),
            options: compiled.ip.options,
            any_strict_options,
            inside,
            asymmetry: compiled.asymmetry,
            resets: compiled.resets,
            failover_us: compiled.tcp.failover.as_micros() as u64,
            ftp: FtpSettings::new(&compiled.ftp, &compiled.ftp_rules),
            on_reload: compiled.on_reload,
            tcp_zones: compiled.tcp_zones.into(),
            adaptive: compiled.adaptive,
            accounts: Arc::clone(accounts),
            limits: compiled.limits,
            zone_names: compiled.zones,
            rules_expire: compiled.rules_expire,
        })
    }

    /// Returns the rates of packets that the engine sends.
    pub(super) fn rates(&self) -> Rates<'_> {
        Rates {
            config: &self.resets,
            zones: &self.zones,
        }
    }

    /// Returns whether a packet has IP options that a rule's sessions may not have.
    #[inline]
    pub(super) fn bars_options(&self, ip: &Ip, rule: RuleId) -> bool {
        self.any_strict_options && !ip.options.is_empty() && !self.allows_options(rule)
    }

    /// Returns whether packets with IP options may pass in sessions of a rule.
    #[cold]
    pub(super) fn allows_options(&self, rule: RuleId) -> bool {
        self.policy.options(rule).unwrap_or(self.options) == OptionsMode::Allow
    }

    /// Returns whether a new session has no end in the inside prefixes of its zone; `false` if the
    /// zone has none.
    #[inline]
    pub(super) fn is_outside(&self, zone: Zone, ip: &Ip) -> bool {
        let place = self.inside.binary_search_by_key(&zone, |(each, _)| *each);
        let of_zone = place.ok().and_then(|place| self.inside.get(place));
        of_zone.is_some_and(|(_, prefixes)| {
            let ends = [ip.source(), ip.destination()];
            !ends
                .iter()
                .any(|end| prefixes.longest_match(*end).is_some())
        })
    }

    /// Returns the reason to drop a packet that a rule allows without a session: such a packet must
    /// meet the requirements for the first packet of a session.
    #[cold]
    pub(super) fn bars_untracked(&self, zone: Zone, ip: &Ip, rule: RuleId) -> Option<DropReason> {
        if self.is_outside(zone, ip) {
            return Some(DropReason::AddressOutside);
        }
        self.bars_options(ip, rule).then_some(DropReason::IpOptions)
    }

    /// Takes over the counts of earlier settings, by the names of the rules.
    pub(super) fn take_counts(&self, previous: &Self) {
        if !std::ptr::eq(self, previous) {
            self.policy.take_hits(&previous.policy);
            self.enforcement.take_tolerated(&previous.enforcement);
        }
    }

    /// Returns the handling of TCP in a zone's sessions that a rule admits.
    pub(super) fn tcp(&self, rule: RuleId, zone: Zone) -> Handling {
        self.policy.handling(rule, self.tcp_in(zone))
    }

    /// Returns whether a zone's sessions that a rule admits are tracked strictly.
    #[inline]
    pub(super) fn is_strict(&self, rule: RuleId, zone: Zone) -> bool {
        !self.any_liberal || self.tcp(rule, zone).mode == TcpMode::Strict
    }

    /// Returns the handling of TCP in a zone, without a rule.
    fn tcp_in(&self, zone: Zone) -> Handling {
        let of_zone = self.tcp_zones.iter().find(|(each, _)| *each == zone);
        of_zone.map_or(self.tcp, |(_, handling)| self.tcp.under(*handling))
    }

    /// Returns the entries in which a session of a zone and a rule is counted.
    pub(super) fn counts(&self, zone: Zone, rule: RuleId) -> Counts {
        self.limits.counts(zone, self.policy.bounds(rule))
    }

    /// Returns the handling of late packets of a session; see [`LatePacket`].
    pub(super) fn late(&self, rule: RuleId, zone: Zone) -> LatePacket {
        self.tcp(rule, zone).late
    }

    /// Returns the lifetime profile of a session that a rule has admitted.
    pub(super) fn profile(&self, session: &NewSession, rule: RuleId) -> u8 {
        self.lifetimes.select(&Subject {
            zone: session.zone,
            src: session.src,
            dst: session.dst,
            protocol: session.protocol,
            dst_port: session.dst_port,
            rule,
        })
    }

    /// Returns the length of a lifetime in a profile, in milliseconds.
    pub(super) fn millis(&self, profile: u8, lifetime: Lifetime) -> u32 {
        let lifetimes = self.lifetimes.profile(profile);
        let millis = lifetimes.millis(lifetime.class);
        lifetime
            .cap
            .map_or(millis, |cap| millis.min(lifetimes.millis(cap)))
    }

    /// Returns the tick at which a session ends if no further packet arrives.
    pub(super) fn deadline<T: Trace>(
        &self,
        slot: &Slot,
        lifetime: Lifetime,
        now: Micros,
        trace: &mut T,
    ) -> u32 {
        let mut millis = self.millis(slot.profile, lifetime);
        trace.step(|| Step::Lifetime {
            class: lifetime.class,
            cap: lifetime.cap,
            lifetime: std::time::Duration::from_millis(u64::from(millis)),
            profile: slot.profile,
        });
        if lifetime.class.may_be_unanswered() && slot.eviction_class() == EvictionClass::Embryonic {
            let sessions = self.accounts.len();
            let whole = millis;
            millis = self.adaptive.scale(whole, sessions);
            if millis < whole {
                let lifetime = std::time::Duration::from_millis(u64::from(millis));
                trace.step(|| Step::Shortened { lifetime, sessions });
            }
        }
        // A thread with an older clock does not shorten the lifetime that a newer packet has set.
        now.max(slot.last()).deadline(millis)
    }

    /// Returns the deadline of an established TCP session after a packet: that of
    /// [`Settings::deadline`]. Data that wait for an acknowledgment cap the lifetime.
    #[inline(always)]
    pub(super) fn established_deadline(&self, slot: &Slot, waits: bool, now: Micros) -> u32 {
        let lifetimes = self.lifetimes.profile(slot.profile);
        let whole = lifetimes.millis(LifetimeClass::TcpEstablished);
        let capped = whole.min(lifetimes.millis(LifetimeClass::TcpUnacknowledged));
        let millis = if waits { capped } else { whole };
        now.max(slot.last()).deadline(millis)
    }

    /// Returns the deadline of a TCP session after a valid segment that found it in the state
    /// `before`.
    ///
    /// A segment that continues the handshake or closes the connection sets the lifetime of the new
    /// state, which may be shorter. No other segment shortens the lifetime: a cap only limits how
    /// far it extends the deadline.
    pub(super) fn tcp_deadline<T: Trace>(
        &self,
        slot: &Slot,
        before: State,
        lifetime: Lifetime,
        now: Micros,
        trace: &mut T,
    ) -> u32 {
        let refreshed = self.deadline(slot, lifetime, now, trace);
        let state = slot.track.state();
        let kept = if state != before && (before.is_opening() || state.is_closing()) {
            let whole = self.millis(slot.profile, Lifetime::of(lifetime.class));
            slot.deadline.min(now.max(slot.last()).deadline(whole))
        } else {
            slot.deadline
        };
        if kept > refreshed {
            trace.step(|| Step::Note("the session already lives longer: its end stays unchanged"));
        }
        refreshed.max(kept)
    }
}

fn address_set(prefixes: &[IpNet]) -> AddressMap<()> {
    let mut set = AddressMap::new();
    for prefix in prefixes {
        set.at(*prefix);
    }
    set
}
