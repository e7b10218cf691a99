//! The command line.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::flood::FloodArgs;
use super::generate::MIN_SIZE;
use super::parse::{ENDPOINT, appliance, hexadecimal, seconds};
use super::reflector::ReflectorArgs;
use super::target_args::TargetArgs;

/// Arguments of `portcullis simulate`.
#[derive(Debug, Clone, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    group = ArgGroup::new("destination").required(true).args(["appliance", "targets"]),
    group = ArgGroup::new("source").required(true).args(["capture", "tun", "pairs", "generate"])
)]
pub struct SimulateArgs {
    #[command(subcommand)]
    pub(super) peer: Option<Peer>,
    /// The appliance: an IPv4 address, its port 6081 unless another is given
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = appliance)]
    pub(super) appliance: Option<SocketAddrV4>,
    /// Local address, to which replies come [default: that of the route to the first target]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) local: Option<Ipv4Addr>,
    /// Send the IP packets of a capture (pcap or pcapng) in their order
    #[arg(long, value_name = "FILE")]
    pub(super) capture: Option<PathBuf>,
    /// With --capture: send packets inside GENEVE (UDP port 6081) instead of the outer ones
    #[arg(long, requires = "capture")]
    pub(super) decapsulate: bool,
    /// With --capture: number of times to send the capture
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(super) loops: u64,
    /// Connect two kernels: packets sent into one TUN device leave by the other. Missing devices
    /// are created
    #[arg(long, value_name = "CLIENT,SERVER", value_parser = tun)]
    pub(super) tun: Option<PairArg>,
    /// Like --tun, with a name and an endpoint id (16 hexadecimal digits); repeat for more pairs
    #[arg(long = "pair", value_name = "NAME=CLIENT,SERVER,ENDPOINT", value_parser = pair)]
    pub(super) pairs: Vec<PairArg>,
    /// MTU of the TUN devices; the path to the appliance needs 68 bytes more. GWLB has 8500
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(576..=8500))]
    pub(super) mtu: u16,
    /// Generate load in both directions
    #[arg(long, value_enum)]
    pub(super) generate: Option<Protocol>,
    /// With --generate: number of flows
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) flows: u32,
    /// With --generate: length in bytes of an inner packet with data
    #[arg(
        long,
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(MIN_SIZE as i64..=8500)
    )]
    pub(super) size: u16,
    /// With --generate: port of the server
    #[arg(long, default_value_t = 443)]
    pub(super) server_port: u16,
    /// With --generate tcp: data packets of a connection before it is closed and opened again with
    /// the same ports; 0 for no end
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) connection: u64,
    /// With --generate: total number of packets
    #[arg(long, value_name = "N")]
    pub(super) packets: Option<u64>,
    /// Stop sending after this time [default: 10 s for a load without --packets, else never]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) seconds: Option<Duration>,
    /// Packets per second [default: as fast as replies arrive]
    #[arg(
        long,
        value_name = "PACKETS",
        conflicts_with_all = ["tun", "pairs"],
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(super) rate: Option<u64>,
    /// Without --rate: maximum number of unanswered packets
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(super) window: u16,
    /// Time after which an unanswered packet counts as dropped
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(super) timeout: Duration,
    /// Exit with 1 if more than this percentage of the sent packets is lost [default: only if
    /// nothing came back]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(super) max_loss: Option<f64>,
    /// The endpoint id in the tunnel headers, 16 hexadecimal digits
    #[arg(long, value_name = "ENDPOINT", default_value = ENDPOINT, value_parser = hexadecimal)]
    pub(super) endpoint: u64,
    /// The attachment id in the tunnel headers, 16 hexadecimal digits
    #[arg(long, value_name = "ID", default_value = "0000000000000000", value_parser = hexadecimal)]
    pub(super) attachment: u64,
    /// Use different cookies for the two directions of a flow
    #[arg(long)]
    pub(super) cookie_per_direction: bool,
    /// Fill in the outer UDP checksum
    #[arg(long)]
    pub(super) udp_checksum: bool,
    /// Maximum number of flows; the least recently used one is evicted
    #[arg(long, value_name = "N", default_value = "65536")]
    pub(super) max_flows: NonZeroUsize,
    /// Print the report as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) targets: TargetArgs,
}

/// Other parts of the simulator.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Peer {
    /// Run the simplest appliance, which sends everything back
    Reflector(ReflectorArgs),
    /// Flood an appliance with packets of many flows, without judging replies
    Flood(FloodArgs),
}

/// Protocol of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// UDP over IPv4
    Udp,
    /// TCP over IPv4, from SYN to FIN
    Tcp,
}

/// Pair of TUN devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PairArg {
    pub(super) name: String,
    pub(super) client: String,
    pub(super) server: String,
    /// Endpoint id; `None` for that of `--endpoint`.
    pub(super) endpoint: Option<u64>,
}

fn device(text: &str) -> Result<String, String> {
    // IFNAMSIZ is 16, including the terminating zero.
    if (1..=15).contains(&text.len()) && !text.contains('/') {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not the name of a device"))
    }
}

fn tun(text: &str) -> Result<PairArg, String> {
    let (client, server) = text
        .split_once(',')
        .ok_or("two devices are needed: CLIENT,SERVER")?;
    let (client, server) = (device(client)?, device(server)?);
    if client == server {
        return Err("the two devices are the same".to_owned());
    }
    Ok(PairArg {
        name: "pair".to_owned(),
        client,
        server,
        endpoint: None,
    })
}

pub(super) fn pair(text: &str) -> Result<PairArg, String> {
    let shape = "NAME=CLIENT,SERVER,ENDPOINT is needed";
    let (name, rest) = text.split_once('=').ok_or(shape)?;
    let (devices, endpoint) = rest.rsplit_once(',').ok_or(shape)?;
    Ok(PairArg {
        name: name.to_owned(),
        endpoint: Some(hexadecimal(endpoint)?),
        ..tun(devices)?
    })
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "a percentage is needed".to_owned())?;
    if (0.0..=100.0).contains(&number) {
        Ok(number)
    } else {
        Err("a percentage must be 0 to 100".to_owned())
    }
}
