//! Who is who on the control network: an authority of our own, a certificate per role, mutual TLS.
//!
//! The authority's key stays with controllers. A proxy's certificate names its service cluster, and lets it read that
//! cluster's table and secrets and nothing else; a courier's lets it hand secrets over, and read nothing. Several generations of authorities may be valid at once: everyone trusts all of
//! them; servers present a certificate of the oldest (which every client knows) that outlives it, clients one of the newest.

mod authority;
mod tls;

pub use authority::{Authority, IdentityError, IdentityPem};
pub(crate) use tls::ClockTime;
pub use tls::{client_config, peer_role, server_config};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;

use tidegate_core::id::ClusterName;
use tidegate_core::identity::signs_for_controllers;

use crate::clock::Clock;

/// What a controller with these authorities, by generation, shows and accepts from now on. Renew it when a third of
/// [`tidegate_core::identity::CERTIFICATE_LIFE`] has passed.
///
/// # Errors
/// If there is no authority, or none that a certificate can be made with.
pub fn controller_config(
    authorities: &BTreeMap<u64, Authority>,
    clock: Clock,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let roots: Vec<&str> = authorities.values().map(Authority::certificate_pem).collect();
    let wall = clock.wall();
    let ends = authorities
        .iter()
        .map(|(generation, authority)| (*generation, authority.ends()));
    let signer = signs_for_controllers(&ends.collect(), wall);
    let signer = signer.and_then(|generation| authorities.get(&generation));
    let signer = signer.ok_or_else(|| IdentityError::Tls("there is no authority".to_owned()))?;
    server_config(&signer.issue(&Role::Controller, &roots, wall)?, clock)
}

/// What a certificate lets its holder do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishes tables.
    Controller,
    /// Brings secrets to controllers.
    Courier,
    /// Reads the table of one service cluster.
    Proxy(ClusterName),
}

/// Name that every controller's certificate carries.
pub const CONTROLLER_NAME: &str = "controller.tidegate.internal";
const COURIER_NAME: &str = "courier.tidegate.internal";
const PROXY_SUFFIX: &str = ".proxy.tidegate.internal";

impl Role {
    /// The DNS name in the certificate of this role.
    pub fn dns_name(&self) -> String {
        match self {
            Role::Controller => CONTROLLER_NAME.to_owned(),
            Role::Courier => COURIER_NAME.to_owned(),
            Role::Proxy(cluster) => format!("{cluster}{PROXY_SUFFIX}"),
        }
    }

    fn from_dns_name(name: &str) -> Option<Role> {
        match name {
            CONTROLLER_NAME => Some(Role::Controller),
            COURIER_NAME => Some(Role::Courier),
            _ => name
                .strip_suffix(PROXY_SUFFIX)
                .map(|cluster| Role::Proxy(ClusterName::from(cluster))),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Controller => f.write_str("controller"),
            Role::Courier => f.write_str("courier"),
            Role::Proxy(cluster) => write!(f, "proxy of service cluster {cluster}"),
        }
    }
}
