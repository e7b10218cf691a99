//! View of a session that the session log, the listing and the replay share.

use std::borrow::Cow;
use std::time::Instant;

use portcullis::SessionRecord;
use serde::{Deserialize, Serialize};

use crate::five_tuple::FiveTuple;

/// Facts of a session as a row of JSON. `Z` is the form of the zone's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SessionView<Z = String> {
    /// Identifier of the session among those of all appliances: it stays over restarts.
    pub(crate) uid: String,
    #[serde(flatten)]
    pub(crate) flow: FiveTuple<Z>,
    /// Community ID of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) community_id: Option<String>,
    pub(crate) state: Cow<'static, str>,
    /// History of the connection, in Zeek's letters.
    pub(crate) history: String,
    /// State of the connection in Zeek's terms.
    pub(crate) conn_state: Cow<'static, str>,
    pub(crate) orig_pkts: u32,
    /// IP bytes. Zeek's `orig_bytes` are bytes of payload.
    #[serde(rename = "orig_ip_bytes")]
    pub(crate) orig_bytes: u64,
    #[serde(rename = "resp_pkts")]
    pub(crate) reply_pkts: u32,
    /// IP bytes.
    #[serde(rename = "resp_ip_bytes")]
    pub(crate) reply_bytes: u64,
    /// Time of the first packet, in seconds since the Unix epoch.
    pub(crate) start: f64,
    /// Time of the last packet that refreshed the session, in seconds since the Unix epoch.
    pub(crate) last: f64,
    /// Seconds from the first packet to the last one that refreshed the session.
    pub(crate) duration: f64,
    pub(crate) rule: String,
    /// Number of the session that announced this one.
    pub(crate) parent: Option<u64>,
    /// Identifier of that session among those of all appliances.
    #[serde(default)]
    pub(crate) parent_uid: Option<String>,
    /// Whether the session was adopted midstream.
    pub(crate) adopted: bool,
    /// Whether the session continues one that has ended.
    pub(crate) resumed: bool,
    /// Whether the session passes although one direction is missing.
    pub(crate) bypassed: bool,
}

/// Names that a record itself does not hold.
pub(crate) struct SessionNames<Z> {
    pub(crate) zone: Z,
    pub(crate) rule: String,
    pub(crate) parent: Option<u64>,
}

impl<Z> SessionView<Z> {
    /// Returns the view of a record; `seconds` maps a time to seconds since the Unix epoch.
    pub(crate) fn new(
        session: &SessionRecord,
        names: SessionNames<Z>,
        seconds: impl Fn(Instant) -> f64,
    ) -> Self {
        let flow = FiveTuple::of_session(session, names.zone);
        Self {
            uid: session.uid.to_string(),
            community_id: flow.community_id(),
            flow,
            state: session.state.into(),
            history: session.history.to_string(),
            conn_state: session.conn_state().into(),
            orig_pkts: session.original.packets,
            orig_bytes: session.original.bytes,
            reply_pkts: session.reply.packets,
            reply_bytes: session.reply.bytes,
            start: seconds(session.start),
            last: seconds(session.last),
            duration: session.duration().as_micros() as f64 / 1e6,
            rule: names.rule,
            parent: names.parent,
            parent_uid: session.parent_uid.map(|uid| uid.to_string()),
            adopted: session.adopted,
            resumed: session.resumed,
            bypassed: session.bypassed,
        }
    }

    /// Returns the bytes of both directions.
    pub(crate) const fn bytes(&self) -> u64 {
        self.orig_bytes.saturating_add(self.reply_bytes)
    }

    /// Returns the packets of both directions.
    pub(crate) fn packets(&self) -> u64 {
        u64::from(self.orig_pkts) + u64::from(self.reply_pkts)
    }
}
