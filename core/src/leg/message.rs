//! The frames: version, kind, length, body. Bounded, and read the same however the bytes are cut.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::time::Duration;

/// Version of the frames. Another one is refused: proxies and legs are of one image but for the time of an update.
pub const VERSION: u8 = 1;
/// Bytes before the body: version, kind, length.
pub const HEAD_BYTES: usize = 4;
/// Longest body.
pub const BODY_BYTES_MAX: usize = 20 * 1024;
/// Addresses in one answer. A name with more is not answered: half of them would be a lie.
pub const ADDRESSES_MAX: usize = 1024;
/// Longest name (RFC 1035 §2.3.4).
pub const NAME_BYTES_MAX: usize = 253;
/// Longest time that is asked for.
pub const LIMIT_MAX: Duration = Duration::from_secs(60);

const CONNECT: u8 = 1;
const RESOLVE: u8 = 2;
const CONNECTED: u8 = 129;
const ADDRESSES: u8 = 130;
const REFUSED: u8 = 131;

/// What a proxy asks of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A connection to this address, within this time.
    Connect {
        /// Where to.
        addr: SocketAddr,
        /// Whole milliseconds, at most [`LIMIT_MAX`].
        limit: Duration,
    },
    /// The addresses of this name, within this time.
    Resolve {
        /// Letters, digits, `.`, `-` and `_`.
        name: String,
        /// As above.
        limit: Duration,
    },
}

/// What a leg answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The connected socket comes with this.
    Connected,
    /// All addresses of the name that are inside the network; not empty.
    Addresses(Vec<IpAddr>),
    /// Neither.
    Refused(Refused),
}

/// Why a leg does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// The endpoint refused or reset the connection.
    ByEndpoint,
    /// No answer in time.
    TimedOut,
    /// No way to the address.
    Unreachable,
    /// The address is not inside the leg's network.
    Outside,
    /// The leg has too little of something, files for one: it says nothing about the endpoint.
    Exhausted,
    /// The name has no address there, or too many, or nobody could say. No evidence either way.
    NoAnswer,
    /// The question cannot be read here.
    NotUnderstood,
}

impl Refused {
    /// All of them.
    pub const ALL: [Refused; 7] = [
        Refused::ByEndpoint,
        Refused::TimedOut,
        Refused::Unreachable,
        Refused::Outside,
        Refused::Exhausted,
        Refused::NoAnswer,
        Refused::NotUnderstood,
    ];

    fn code(self) -> u8 {
        match self {
            Refused::ByEndpoint => 1,
            Refused::TimedOut => 2,
            Refused::Unreachable => 3,
            Refused::Outside => 4,
            Refused::Exhausted => 5,
            Refused::NoAnswer => 6,
            Refused::NotUnderstood => 7,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::ByEndpoint => "the endpoint refused the connection",
            Refused::TimedOut => "the endpoint did not answer in time",
            Refused::Unreachable => "there is no way to the endpoint",
            Refused::Outside => "the address is not inside the leg's network",
            Refused::Exhausted => "the leg has no socket left",
            Refused::NoAnswer => "the name has no answer on the leg's network",
            Refused::NotUnderstood => "the leg does not understand the question: it is of another version",
        })
    }
}

/// What became of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// More bytes are needed.
    NeedMore,
    /// This, at the beginning of the bytes.
    Done(T),
    /// Nothing that this version understands.
    Reject(&'static str),
}

impl Question {
    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Question::Connect { addr, limit } => {
                let mut body = Vec::new();
                put_limit(&mut body, *limit);
                body.extend(addr.port().to_be_bytes());
                put_addr(&mut body, addr.ip());
                frame(CONNECT, &body)
            }
            Question::Resolve { name, limit } => {
                let mut body = Vec::new();
                put_limit(&mut body, *limit);
                body.extend(name.as_bytes());
                frame(RESOLVE, &body)
            }
        }
    }

    /// From bytes.
    pub fn parse(bytes: &[u8]) -> Parsed<Question> {
        unframe(bytes, |kind, body| {
            let (limit, rest) = body.split_first_chunk::<4>().ok_or("a question without a limit")?;
            let limit = Duration::from_millis(u32::from_be_bytes(*limit).into());
            if limit > LIMIT_MAX {
                return Err("a limit that is too long");
            }
            match kind {
                CONNECT => {
                    let (port, ip) = rest.split_first_chunk::<2>().ok_or("an address without a port")?;
                    let (ip, rest) = take_addr(ip)?;
                    if !rest.is_empty() {
                        return Err("something behind the address");
                    }
                    let addr = SocketAddr::new(ip, u16::from_be_bytes(*port));
                    Ok(Question::Connect { addr, limit })
                }
                RESOLVE => {
                    let name = core::str::from_utf8(rest).map_err(|_| "a name that is no text")?;
                    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
                    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
                        return Err("a name that is none");
                    }
                    let name = name.to_string();
                    Ok(Question::Resolve { name, limit })
                }
                _ => Err("a question of an unknown kind"),
            }
        })
    }
}

impl Answer {
    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Answer::Connected => frame(CONNECTED, &[]),
            Answer::Addresses(addresses) if addresses.is_empty() || addresses.len() > ADDRESSES_MAX => {
                Answer::Refused(Refused::NoAnswer).to_bytes()
            }
            Answer::Addresses(addresses) => {
                let mut body = Vec::new();
                addresses.iter().for_each(|ip| put_addr(&mut body, *ip));
                frame(ADDRESSES, &body)
            }
            Answer::Refused(why) => frame(REFUSED, &[why.code()]),
        }
    }

    /// From bytes.
    pub fn parse(bytes: &[u8]) -> Parsed<Answer> {
        unframe(bytes, |kind, mut body| match (kind, body) {
            (CONNECTED, []) => Ok(Answer::Connected),
            (REFUSED, [code]) => {
                let why = Refused::ALL.into_iter().find(|why| why.code() == *code);
                why.map(Answer::Refused).ok_or("a refusal for an unknown reason")
            }
            (ADDRESSES, [_, ..]) => {
                let mut addresses = Vec::new();
                while !body.is_empty() {
                    let (ip, rest) = take_addr(body)?;
                    addresses.push(ip);
                    body = rest;
                }
                if addresses.len() > ADDRESSES_MAX {
                    return Err("too many addresses");
                }
                Ok(Answer::Addresses(addresses))
            }
            _ => Err("an answer of an unknown kind"),
        })
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("bodies are bounded well below 64 KiB");
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend([VERSION, kind]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn unframe<T>(bytes: &[u8], read: impl FnOnce(u8, &[u8]) -> Result<T, &'static str>) -> Parsed<T> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(_) => return Parsed::Reject("a frame of another version"),
        None => return Parsed::NeedMore,
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Parsed::NeedMore;
    };
    let [_, kind, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BODY_BYTES_MAX {
        return Parsed::Reject("a frame that is too long");
    }
    match rest.get(..length).map(|body| read(kind, body)) {
        None => Parsed::NeedMore,
        Some(Ok(message)) => Parsed::Done(message),
        Some(Err(why)) => Parsed::Reject(why),
    }
}

fn put_limit(body: &mut Vec<u8>, limit: Duration) {
    let millis = u32::try_from(limit.min(LIMIT_MAX).as_millis()).expect("the longest limit is a minute");
    body.extend(millis.to_be_bytes());
}

fn put_addr(body: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            body.push(4);
            body.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            body.push(6);
            body.extend(ip.octets());
        }
    }
}

fn take_addr(bytes: &[u8]) -> Result<(IpAddr, &[u8]), &'static str> {
    const CUT: &str = "an address that is cut off";
    match bytes.split_first() {
        Some((4, rest)) => {
            let (octets, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
            Ok((IpAddr::from(*octets), rest))
        }
        Some((6, rest)) => {
            let (octets, rest) = rest.split_first_chunk::<16>().ok_or(CUT)?;
            Ok((IpAddr::from(*octets), rest))
        }
        Some(_) => Err("an address of an unknown family"),
        None => Err(CUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limit() -> impl Strategy<Value = Duration> {
        (0..=60_000_u64).prop_map(Duration::from_millis)
    }

    fn question() -> impl Strategy<Value = Question> {
        prop_oneof![
            (any::<SocketAddr>(), limit()).prop_map(|(addr, limit)| Question::Connect {
                addr: SocketAddr::new(addr.ip(), addr.port()),
                limit
            }),
            ("[a-z0-9._-]{1,253}", limit()).prop_map(|(name, limit)| Question::Resolve { name, limit }),
        ]
    }

    fn answer() -> impl Strategy<Value = Answer> {
        prop_oneof![
            Just(Answer::Connected),
            proptest::collection::vec(any::<IpAddr>(), 1..40).prop_map(Answer::Addresses),
            proptest::sample::select(Refused::ALL.to_vec()).prop_map(Answer::Refused),
        ]
    }

    /// The whole is read; each part of it wants more.
    fn survives<T: PartialEq + core::fmt::Debug>(bytes: &[u8], wanted: &T, parse: fn(&[u8]) -> Parsed<T>) {
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Parsed::NeedMore, "{cut} of {}", bytes.len());
        }
        match parse(bytes) {
            Parsed::Done(read) => assert_eq!(read, *wanted),
            other @ (Parsed::NeedMore | Parsed::Reject(_)) => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(question in question(), answer in answer()) {
            survives(&question.to_bytes(), &question, Question::parse);
            survives(&answer.to_bytes(), &answer, Answer::parse);
        }

        #[test]
        fn any_bytes_are_an_answer_or_none_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), versioned in any::<bool>()) {
            let mut bytes = bytes;
            if versioned && let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            Question::parse(&bytes);
            Answer::parse(&bytes);
        }
    }

    #[test]
    fn more_addresses_than_fit_are_no_answer() {
        let many = alloc::vec![IpAddr::from([10, 0, 0, 1]); ADDRESSES_MAX + 1];
        let bytes = Answer::Addresses(many).to_bytes();
        assert_eq!(Answer::parse(&bytes), Parsed::Done(Answer::Refused(Refused::NoAnswer)));
        let most = Answer::Addresses(alloc::vec![IpAddr::from([0; 16]); ADDRESSES_MAX]);
        assert_eq!(Answer::parse(&most.to_bytes()), Parsed::Done(most));
    }

    #[test]
    fn another_version_and_lengths_beyond_the_limit_are_rejected_at_once() {
        assert!(matches!(Question::parse(&[VERSION + 1]), Parsed::Reject(_)));
        assert!(matches!(
            Question::parse(&[VERSION, CONNECT, 0xff, 0xff]),
            Parsed::Reject(_)
        ));
        let named = |name: &str| {
            let limit = Duration::from_millis(1);
            let name = name.to_string();
            Question::parse(&Question::Resolve { name, limit }.to_bytes())
        };
        assert!(matches!(named("tasks.shop_web"), Parsed::Done(_)));
        for wrong in ["", "a b", "x\n", &"a".repeat(254)] {
            assert!(matches!(named(wrong), Parsed::Reject(_)), "{wrong:?}");
        }
    }
}
