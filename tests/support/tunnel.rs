//! An appliance without sockets, and a balancer in front of it.

use std::net::Ipv4Addr;
use std::time::Instant;

use portcullis::geneve::front::{
    Answer, Datagram, FrontEnd, FrontStats, NotSent, Outgoing, Scratch, Tunnel,
};
use portcullis::geneve::{EndpointId, InnerProtocol, PORT, TunnelOption, encode};
use portcullis::packet::{Checksums, Transport, parse};
use portcullis::{Config, Engine};

use super::model::Log;
use super::packets::{ACK, Ends, Head, SYN, tcp};

pub(crate) const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
pub(crate) const BLUE: u64 = 0xb1;
pub(crate) const GREEN: u64 = 0xc2;

/// An appliance without sockets.
pub(crate) struct Appliance {
    pub(crate) engine: Engine,
    pub(crate) front: FrontEnd,
    pub(crate) scratch: Scratch,
    pub(crate) told: Log,
    pub(crate) now: Instant,
}

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    Return,
    Send(Tunnel, Vec<u8>),
    Nothing(NotSent),
}

impl Kept {
    pub(crate) fn of(answer: Answer<'_>) -> Self {
        match answer {
            Answer::Return => Kept::Return,
            Answer::Send(Outgoing { tunnel, payload }) => Kept::Send(tunnel, payload.to_vec()),
            Answer::Nothing(reason) => Kept::Nothing(reason),
        }
    }
}

pub(crate) fn config(text: &str) -> Config {
    FrontEnd::adapt(Config::from_toml(text, "t.toml").unwrap_or_else(|error| panic!("{error}")))
}

impl Appliance {
    pub(crate) fn new(text: &str) -> Self {
        let config = config(text);
        let front = FrontEnd::new(&config).unwrap();
        Self {
            engine: Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
            scratch: Scratch::new(&front),
            front,
            told: Log::default(),
            now: Instant::now(),
        }
    }

    pub(crate) fn handle(&mut self, datagram: &Datagram<'_>) -> Kept {
        let answer = self.front.handle(
            &self.engine,
            datagram,
            self.now,
            &mut self.scratch,
            &mut self.told,
        );
        Kept::of(answer)
    }

    /// Processes a packet in the tunnel.
    pub(crate) fn take(&mut self, label: Label, inner: &[u8]) -> Kept {
        self.handle(&datagram(label.port, &label.around(inner)))
    }

    /// Exchanges the configuration of front end and engine.
    pub(crate) fn reload(&mut self, text: &str) {
        let config = config(text);
        self.front.reload(&config).unwrap();
        self.engine
            .reload(&config, self.now, &mut self.told)
            .unwrap();
    }

    /// Returns whether an endpoint has counters of its own.
    pub(crate) fn counts(&self, endpoint: u64) -> bool {
        let stats = self.front.stats();
        stats
            .endpoints
            .iter()
            .any(|each| each.id == Some(EndpointId(endpoint)))
    }

    /// Returns the statistics, which count every datagram once.
    pub(crate) fn stats(&self) -> FrontStats {
        let stats = self.front.stats();
        assert_eq!(
            stats.received,
            stats.outcomes() + stats.waiting,
            "{stats:?}"
        );
        stats
    }

    /// Decides all datagrams that were held and wait no longer.
    pub(crate) fn released(&mut self) -> Vec<Kept> {
        std::iter::from_fn(|| {
            let (engine, told) = (&self.engine, &mut self.told);
            let answer = self
                .front
                .next_released(engine, self.now, &mut self.scratch, told);
            answer.map(Kept::of)
        })
        .collect()
    }
}

/// The balancer's labels of a flow's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    pub(crate) endpoint: u64,
    pub(crate) cookie: u32,
    pub(crate) port: u16,
}

impl Label {
    pub(crate) const fn blue(cookie: u32, port: u16) -> Self {
        Self {
            endpoint: BLUE,
            cookie,
            port,
        }
    }

    pub(crate) fn header(self, v6: bool) -> Vec<u8> {
        let (id, cookie) = (self.endpoint.to_be_bytes(), self.cookie.to_be_bytes());
        let option = |kind, data| TunnelOption {
            class: 0x0108,
            kind,
            data,
        };
        let options = [option(1, &id[..]), option(2, &[0; 8]), option(3, &cookie)];
        let mut out = vec![0; 40];
        let protocol = if v6 {
            InnerProtocol::Ipv6
        } else {
            InnerProtocol::Ipv4
        };
        assert_eq!(encode(protocol, 0, &options, &mut out), Some(40));
        out
    }

    pub(crate) fn around(self, inner: &[u8]) -> Vec<u8> {
        let v6 = inner.first().is_some_and(|first| first >> 4 == 6);
        [self.header(v6), inner.to_vec()].concat()
    }
}

pub(crate) fn datagram(port: u16, payload: &[u8]) -> Datagram<'_> {
    Datagram {
        source: BALANCER,
        source_port: port,
        destination: OURS,
        destination_port: PORT,
        payload,
    }
}

pub(crate) fn segment(ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 60_000,
    };
    tcp(ends, head, &[], payload)
}

/// Checks that an answer is a datagram to the balancer with this label, and returns the packet in
/// it.
pub(crate) fn sent(answer: &Kept, label: Label) -> Vec<u8> {
    let Kept::Send(tunnel, payload) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        *tunnel,
        Tunnel {
            source: OURS,
            destination: BALANCER,
            source_port: label.port,
            destination_port: PORT
        }
    );
    let (header, inner) = payload.split_at(40);
    assert_eq!(
        header,
        label.header(inner[0] >> 4 == 6),
        "the header is that of {label:?}"
    );
    inner.to_vec()
}

pub(crate) fn flags(packet: &[u8]) -> u8 {
    match parse(packet, Checksums::Verify)
        .expect("checksums are right")
        .transport
    {
        Transport::Tcp { segment, .. } => segment.flags.0,
        other => panic!("{other:?}"),
    }
}

pub(crate) const ALLOW: &str = "[policy]\ndefault = \"allow\"";

pub(crate) fn established(appliance: &mut Appliance, ends: Ends, own: Label, back: Label) {
    for (label, packet) in [
        (own, segment(ends, SYN, 100, 0, b"")),
        (back, segment(ends.back(), SYN | ACK, 500, 101, b"")),
        (own, segment(ends, ACK, 101, 501, b"")),
    ] {
        assert_eq!(appliance.take(label, &packet), Kept::Return);
    }
}

pub(crate) fn green(cookie: u32, port: u16) -> Label {
    Label {
        endpoint: GREEN,
        cookie,
        port,
    }
}
