//! What does not reach what: links of nodes that are cut, and walls between services. What is sent meanwhile waits, as
//! TCP would send it again.

use std::fmt;
use std::net::IpAddr;

use tidegate_core::id::NodeId;

use crate::world::World;

/// Hosts that a fault tells apart from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// All that is not on a node.
    Beyond(NodeId),
    /// What runs on a node.
    Node(NodeId),
    /// The tasks of the service of this name.
    Service(String),
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Side::Beyond(_) => f.write_str("the others"),
            Side::Node(node) => write!(f, "node {node}"),
            Side::Service(name) => f.write_str(name),
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Link {
    Cut,
    Whole,
}

impl World {
    pub(crate) fn link(&mut self, node: &NodeId, link: Link) {
        let (inside, outside) = (Side::Node(node.clone()), Side::Beyond(node.clone()));
        match link {
            Link::Cut => self.cut(inside, outside),
            Link::Whole => self.mend(&inside, &outside),
        }
    }

    /// From now on nothing passes between two sides; what is sent arrives when they are mended.
    pub fn cut(&mut self, a: Side, b: Side) {
        self.shared
            .trace("world", &format!("nothing passes between {a} and {b}"));
        for (ip, other) in self.pairs(&a, &b) {
            self.sim.hold(ip, other);
        }
        self.walls.push((a, b));
    }

    /// Two sides hear each other again.
    pub fn mend(&mut self, a: &Side, b: &Side) {
        let before = self.walls.len();
        self.walls.retain(|(x, y)| (x, y) != (a, b));
        if self.walls.len() == before {
            return;
        }
        self.shared.trace("world", &format!("all passes between {a} and {b}"));
        self.shared.witness.mended(self.now());
        for (ip, other) in self.pairs(a, b) {
            if !self.are_apart(ip, other) {
                self.sim.release(ip, other);
            }
        }
    }

    /// Walls that stand hold a new host as well.
    pub(crate) fn raise_walls(&mut self, ip: IpAddr) {
        for other in self.others(ip) {
            if self.are_apart(ip, other) {
                self.sim.hold(ip, other);
            }
        }
    }

    /// Whether a wall stands between two addresses.
    pub(crate) fn are_apart(&self, ip: IpAddr, other: IpAddr) -> bool {
        let mut walls = self.walls.iter();
        walls.any(|(a, b)| (self.is_of(ip, a) && self.is_of(other, b)) || (self.is_of(ip, b) && self.is_of(other, a)))
    }

    /// Addresses of two sides, each pair once.
    pub(crate) fn pairs(&self, a: &Side, b: &Side) -> Vec<(IpAddr, IpAddr)> {
        let all: Vec<IpAddr> = self.hosts.keys().chain(&self.fixed).copied().collect();
        let of = |side: &Side| -> Vec<IpAddr> { all.iter().copied().filter(|ip| self.is_of(*ip, side)).collect() };
        let (a, b) = (of(a), of(b));
        let pairs = a.iter().flat_map(|ip| b.iter().map(move |other| (*ip, *other)));
        pairs.filter(|(ip, other)| ip != other).collect()
    }

    fn is_of(&self, ip: IpAddr, side: &Side) -> bool {
        let host = self.hosts.get(&ip);
        let node = host.and_then(|host| host.node.borrow().clone());
        match side {
            Side::Node(wanted) => node.as_ref() == Some(wanted),
            Side::Beyond(beyond) => node.as_ref() != Some(beyond),
            Side::Service(name) => {
                let task = host.and_then(|host| host.task.borrow().clone());
                task.is_some_and(|task| {
                    self.shared.with_swarm(|swarm, _| {
                        let service = swarm.task(&task).map(|task| task.service.clone());
                        service.is_some_and(|service| swarm.service_named(name) == Some(service))
                    })
                })
            }
        }
    }

    /// The addresses that what runs on a node has.
    pub(crate) fn addresses_on(&self, node: &NodeId) -> Vec<IpAddr> {
        let side = Side::Node(node.clone());
        self.hosts.keys().copied().filter(|ip| self.is_of(*ip, &side)).collect()
    }

    pub(crate) fn others(&self, ip: IpAddr) -> Vec<IpAddr> {
        let all = self.hosts.keys().chain(&self.fixed);
        all.copied().filter(|other| *other != ip).collect()
    }
}
