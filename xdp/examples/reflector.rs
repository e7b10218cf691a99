//! Returns each datagram to its sender, without looking at it: the bare cost of AF_XDP.
//!
//! `reflector INTERFACE ADDRESS`, until it is killed.
use std::error::Error;
use std::os::fd::AsFd;

use portcullis_xdp::{HEAD, Head, Interface, Selection};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: reflector INTERFACE ADDRESS".into());
    };
    let interface = Interface::find(&name)?;
    let selection = Selection {
        mac: interface.mac,
        addresses: vec![address.parse()?],
        port: 6081,
    };
    // Without a socket at the port, the kernel would answer what comes before the program.
    let _port = std::net::UdpSocket::bind((address.as_str(), 6081))?;
    let (mut queues, attachment) = interface.open()?.attach(&selection)?;
    eprintln!(
        "reflecting at {name}, {} queues, {} mode",
        queues.len(),
        attachment.mode().name()
    );
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    loop {
        if !queues.iter().any(portcullis_xdp::Queue::is_ready) {
            let mut fds: Vec<_> = queues
                .iter()
                .map(|queue| PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN))
                .collect();
            poll(&mut fds, Some(&patience))?;
        }
        for queue in &mut queues {
            for number in 0..queue.receive() {
                let Ok(head) = Head::parse(queue.packet(number)) else {
                    continue;
                };
                if let Some(back) = head.back(head.payload.len()) {
                    // A full ring drops the datagram.
                    let _ = queue.send_back(number, &back, HEAD + head.payload.len());
                }
            }
            if let Some(error) = queue.flush().error {
                return Err(error.into());
            }
        }
    }
}
