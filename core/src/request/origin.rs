//! Who sent a request, where others stand between the client and this proxy.
//!
//! A peer's word counts only if the settings trust its address, and only about the peer before it: so `X-Forwarded-For` is read
//! from the right, and the first address that is not trusted is the client. What stands left of it is that client's own story.

use core::net::{IpAddr, SocketAddr};

use crate::settings::proxy::ProxySettings;

/// Members of `X-Forwarded-For` that are looked at, from the right; a longer chain of trusted proxies is none.
const MEMBERS_MAX: usize = 32;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub ip: IpAddr,
    /// Whether what the peer says about its clients is believed.
    pub is_trusted: bool,
    /// Whether the client's address is known; behind the routing mesh it is only if somebody who is trusted said it.
    pub is_known: bool,
}

impl Origin {
    /// Of a connection from `peer`, before any header field was read. `introduced`: a PROXY header that was believed named the
    /// peer.
    pub fn of_peer(peer: IpAddr, introduced: bool, settings: &ProxySettings) -> Self {
        Origin {
            ip: peer,
            is_trusted: settings.trusts(peer),
            is_known: introduced || !settings.behind_mesh,
        }
    }

    /// Of a request on that connection, by its `X-Forwarded-For` fields.
    #[must_use]
    pub fn forwarded<'a>(self, fields: impl DoubleEndedIterator<Item = &'a [u8]>, settings: &ProxySettings) -> Self {
        if !self.is_trusted {
            return self;
        }
        let mut origin = self;
        let members = fields.rev().flat_map(|field| field.rsplit(|byte| *byte == b','));
        for member in members.take(MEMBERS_MAX) {
            let Some(ip) = address(member) else { break };
            origin = Origin {
                ip,
                is_known: true,
                ..self
            };
            if !settings.trusts(ip) {
                break;
            }
        }
        origin
    }
}

/// The address in a member of the list, with or without port.
fn address(member: &[u8]) -> Option<IpAddr> {
    let text = core::str::from_utf8(member).ok()?.trim_ascii();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = bare.unwrap_or(text).parse::<IpAddr>().ok();
    ip.or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn settings(trusted: &[&str], behind_mesh: bool) -> ProxySettings {
        ProxySettings {
            trusted_proxies: trusted.iter().map(|range| range.parse().unwrap()).collect(),
            behind_mesh,
            ..ProxySettings::default()
        }
    }

    fn client(peer: &str, fields: &[&str], trusted: &[&str]) -> std::string::String {
        let settings = settings(trusted, false);
        let origin = Origin::of_peer(peer.parse().unwrap(), false, &settings);
        let fields: Vec<&[u8]> = fields.iter().map(|field| field.as_bytes()).collect();
        std::format!("{}", origin.forwarded(fields.into_iter(), &settings).ip)
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client() {
        assert_eq!(client("203.0.113.9", &["1.2.3.4"], &[]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &["1.2.3.4"], &["10.0.0.0/8"]), "203.0.113.9");
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_client() {
        let trusted = ["10.0.0.0/8", "192.0.2.1"];
        for (fields, expected) in [
            (&["6.6.6.6, 203.0.113.9, 192.0.2.1"][..], "203.0.113.9"),
            (&["6.6.6.6", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
            (&["203.0.113.9:4711"], "203.0.113.9"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", fields, &trusted), expected, "{fields:?}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_search_at_who_wrote_it() {
        let trusted = ["10.0.0.0/8"];
        for (fields, expected) in [
            (&["203.0.113.9, unknown"][..], "10.0.0.1"),
            (&["203.0.113.9, _hidden, 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.9, "], "10.0.0.1"),
            (&["1.2.3.4 5.6.7.8"], "10.0.0.1"),
            (&["\u{e9}"], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", fields, &trusted), expected, "{fields:?}");
        }
    }

    #[test]
    fn an_endless_chain_costs_a_bounded_look() {
        let long = std::vec!["10.0.0.2"; 5_000].join(",");
        assert_eq!(
            client("10.0.0.1", &[&std::format!("6.6.6.6,{long}")], &["10.0.0.0/8"]),
            "10.0.0.2"
        );
    }

    #[test]
    fn behind_the_mesh_a_client_is_known_by_what_is_believed_alone() {
        let settings = settings(&["10.0.0.0/24"], true);
        let mesh = Origin::of_peer("10.0.0.2".parse().unwrap(), false, &settings);
        assert!(mesh.is_trusted && !mesh.is_known);
        assert!(!mesh.forwarded(core::iter::empty(), &settings).is_known);
        assert!(mesh.forwarded([&b"203.0.113.9"[..]].into_iter(), &settings).is_known);
        assert!(Origin::of_peer("203.0.113.9".parse().unwrap(), true, &settings).is_known);
    }
}
