//! The PROXY protocol (versions 1 and 2) on connections of users: who connected to the balancer in front.
//!
//! A header is only looked for where the settings trust the address that connected. What stands behind the addresses (TLVs) is
//! passed over. [`parse`] is bounded, says the same however the bytes were split, and never panics; the words themselves are
//! read by the crate `ppp`.

use std::net::SocketAddr;
use std::rc::Rc;

use ppp::{v1, v2};
use tidegate_core::request::origin::Origin;
use tidegate_core::settings::proxy::{ProxyProtocol, ProxySettings};
use tidegate_core::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt};
use tracing::debug;

use crate::worker::Shared;

/// Bytes of the longest header of version 1, which is a line (§2.1).
const V1_BYTES_MAX: usize = 107;
/// Bytes that may follow the fixed part of version 2; 216 are needed at most for addresses.
const V2_REST_MAX: usize = 4096;
const V1_BEGIN: &[u8] = b"PROXY ";
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length (§2.2).
const V2_FIXED: usize = 16;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Who connected: as a PROXY header that is believed says, else as the socket does.
    pub(crate) addr: SocketAddr,
    /// Whether such a header said it.
    pub(crate) introduced: bool,
    /// The port that it connected to, where such a header says so.
    pub(crate) port: Option<u16>,
}

impl Peer {
    /// As the socket has it.
    pub(crate) fn of_socket(addr: SocketAddr) -> Self {
        Peer {
            addr,
            introduced: false,
            port: None,
        }
    }

    pub(crate) fn origin(&self, settings: &ProxySettings) -> Origin {
        Origin::of_peer(self.addr.ip(), self.introduced, settings)
    }
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Perhaps the beginning of a header.
    NeedMore,
    /// A header of `len` bytes, with source and destination unless it speaks for the balancer itself.
    Header {
        addrs: Option<(SocketAddr, SocketAddr)>,
        len: usize,
    },
    /// Something else.
    NoHeader,
    /// A header that is none.
    Reject,
}

pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let begins = |mark: &[u8]| bytes.iter().zip(mark).all(|(a, b)| a == b);
    let len = if begins(V1_BEGIN) {
        if bytes.len() < V1_BEGIN.len() {
            return Parsed::NeedMore;
        }
        let line = &bytes[..bytes.len().min(V1_BYTES_MAX)];
        match line.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => at + 2,
            None if line.len() < V1_BYTES_MAX => return Parsed::NeedMore,
            None => return Parsed::Reject,
        }
    } else if begins(V2_BEGIN) {
        let Some(fixed) = bytes.get(..V2_FIXED) else {
            return Parsed::NeedMore;
        };
        let rest = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        let (command, len) = (fixed[12], V2_FIXED + rest);
        if rest > V2_REST_MAX || !matches!(command, 0x20 | 0x21) {
            return Parsed::Reject;
        }
        if bytes.len() < len {
            return Parsed::NeedMore;
        }
        if command == 0x20 {
            // §2.2: LOCAL, whatever family and addresses come with it.
            return Parsed::Header { addrs: None, len };
        }
        len
    } else {
        return Parsed::NoHeader;
    };
    // The whole header is there, so one that wants more is malformed.
    let header = &bytes[..len];
    let read = match header[0] {
        b'P' => v1_addrs(header),
        _ => v2_addrs(header),
    };
    read.map_or(Parsed::Reject, |addrs| Parsed::Header { addrs, len })
}

/// Source and destination, where a header has them.
type Addrs = Option<(SocketAddr, SocketAddr)>;

fn v1_addrs(bytes: &[u8]) -> Option<Addrs> {
    let header = v1::Header::try_from(bytes).ok()?;
    if header.header.len() != bytes.len() {
        return None; // a line that ended before
    }
    Some(match header.addresses {
        v1::Addresses::Tcp4(of) => Some((
            (of.source_address, of.source_port).into(),
            (of.destination_address, of.destination_port).into(),
        )),
        v1::Addresses::Tcp6(of) => Some((
            (of.source_address, of.source_port).into(),
            (of.destination_address, of.destination_port).into(),
        )),
        v1::Addresses::Unknown => None,
    })
}

fn v2_addrs(bytes: &[u8]) -> Option<Addrs> {
    let header = v2::Header::try_from(bytes).ok()?;
    Some(match header.addresses {
        v2::Addresses::IPv4(of) => Some((
            (of.source_address, of.source_port).into(),
            (of.destination_address, of.destination_port).into(),
        )),
        v2::Addresses::IPv6(of) => Some((
            (of.source_address, of.source_port).into(),
            (of.destination_address, of.destination_port).into(),
        )),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    })
}

/// Whether a connection from `addr` may begin with a header that is believed.
pub(crate) fn expects(settings: &ProxySettings, addr: SocketAddr) -> bool {
    settings.proxy_protocol != ProxyProtocol::Off && settings.trusts(addr.ip())
}

/// A connection has no header that it must have, or a malformed one, or the client left or was too slow.
#[derive(Debug)]
pub(crate) struct Unintroduced;

/// Reads the header of a connection that may have one. Returns who connected, and what was read beyond the header.
pub(crate) async fn meet<S: AsyncRead + Unpin>(
    shared: &Rc<Shared>,
    stream: &mut S,
    addr: SocketAddr,
    deadline: Instant,
) -> Result<(Peer, Vec<u8>), Unintroduced> {
    let mut head = Vec::new();
    let read = async {
        loop {
            match parse(&head) {
                Parsed::NeedMore => {}
                parsed @ (Parsed::Header { .. } | Parsed::NoHeader | Parsed::Reject) => return Some(parsed),
            }
            let mut buffer = [0_u8; 512];
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => head.extend_from_slice(&buffer[..count]),
            }
        }
    };
    let parsed = tokio::select! { biased;
        parsed = read => parsed,
        () = shared.clock.sleep_until(Some(deadline)) => None,
    };
    match parsed {
        Some(Parsed::Header { addrs, len }) => {
            head.drain(..len);
            let peer = addrs.map_or(Peer::of_socket(addr), |(source, destination)| Peer {
                addr: source,
                introduced: true,
                port: Some(destination.port()),
            });
            Ok((peer, head))
        }
        Some(Parsed::NoHeader) if shared.serving().proxy_protocol != ProxyProtocol::On => {
            Ok((Peer::of_socket(addr), head))
        }
        Some(Parsed::NeedMore | Parsed::NoHeader | Parsed::Reject) | None => {
            debug!(%addr, ?parsed, bytes = head.len(), "no PROXY header");
            Err(Unintroduced)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = V2_BEGIN.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).expect("a short rest").to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn v4(tlvs: &[u8]) -> Vec<u8> {
        let mut rest = vec![203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];
        rest.extend(tlvs);
        rest
    }

    fn addrs(source: &str, destination: &str) -> Addrs {
        let addr = |text: &str| text.parse().expect("an address");
        Some((addr(source), addr(destination)))
    }

    fn headers() -> Vec<(Vec<u8>, Addrs)> {
        let mut v6 = Vec::new();
        for ip in ["2001:db8::9", "2001:db8::1"] {
            v6.extend(ip.parse::<std::net::Ipv6Addr>().expect("an address").octets());
        }
        v6.extend([0x12, 0x67, 0x01, 0xbb]);
        vec![
            (
                b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec(),
                addrs("203.0.113.9:4711", "10.0.0.1:443"),
            ),
            (
                b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n".to_vec(),
                addrs("[2001:db8::9]:4711", "[2001:db8::1]:443"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4(&[])), addrs("203.0.113.9:4711", "10.0.0.1:443")),
            // TLVs, right and wrong ones, say nothing here.
            (
                v2(0x21, 0x11, &v4(&[2, 0, 1, b'x', 4, 0xff])),
                addrs("203.0.113.9:4711", "10.0.0.1:443"),
            ),
            (v2(0x21, 0x21, &v6), addrs("[2001:db8::9]:4711", "[2001:db8::1]:443")),
            (v2(0x21, 0x31, &[0; 216]), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4(&[])), None),
            // A LOCAL one without the addresses that its family would have.
            (v2(0x20, 0x11, &[]), None),
        ]
    }

    #[test]
    fn every_form_is_read_the_same_however_it_is_split() {
        for (bytes, addrs) in headers() {
            let mut sent = bytes.clone();
            sent.extend(b"GET / HTTP/1.1\r\n");
            for end in 0..bytes.len() {
                assert_eq!(parse(&sent[..end]), Parsed::NeedMore, "{end} of {bytes:?}");
            }
            for end in bytes.len()..=sent.len() {
                let len = bytes.len();
                assert_eq!(parse(&sent[..end]), Parsed::Header { addrs, len }, "{end} of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_left_to_others_and_a_wrong_one_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"POST / HTTP/1.1\r\n",
            b"PROPFIND / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\n",
            &[0x16, 3, 1, 0, 5],
        ] {
            assert_eq!(parse(bytes), Parsed::NoHeader, "{bytes:?}");
        }
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        for bytes in [
            &b"PROXY / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 203.0.113.9\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 99999 1\r\n",
            &long,
            &v2(0x22, 0x11, &v4(&[])),
            &v2(0x31, 0x11, &v4(&[])),
            &v2(0x21, 0x13, &v4(&[])),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x31, &[0; 215]),
            &v2(0x21, 0x11, &[0; V2_REST_MAX + 1]),
        ] {
            assert_eq!(parse(bytes), Parsed::Reject, "{bytes:?}");
        }
    }

    proptest! {
        /// Once it says something, more bytes change nothing.
        #[test]
        fn no_bytes_make_it_panic_or_change_its_mind(
            begin in prop_oneof![Just(&b""[..]), Just(V1_BEGIN), Just(&b"PROXY TCP4 1.2.3.4 "[..]), Just(V2_BEGIN)],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [begin, &rest].concat();
            let mut said = Parsed::NeedMore;
            for end in 0..=bytes.len() {
                let now = parse(&bytes[..end]);
                prop_assert!(said == Parsed::NeedMore || said == now, "{said:?}, then {now:?}");
                said = now;
            }
        }
    }
}
