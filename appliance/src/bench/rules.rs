//! Policies of a measurement.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portcullis::Config;
use portcullis::config::{AddressTerm, RuleConfig};
use portcullis::policy::Action;

use super::args::Family;

/// Bits of a server's number.
const SERVER_BITS: u8 = 17;

/// 198.18.0.0/15, the servers of IPv4 sessions.
const SERVERS_V4: u32 = 0xc612_0000;

/// 2001:2::/111, the servers of IPv6 sessions.
const SERVERS_V6: u128 = 0x2001_0002 << 96;

/// Adds a policy of `count` rules to a configuration. Each rule allows all sessions with its own
/// servers, and together they cover all servers. Without rules the policy allows everything.
pub(super) fn set(config: &mut Config, count: u32, family: Family) {
    if count == 0 {
        return;
    }
    // The servers are in 2^bits equal parts. The first rules have two parts, the others one.
    let bits = count.next_power_of_two().trailing_zeros() as u8;
    let parts = 1 << bits;
    config.policy.default = Action::Deny;
    config.policy.rules = (0..count)
        .map(|number| {
            let mut rule = RuleConfig::new(format!("r{number}"), Action::Allow);
            let own = [number, number + count].into_iter();
            rule.destination = own
                .filter(|part| *part < parts)
                .filter_map(|part| net(part, bits, family))
                .map(AddressTerm::Prefix)
                .collect();
            rule
        })
        .collect();
}

/// Returns one of 2^bits parts of the servers.
fn net(part: u32, bits: u8, family: Family) -> Option<IpNet> {
    let first = part << (SERVER_BITS - bits);
    let before = SERVER_BITS - bits;
    match family {
        Family::V4 => Ipv4Net::new(Ipv4Addr::from(SERVERS_V4 | first), 32 - before)
            .ok()
            .map(IpNet::V4),
        Family::V6 => Ipv6Net::new(Ipv6Addr::from(SERVERS_V6 | u128::from(first)), 128 - before)
            .ok()
            .map(IpNet::V6),
    }
}

/// Returns a configuration with another policy that allows equal sessions: its last rule has
/// another name.
pub(super) fn changed(config: &Config) -> Config {
    let mut config = config.clone();
    match config.policy.rules.last_mut() {
        Some(rule) => "changed".clone_into(&mut rule.name),
        None => config
            .policy
            .rules
            .push(RuleConfig::new("changed", Action::Allow)),
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_in_one_rule() {
        for family in [Family::V4, Family::V6] {
            for count in [1, 2, 3, 10, 1_000, 65_000] {
                let mut config = Config::allow_all();
                set(&mut config, count, family);
                assert_eq!(config.policy.rules.len(), count as usize);
                let rules = config.policy.rules.iter();
                let mut nets: Vec<IpNet> = rules
                    .flat_map(|rule| &rule.destination)
                    .map(|term| match term {
                        AddressTerm::Prefix(net) => *net,
                        other => panic!("{other:?}"),
                    })
                    .collect();
                nets.sort();
                assert!(
                    nets.windows(2)
                        .all(|pair| pair[0].broadcast() < pair[1].network())
                );
                let servers: u32 = nets
                    .iter()
                    .map(|net| 1 << (net.max_prefix_len() - net.prefix_len()))
                    .sum();
                assert_eq!(servers, 1 << SERVER_BITS, "{family:?} {count}");
            }
        }
    }
}
