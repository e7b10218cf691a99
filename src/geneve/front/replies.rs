//! The front end's own packets: replies and RSTs, each in the tunnel header of its direction.

use super::decision::{Entered, Written, nothing, send};
use super::scratch::{Found, Scratch, split_ref};
use super::settings::Settings;
use super::stats::Outcome;
use super::{Answer, Datagram, FrontEnd, NotSent, Outgoing, Refusal, Tunnel};
use crate::engine::Engine;
use crate::reset::{self, Reset};
use crate::session::TunnelRef;

impl FrontEnd {
    /// Answers a packet that passes, but does not fit into the return path. Its session counts the
    /// packet, as if a router after the firewall had dropped it.
    #[cold]
    #[inline(never)]
    pub(super) fn too_large<'b>(
        &self,
        engine: &Engine,
        entered: Entered<'_, '_>,
        mtu: u16,
        scratch: &'b mut Scratch,
    ) -> Answer<'b> {
        let inner = entered.packet.bytes();
        // A packet that is too large only because of its padding does not count as too large.
        let is_packet = crate::packet::parse(inner, crate::packet::Checksums::Trust)
            .is_ok_and(|parsed| parsed.ip.total_len > u32::from(mtu));
        if !is_packet {
            return nothing(scratch, NotSent::Refused(Refusal::TooLarge));
        }
        let written = self.answer(engine, entered, scratch, |out| {
            reset::write_too_big(mtu, inner, out).map(<[u8]>::len)
        });
        match written.filter(|_| engine.may_answer(entered.packet)) {
            Some(written) => send(scratch, Outcome::TooBig, written),
            None => nothing(scratch, NotSent::Refused(Refusal::TooLarge)),
        }
    }

    /// A RST from a [`Sink`](crate::Sink), in the correct tunnel header; `None` if no header of its
    /// session is known.
    pub fn reset<'b>(&self, reset: &Reset, scratch: &'b mut Scratch) -> Option<Outgoing<'b>> {
        scratch.follow(self);
        let settings = scratch.settings_in_force();
        let Some((tunnel, header_len, endpoint)) =
            self.write_header(reset.tunnel, &settings, scratch.out())
        else {
            scratch.counters().count(Outcome::ResetLost);
            return None;
        };
        let bytes = reset.bytes();
        scratch
            .out()
            .get_mut(header_len..header_len + bytes.len())?
            .copy_from_slice(bytes);
        let len = header_len + bytes.len();
        scratch.counters().count(Outcome::Reset);
        scratch.counters().sent(endpoint, len);
        let payload = scratch.out().get(..len)?;
        Some(Outgoing { tunnel, payload })
    }

    /// Writes the engine's own answer to a packet, after the header for the return path.
    #[cold]
    #[inline(never)]
    pub(super) fn answer(
        &self,
        engine: &Engine,
        entered: Entered<'_, '_>,
        scratch: &mut Scratch,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<Written> {
        let settings = scratch.settings_in_force();
        let known = self.write_header(engine.tunnel_back(entered.packet), &settings, scratch.out());
        let Some((tunnel, header_len, endpoint)) = known else {
            return way_back(entered.datagram, entered.found, scratch, write);
        };
        let written = write(scratch.out().get_mut(header_len..)?)?;
        Some(Written {
            tunnel,
            len: header_len + written,
            endpoint,
        })
    }

    /// Writes the header of a reference, and returns the destination of a datagram with it, its
    /// length, and the number of its endpoint. `None` for a sender that the settings do not accept.
    fn write_header(
        &self,
        tunnel: TunnelRef,
        settings: &Settings,
        out: &mut [u8],
    ) -> Option<(Tunnel, usize, u16)> {
        let (reference, port, cookie) = split_ref(tunnel);
        let known = self.known.read();
        let end = known.end(reference)?;
        if !settings.allows(end.peer) || settings.zone(end.endpoint).is_none() {
            return None;
        }
        let len = end.header.len();
        out.get_mut(..len)?.copy_from_slice(&end.header);
        if let Some(offset) = end.cookie_offset {
            out.get_mut(offset..offset + 4)?
                .copy_from_slice(&cookie.to_be_bytes());
        }
        let tunnel = Tunnel {
            source: end.local,
            destination: end.peer,
            source_port: port,
            destination_port: end.local_port,
        };
        Some((tunnel, len, end.number_of_endpoint))
    }
}

/// Writes the engine's own answer to a packet, after the header of that packet.
pub(super) fn way_back(
    datagram: &Datagram<'_>,
    found: &Found,
    scratch: &mut Scratch,
    write: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> Option<Written> {
    let header = datagram.payload.get(..found.header_len)?;
    scratch
        .out()
        .get_mut(..found.header_len)?
        .copy_from_slice(header);
    let written = write(scratch.out().get_mut(found.header_len..)?)?;
    Some(Written {
        tunnel: datagram.back(),
        len: found.header_len + written,
        endpoint: found.endpoint,
    })
}
