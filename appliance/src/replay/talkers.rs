//! The conversations with the most traffic, kept in bounded memory.

use std::borrow::Cow;

use serde::Serialize;

use super::rows::SessionRow;

/// Number of conversations that are kept.
pub(crate) const KEPT: usize = 10;

/// A conversation, shortened for a table.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Talker {
    pub(crate) id: Option<u64>,
    pub(crate) proto: String,
    pub(crate) initiator: String,
    pub(crate) responder: String,
    /// IP bytes, both directions.
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    /// Seconds.
    pub(crate) duration: f64,
    pub(crate) state: Cow<'static, str>,
    pub(crate) conn_state: Cow<'static, str>,
    pub(crate) history: String,
}

/// The greatest talkers by bytes.
#[derive(Debug, Default)]
pub(crate) struct Talkers(Vec<Talker>);

impl Talkers {
    pub(crate) fn add(&mut self, row: &SessionRow) {
        let view = &row.session;
        let bytes = view.bytes();
        let at = self.0.partition_point(|talker| talker.bytes >= bytes);
        if at >= KEPT {
            return;
        }
        self.0.insert(
            at,
            Talker {
                id: row.id,
                proto: view.flow.protocol.to_string(),
                initiator: view.flow.initiator().to_string(),
                responder: view.flow.responder().to_string(),
                bytes,
                packets: view.packets(),
                duration: ((view.last - view.start) * 1e6).round() / 1e6,
                state: view.state.clone(),
                conn_state: view.conn_state.clone(),
                history: view.history.clone(),
            },
        );
        self.0.truncate(KEPT);
    }

    pub(crate) fn into_vec(self) -> Vec<Talker> {
        self.0
    }
}
