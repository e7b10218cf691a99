//! Names of zones and conversations, as a store keeps them.

use std::borrow::Cow;

use super::Engine;
use super::settings::Settings;
use crate::continuity::FlowName;
use crate::flow::{FlowKey, Zone};

impl Settings {
    /// Returns the name of a zone in a store, also if the configuration does not name the zone.
    pub(super) fn stored_zone_name(&self, zone: Zone) -> Cow<'_, str> {
        match self.zone_names.name(zone) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("#{zone}")),
        }
    }

    /// Returns the zone of a name in a store.
    pub(super) fn stored_zone(&self, name: &str) -> Option<Zone> {
        self.zone_names.zone(name).or_else(|| {
            let number = name.strip_prefix('#')?.parse().ok().map(Zone);
            number.filter(|zone| self.zone_names.name(*zone).is_none())
        })
    }
}

impl Engine {
    /// Returns the zone of a name in the settings in force, without a wait for a reload. The name
    /// of a group, or of a member, is that of the zone that represents the group in records.
    #[must_use]
    pub fn zone_named(&self, name: &str) -> Option<Zone> {
        self.settings().zone_names.zone(name)
    }

    /// Returns the name of a conversation of this engine in a store.
    #[must_use]
    pub fn flow_name(&self, flow: &FlowKey) -> FlowName {
        FlowName::new(flow, &self.settings().stored_zone_name(flow.zone()))
    }

    /// Returns the name of the conversation of a record; `None` if this engine does not have its
    /// zone.
    #[cfg(feature = "snapshot")]
    #[must_use]
    pub fn flow_of(&self, stored: &crate::continuity::StoredSession) -> Option<FlowName> {
        use std::net::SocketAddr;

        let zone = self.settings().stored_zone(&stored.zone)?;
        let session = &stored.session;
        let src = SocketAddr::new(session.src, session.src_port);
        let dst = SocketAddr::new(session.dst, session.dst_port);
        let (key, _) = FlowKey::between(zone, session.protocol, src, dst, session.variant).ok()?;
        Some(FlowName::new(&key, &stored.zone))
    }
}
