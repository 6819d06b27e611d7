//! The header that tells an app who is at the other end of a connection that is passed on (HAProxy's PROXY protocol).

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};
use tidegate_core::route::spec::ProxyProtocol;

/// The header for a connection from `client` to `near`, an address of the proxy.
pub(super) fn encode(version: ProxyProtocol, client: SocketAddr, near: SocketAddr) -> Vec<u8> {
    let ends = of_one_family(client, near);
    match version {
        ProxyProtocol::V1 => v1::Addresses::from(ends).to_string().into_bytes(),
        ProxyProtocol::V2 => {
            let command = v2::Version::Two | v2::Command::Proxy;
            let header = v2::Builder::with_addresses(command, v2::Protocol::Stream, ends);
            header.build().expect("two addresses fit into a header")
        }
    }
}

/// A header has room for two addresses of one family. IPv4 that came over an IPv6 socket is IPv4 again; where only one end
/// is, it is written as IPv6.
fn of_one_family(client: SocketAddr, near: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    };
    let (client, near) = (plain(client), plain(near));
    if client.is_ipv4() == near.is_ipv4() {
        (client, near)
    } else {
        (mapped(client), mapped(near))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(version: ProxyProtocol, client: &str, near: &str) -> Vec<u8> {
        encode(version, client.parse().unwrap(), near.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        let line = |client, near| String::from_utf8(encoded(ProxyProtocol::V1, client, near)).unwrap();
        assert_eq!(
            line("192.0.2.7:56324", "198.51.100.1:443"),
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
        );
        assert_eq!(
            line("[2001:db8::7]:56324", "[2001:db8::1]:443"),
            "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n"
        );
        // An IPv6 socket that takes IPv4 too.
        assert_eq!(
            line("[::ffff:192.0.2.7]:1", "[::ffff:198.51.100.1]:443"),
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 443\r\n"
        );
        assert_eq!(
            line("192.0.2.7:1", "[2001:db8::1]:443"),
            "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 443\r\n"
        );
    }

    #[test]
    fn version_2_is_binary() {
        let header = encoded(ProxyProtocol::V2, "192.0.2.7:258", "198.51.100.1:443");
        let expected = [
            b"\r\n\r\n\0\r\nQUIT\n".as_slice(),
            &[0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 1, 187],
        ];
        assert_eq!(header, expected.concat());
        let header = encoded(ProxyProtocol::V2, "[2001:db8::7]:258", "[2001:db8::1]:443");
        assert_eq!((&header[12..16], header.len()), (&[0x21, 0x21, 0, 36][..], 52));
        assert_eq!(header[16..20], [0x20, 0x01, 0x0d, 0xb8]);
    }
}
