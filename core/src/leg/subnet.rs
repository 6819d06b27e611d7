//! The networks that a container is on, out of the kernel's routing tables (`/proc/net/route`, `/proc/net/ipv6_route`).
//!
//! Docker gives a task on an overlay network a second interface, to a bridge of its node, and the default route goes there
//! (an `internal` network has no such interface). So a container's own networks are those of the interfaces without a
//! default route. An overlay network has one address range for the whole Swarm, and no two have the same.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::route::allow::IpRange;

/// A line of a routing table, as far as it matters.
struct Route {
    interface: String,
    to: IpAddr,
    prefix: u8,
    direct: bool,
}

/// The ranges of the networks that a process is on, sorted; `v4` and `v6` are the two files. What cannot be read is passed
/// over: then less is allowed, never more.
pub fn own_networks(v4: &str, v6: &str) -> Vec<IpRange> {
    let routes: Vec<Route> = v4
        .lines()
        .filter_map(route4)
        .chain(v6.lines().filter_map(route6))
        .collect();
    let leads_out: BTreeSet<&str> = routes
        .iter()
        .filter(|route| route.prefix == 0)
        .map(|route| route.interface.as_str())
        .collect();
    let own = routes.iter().filter(|route| {
        route.direct && route.prefix > 0 && route.interface != "lo" && !leads_out.contains(route.interface.as_str())
    });
    let ranges: BTreeSet<IpRange> = own
        .filter(|route| !is_local_to_a_link(route.to))
        .filter_map(|route| format!("{}/{}", route.to, route.prefix).parse().ok())
        .collect();
    ranges.into_iter().collect()
}

/// `eth0 0005000A 00000000 0001 0 0 0 00FFFFFF …`: numbers in the byte order of the machine.
fn route4(line: &str) -> Option<Route> {
    let mut fields = line.split_whitespace();
    let interface = String::from(fields.next()?);
    let mut number = || {
        let bits = u32::from_str_radix(fields.next()?, 16).ok()?;
        Some(u32::from_be_bytes(bits.to_ne_bytes()))
    };
    let (to, gateway) = (number()?, number()?);
    let mask = {
        let bits = u32::from_str_radix(fields.nth(4)?, 16).ok()?;
        u32::from_be_bytes(bits.to_ne_bytes())
    };
    let prefix = mask.leading_ones();
    (prefix == mask.count_ones()).then(|| Route {
        interface,
        to: IpAddr::V4(Ipv4Addr::from_bits(to)),
        prefix: prefix as u8,
        direct: gateway == 0,
    })
}

/// Destination, its prefix, source, its prefix, next hop, metric, references, uses, flags, interface.
fn route6(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [to, prefix, _, _, hop, _, _, _, _, interface] = fields[..] else {
        return None;
    };
    let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from_bits);
    let prefix = u8::from_str_radix(prefix, 16).ok()?;
    // Entries for single addresses and for broadcasts are no networks.
    (prefix < 128 && interface != "lo").then_some(())?;
    Some(Route {
        interface: String::from(interface),
        to: IpAddr::V6(address(to)?),
        prefix,
        direct: address(hop)?.is_unspecified(),
    })
}

fn is_local_to_a_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast() || ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    /// A task on an overlay network, as Engine 20.10 makes it: eth0 is the network, eth1 the node's bridge.
    const TASK: &str = "eth1\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                        eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                        eth1\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";

    fn texts(v4: &str, v6: &str) -> Vec<String> {
        own_networks(v4, v6).iter().map(ToString::to_string).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_bridge_with_the_default_route_is_no_network_of_a_task() {
        assert_eq!(texts(&alloc::format!("{HEAD}{TASK}"), ""), ["10.0.2.0/24"]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_internal_network_has_no_default_route_at_all() {
        let internal = "eth0\t0007000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(texts(internal, ""), ["10.0.7.0/24"]);
    }

    #[test]
    fn networks_of_ipv6_are_found_and_links_are_none() {
        let zero = "00000000000000000000000000000000";
        let line = |to: &str, prefix: &str, hop: &str, interface: &str| {
            alloc::format!("{to} {prefix} {zero} 00 {hop} 00000100 00000001 00000000 00000001 {interface}\n")
        };
        let table = [
            line("fd000000000000010000000000000000", "40", zero, "eth0"),
            line("fd000000000000010000000000000005", "80", zero, "eth0"),
            line("fe800000000000000000000000000000", "40", zero, "eth0"),
            line("fd000000000000020000000000000000", "40", zero, "eth1"),
            line(zero, "00", "fd000000000000020000000000000001", "eth1"),
            line(zero, "00", zero, "lo"),
        ];
        assert_eq!(texts("", &table.concat()), ["fd00:0:0:1::/64"]);
    }

    #[test]
    fn what_cannot_be_read_allows_nothing() {
        assert!(texts("eth0 zz 00000000 0001 0 0 0 00FFFFFF", "garbage").is_empty());
        assert!(texts(HEAD, "").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(v4 in ".{0,200}", v6 in "[0-9a-f \n]{0,300}") {
            own_networks(&v4, &v6);
        }
    }
}
