use clap::Parser;

use super::super::args::{SimulateArgs, pair};
use super::{Duration, Failover, Stickiness};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: SimulateArgs,
}

fn parse(line: &str) -> Result<SimulateArgs, clap::Error> {
    Cli::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace()))
        .map(|cli| cli.args)
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
        "--appliance 10.0.0.2 --target 10.0.0.3 --generate udp",
        "--target 10.0.0.2 --target host --generate udp",
        "--target 10.0.0.2 --generate udp --health-check http://10.0.0.2:80/",
        "--target 10.0.0.2 --generate udp --health-check https://:443/",
        "--target 10.0.0.2 --generate udp --health-check tcp://:80/health",
        "--target 10.0.0.2 --generate udp --health-check http://:0/",
        "--target 10.0.0.2 --generate udp --health-codes 200-",
        "--target 10.0.0.2 --generate udp --health-codes 300-200",
        "--target 10.0.0.2 --generate udp --healthy-threshold 1",
        "--target 10.0.0.2 --generate udp --unhealthy-threshold 11",
        "--target 10.0.0.2 --generate udp --stickiness four-tuple",
        "--target 10.0.0.2 --generate udp --deregistration-delay 3601",
        "--target 10.0.0.2 --generate udp --flow-timeout 0",
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
        (
            blue.name.as_str(),
            blue.client.as_str(),
            blue.server.as_str()
        ),
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

#[test]
fn options_about_targets_have_the_defaults_of_aws() {
    let settings = |line: &str| {
        let args = parse(line).unwrap();
        args.targets.group(args.max_flows)
    };
    let given = settings("--target 10.0.0.2 --generate udp --health-check http://").unwrap();
    let health = given.health.unwrap();
    let http = health.probe.http.unwrap();
    assert_eq!((health.probe.port, http.path.as_str()), (80, "/"));
    assert!(http.accepts(200) && http.accepts(399) && !http.accepts(400));
    let seconds = [health.interval, health.timeout, given.deregistration_delay];
    assert_eq!(seconds.map(|time| time.as_secs()), [10, 5, 300]);
    assert_eq!(
        (health.healthy_threshold, health.unhealthy_threshold),
        (5, 2)
    );
    assert_eq!(given.stickiness, Stickiness::FiveTuple);
    let failover = (given.on_unhealthy, given.on_deregistration);
    assert_eq!(failover, (Failover::NoRebalance, Failover::NoRebalance));
    let set = "--target 10.0.0.2 --target 10.0.0.3:7000 --generate udp --health-check tcp://:8080 \
               --health-interval 0.5 --stickiness two-tuple --on-unhealthy rebalance";
    let given = settings(set).unwrap();
    let health = given.health.unwrap();
    assert_eq!((health.probe.port, health.probe.http), (8080, None));
    assert_eq!(health.timeout, Duration::from_millis(500));
    assert_eq!(given.on_unhealthy, Failover::Rebalance);
    let slow = "--target 10.0.0.2 --generate udp --health-interval 2 --health-timeout 3";
    assert!(settings(slow).is_err());
    let codes = "--target 10.0.0.2 --generate udp --health-check http://:8080/health \
                 --health-codes 200,204-206";
    let http = settings(codes).unwrap().health.unwrap().probe.http.unwrap();
    assert_eq!(http.path, "/health");
    let accepted: Vec<u16> = (200..600).filter(|code| http.accepts(*code)).collect();
    assert_eq!(accepted, [200, 204, 205, 206]);
}
