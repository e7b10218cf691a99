//! The smallest appliance behind a Gateway Load Balancer: one thread, two sockets, and the library.
//!
//! `minimal_appliance ADDRESS [portcullis.toml]`, with CAP_NET_RAW: replies leave from the load
//! balancer's own UDP port. Without a file the program denies every new session.
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use portcullis::geneve::PORT;
use portcullis::geneve::front::{Datagram, Outgoing};
use portcullis::{Config, Gateway};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

fn send(raw: &Socket, out: &Outgoing<'_>) {
    let length = out.payload.len() as u16 + 8;
    let udp = [
        out.tunnel.source_port,
        out.tunnel.destination_port,
        length,
        0,
    ];
    let udp: Vec<u8> = udp.into_iter().flat_map(u16::to_be_bytes).collect();
    let to = SocketAddrV4::new(out.tunnel.destination, 0).into();
    // A failure loses the packet, like any wire.
    let _ = raw.send_to(&[&udp, out.payload].concat(), &to);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: minimal_appliance ADDRESS [portcullis.toml]";
    let local: Ipv4Addr = args.next().ok_or(usage)?.parse()?;
    let text = args.next().map(std::fs::read_to_string).transpose()?;
    let gateway = Gateway::new(&Config::from_toml(&text.unwrap_or_default(), "its file")?)?;
    let mut worker = gateway.worker();
    let socket = UdpSocket::bind((local, PORT))?;
    SockRef::from(&socket).set_recv_buffer_size(8 << 20)?; // For bursts, up to net.core.rmem_max.
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    raw.set_recv_buffer_size(0)?; // It only sends.
    raw.bind(&SocketAddrV4::new(local, 0).into())?;
    let mut buffer = vec![0; 65_535];
    loop {
        let received = socket.recv_from(&mut buffer);
        let now = Instant::now();
        if let Ok((len, SocketAddr::V4(from))) = received {
            let datagram = Datagram {
                source: *from.ip(),
                source_port: from.port(),
                destination: local,
                destination_port: PORT,
                payload: buffer.get(..len).unwrap_or_default(),
            };
            gateway.handle_batch(&mut worker, [datagram], now, |out| send(&raw, &out));
        }
        gateway.poll(&mut worker, now, |out| send(&raw, &out));
        worker.events().for_each(drop); // A session log would begin here.
    }
}
