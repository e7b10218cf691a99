use clap::Parser;

use super::super::args::{SimulateArgs, pair};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: SimulateArgs,
}

fn parse(line: &str) -> Result<SimulateArgs, clap::Error> {
    Cli::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace())).map(|cli| cli.args)
}

#[test]
fn one_source_is_needed_and_an_appliance() {
    for wrong in [
        "",
        "--appliance 10.0.0.2",
        "--generate udp",
        "--appliance 10.0.0.2 --generate udp --capture file",
        "--appliance 10.0.0.2 --tun a,a",
        "--appliance 10.0.0.2 --tun a,b --pair c=d,e,1",
        "--appliance 10.0.0.2 --tun a,b --rate 5",
        "--appliance 10.0.0.2 --generate udp --seconds 0",
        "--appliance 10.0.0.2 --generate udp --timeout 1e300",
        "--appliance 10.0.0.2 --generate udp --size 47",
        "--appliance host --generate udp",
        "--appliance 10.0.0.2 --generate udp --max-loss 101",
        "--appliance 10.0.0.2 --generate udp --max-loss -1",
        "--appliance 10.0.0.2 --generate udp --max-loss NaN",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    let args = parse("--appliance 10.0.0.2:6082 --pair a=b,c,1 --pair d=e,f,0x2").unwrap();
    assert_eq!(args.appliance.unwrap().port(), 6082);
    assert_eq!(args.pairs.len(), 2);
    assert_eq!(
        parse("--appliance 10.0.0.2 --generate tcp")
            .unwrap()
            .appliance
            .unwrap()
            .port(),
        6081
    );
    assert!(parse("reflector --listen 10.0.0.2").unwrap().peer.is_some());
}

#[test]
fn a_pair_has_a_name_two_devices_and_an_endpoint() {
    let blue = pair("blue=client0,server0,74a11ad96ec49886").unwrap();
    assert_eq!(
        (blue.name.as_str(), blue.client.as_str(), blue.server.as_str()),
        ("blue", "client0", "server0")
    );
    assert_eq!(blue.endpoint, Some(0x74a1_1ad9_6ec4_9886));
    for wrong in [
        "client0,server0,1",
        "blue=client0,server0",
        "blue=client0,server0,green",
        "blue=client0,a-name-that-is-too-long,1",
    ] {
        assert!(pair(wrong).is_err(), "{wrong}");
    }
}
