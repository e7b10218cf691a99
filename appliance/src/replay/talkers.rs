//! The conversations that sent the most, kept in bounded memory.

use super::rows::SessionRow;
use serde::Serialize;

/// How many are kept.
pub(crate) const KEPT: usize = 10;

/// A conversation, shortened for a table.
#[derive(Debug, Clone, Serialize)]
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
    pub(crate) state: &'static str,
    pub(crate) conn_state: &'static str,
    pub(crate) history: String,
}

/// The greatest talkers by bytes.
#[derive(Debug, Default)]
pub(crate) struct Talkers(Vec<Talker>);

impl Talkers {
    pub(crate) fn add(&mut self, row: &SessionRow) {
        let bytes = row.orig_bytes + row.reply_bytes;
        let at = self.0.partition_point(|talker| talker.bytes >= bytes);
        if at >= KEPT {
            return;
        }
        let end = |address: std::net::IpAddr, port: Option<u16>| match (address, port) {
            (address, None) => address.to_string(),
            (std::net::IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
            (address, Some(port)) => format!("{address}:{port}"),
        };
        self.0.insert(
            at,
            Talker {
                id: row.id,
                proto: row.proto.clone(),
                initiator: end(row.src, row.sport),
                responder: end(row.dst, row.dport),
                bytes,
                packets: u64::from(row.orig_pkts) + u64::from(row.reply_pkts),
                duration: ((row.last - row.start) * 1e6).round() / 1e6,
                state: row.state,
                conn_state: row.conn_state,
                history: row.history.clone(),
            },
        );
        self.0.truncate(KEPT);
    }

    pub(crate) fn into_vec(self) -> Vec<Talker> {
        self.0
    }
}
