//! The smallest appliance behind a Gateway Load Balancer: one thread, two sockets, and the library.
//!
//! `minimal_appliance ADDRESS [portcullis.toml]`, with CAP_NET_RAW: replies leave from the load balancer's own UDP port.
//! Without a file it denies every new session.
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use portcullis::geneve::PORT;
use portcullis::geneve::front::{Answer, Datagram, FrontEnd, Scratch, Tunnel};
use portcullis::{Config, Engine, Reset};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

fn send(raw: &Socket, tunnel: &Tunnel, payload: &[u8]) {
    let length = payload.len() as u16 + 8;
    let udp = [tunnel.source_port, tunnel.destination_port, length, 0];
    let udp: Vec<u8> = udp.into_iter().flat_map(u16::to_be_bytes).collect();
    let to = SocketAddrV4::new(tunnel.destination, 0).into();
    let _ = raw.send_to(&[&udp, payload].concat(), &to); // what cannot be sent is lost, as on any wire
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let local: Ipv4Addr = args.next().ok_or("whose address?")?.parse()?;
    let text = args.next().map(std::fs::read_to_string).transpose()?;
    let config = FrontEnd::adapt(Config::from_toml(&text.unwrap_or_default(), "its file")?);
    let (engine, front) = (Engine::new(&config)?, FrontEnd::new(&config)?);
    let (mut scratch, mut resets) = (Scratch::new(&front), Vec::<Reset>::new());
    let socket = UdpSocket::bind((local, PORT))?;
    SockRef::from(&socket).set_recv_buffer_size(8 << 20)?; // for bursts, as far as net.core.rmem_max goes
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    raw.set_recv_buffer_size(0)?; // it only sends
    raw.bind(&SocketAddrV4::new(local, 0).into())?;
    let mut buffer = vec![0; 65_535];
    loop {
        let received = socket.recv_from(&mut buffer);
        let now = Instant::now();
        if let Ok((len, SocketAddr::V4(from))) = received {
            let payload = buffer.get(..len).unwrap_or_default();
            let datagram = Datagram {
                source: *from.ip(),
                source_port: from.port(),
                destination: local,
                destination_port: PORT,
                payload,
            };
            match front.handle(&engine, &datagram, now, &mut scratch, &mut resets) {
                Answer::Return => send(&raw, &datagram.back(), payload),
                Answer::Send(own) => send(&raw, &own.tunnel, own.payload),
                Answer::Nothing(_) => {}
            }
        }
        while let Some(answer) = front.next_released(&engine, now, &mut scratch, &mut resets) {
            if let Answer::Send(own) = answer {
                send(&raw, &own.tunnel, own.payload);
            }
        }
        engine.expire_with(now, 64, &mut resets);
        for reset in resets.drain(..) {
            let own = front.reset(&reset, &mut scratch);
            own.inspect(|own| send(&raw, &own.tunnel, own.payload));
        }
    }
}
