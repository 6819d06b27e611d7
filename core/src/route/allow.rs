//! Client addresses that a route serves.

use alloc::string::{String, ToString as _};
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address. Bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpRange {
    first: IpAddr,
    /// Bits that count.
    prefix: u8,
}

impl IpRange {
    /// Whether `ip` is in it. An IPv4 address in IPv6 form counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => mask4(ip.to_bits(), self.prefix) == first.to_bits(),
            (IpAddr::V6(first), IpAddr::V6(ip)) => mask6(ip.to_bits(), self.prefix) == first.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether it holds every address of its family.
    pub fn is_all(&self) -> bool {
        self.prefix == 0
    }
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadRange {
    /// There is no address in front of the `/`.
    NoAddress,
    /// What follows the `/` is no number of bits that such an address has.
    NoPrefix,
    /// The address has bits behind the prefix: this range was probably meant.
    NotFirst(IpRange),
}

impl fmt::Display for BadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRange::NoAddress => f.write_str("there is no IP address in it"),
            BadRange::NoPrefix => f.write_str("what follows the / is no number of bits"),
            BadRange::NotFirst(range) => write!(f, "the range is written {range}"),
        }
    }
}

impl FromStr for IpRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| BadRange::NoAddress)?;
        let max = match addr {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let prefix = match bits {
            None => max,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= max)
                .ok_or(BadRange::NoPrefix)?,
            Some(_) => return Err(BadRange::NoPrefix),
        };
        // `::ffff:10.0.0.0/104` is `10.0.0.0/8`: clients are compared in their shortest form.
        let (addr, prefix) = match addr.to_canonical() {
            IpAddr::V4(short) if addr.is_ipv6() && prefix >= 96 => (IpAddr::V4(short), prefix - 96),
            IpAddr::V4(_) | IpAddr::V6(_) => (addr, prefix),
        };
        let first = match addr {
            IpAddr::V4(addr) => IpAddr::V4(mask4(addr.to_bits(), prefix).into()),
            IpAddr::V6(addr) => IpAddr::V6(mask6(addr.to_bits(), prefix).into()),
        };
        let range = IpRange { first, prefix };
        if first == addr {
            Ok(range)
        } else {
            Err(BadRange::NotFirst(range))
        }
    }
}

fn mask4(bits: u32, prefix: u8) -> u32 {
    bits & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask6(bits: u128, prefix: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_one = match self.first {
            IpAddr::V4(_) => self.prefix == 32,
            IpAddr::V6(_) => self.prefix == 128,
        };
        if is_one {
            self.first.fmt(f)
        } else {
            write!(f, "{}/{}", self.first, self.prefix)
        }
    }
}

impl TryFrom<String> for IpRange {
    type Error = BadRange;

    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<IpRange> for String {
    fn from(range: IpRange) -> String {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    fn range(text: &str) -> IpRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_holds_what_begins_like_it() {
        let ten = range("10.0.0.0/8");
        for (ip, inside) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.0", false),
            ("2001:db8::1", false),
            ("a00::1", false),
        ] {
            assert_eq!(ten.contains(ip.parse().unwrap()), inside, "{ip}");
        }
        assert!(range("0.0.0.0/0").contains("203.0.113.9".parse().unwrap()));
        assert!(!range("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(range("::/0").contains("::1".parse().unwrap()));
        assert!(range("::ffff:10.0.0.0/104").contains("10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for (text, problem) in [
            ("", BadRange::NoAddress),
            ("intern", BadRange::NoAddress),
            ("10.0.0", BadRange::NoAddress),
            ("010.0.0.1", BadRange::NoAddress),
            ("10.0.0.0/33", BadRange::NoPrefix),
            ("10.0.0.0/", BadRange::NoPrefix),
            ("10.0.0.0/+8", BadRange::NoPrefix),
            ("10.0.0.0/-1", BadRange::NoPrefix),
            ("::/129", BadRange::NoPrefix),
            ("10.0.0.1/8", BadRange::NotFirst(range("10.0.0.0/8"))),
        ] {
            assert_eq!(text.parse::<IpRange>(), Err(problem), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_range_is_the_bits_that_count(v4: u32, other: u32, v6: u128, six: u128, p4 in 0_u8..=32, p6 in 0_u8..=128) {
            let first = Ipv4Addr::from_bits(mask4(v4, p4));
            let four = range(&format!("{first}/{p4}"));
            prop_assert_eq!(four.contains(Ipv4Addr::from_bits(other).into()), (v4 ^ other).leading_zeros() >= p4.into());
            prop_assert!(four.contains(Ipv4Addr::from_bits(v4).into()));
            prop_assert_eq!(range(&alloc::string::ToString::to_string(&four)), four);
            // Outside ::ffff:0:0/96 an IPv6 address has no shorter form.
            let (v6, six) = (v6 | (1 << 127), six | (1 << 127));
            let long = range(&format!("{}/{p6}", Ipv6Addr::from_bits(mask6(v6, p6))));
            prop_assert_eq!(long.contains(Ipv6Addr::from_bits(six).into()), (v6 ^ six).leading_zeros() >= p6.into());
        }
    }
}
