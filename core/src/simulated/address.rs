//! Addresses of one /24: upwards with wrap, so an address comes back after about 250 allocations; from the lowest free
//! one after a change of leader, so an address of another service comes back at once (facts §5).

use alloc::collections::BTreeSet;
use core::net::{IpAddr, Ipv4Addr};

/// The first host number that is given out; `.1` is the gateway.
const FIRST: u8 = 2;
/// The last host number; `.255` is the broadcast address.
const LAST: u8 = 254;

/// One subnet's allocator.
#[derive(Clone, Debug)]
pub(super) struct Subnet {
    prefix: [u8; 3],
    next: u8,
    used: BTreeSet<u8>,
}

impl Subnet {
    pub(super) fn new(prefix: [u8; 3]) -> Self {
        Subnet {
            prefix,
            next: FIRST,
            used: BTreeSet::new(),
        }
    }

    /// The next free address; `None` where all are taken.
    pub(super) fn take(&mut self) -> Option<IpAddr> {
        let upwards = (self.next..=LAST).chain(FIRST..self.next);
        let host = upwards.into_iter().find(|host| !self.used.contains(host))?;
        self.used.insert(host);
        self.next = if host == LAST { FIRST } else { host + 1 };
        let [a, b, c] = self.prefix;
        Some(IpAddr::V4(Ipv4Addr::new(a, b, c, host)))
    }

    pub(super) fn release(&mut self, addr: IpAddr) {
        if let Some(host) = self.host(addr) {
            self.used.remove(&host);
        }
    }

    /// A new leader knows what is taken, not what was taken last.
    pub(super) fn restart_from_lowest(&mut self) {
        self.next = FIRST;
    }

    pub(super) fn holds(&self, addr: IpAddr) -> bool {
        self.host(addr).is_some_and(|host| self.used.contains(&host))
    }

    fn host(&self, addr: IpAddr) -> Option<u8> {
        match addr {
            IpAddr::V4(v4) if v4.octets()[..3] == self.prefix => Some(v4.octets()[3]),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_address_comes_back_only_after_the_wrap() {
        let mut subnet = Subnet::new([10, 0, 1]);
        let first = subnet.take().unwrap();
        subnet.release(first);
        let mut one_after_the_other = || {
            let addr = subnet.take().unwrap();
            subnet.release(addr);
            addr
        };
        assert!((0..252).all(|_| one_after_the_other() != first));
        assert_eq!(one_after_the_other(), first);
    }

    #[test]
    fn a_new_leader_gives_out_the_lowest_free_address_at_once() {
        let mut subnet = Subnet::new([10, 0, 1]);
        let (first, second) = (subnet.take().unwrap(), subnet.take().unwrap());
        subnet.release(first);
        assert_ne!(subnet.take(), Some(first));
        subnet.restart_from_lowest();
        assert_eq!(subnet.take(), Some(first));
        assert!(subnet.holds(second));
    }

    #[test]
    fn a_full_subnet_gives_nothing() {
        let mut subnet = Subnet::new([10, 0, 1]);
        assert_eq!(core::iter::from_fn(|| subnet.take()).count(), 253);
        assert_eq!(subnet.take(), None);
    }
}
