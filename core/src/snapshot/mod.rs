//! Tables on their way from a controller to its proxies: full once, deltas after that, acknowledged each.
//!
//! Both sides hold the same [`entry::Entries`]: per service the JSON text as it was sent, its hash and what it says.
//! The digest of a revision is made of these hashes, so a newer controller's unknown fields survive in an older proxy,
//! and a delta costs what it changes.

mod awaited;
pub mod entry;
pub mod message;
pub mod model;
pub mod publisher;
pub mod subscriber;

pub use awaited::Served;
pub use entry::Digest;
pub use message::{Ack, Message, Refusal};
pub use publisher::{Connection, ProxyStatus, Publisher, Taken};
pub use subscriber::Subscriber;

/// Features that this version understands in `RouteSpec::requires`.
pub const FEATURES: &[&str] = &[
    crate::route::spec::FEATURE_ALLOW_IPS,
    crate::route::spec::FEATURE_BASIC_AUTH,
    crate::route::spec::FEATURE_LEGS,
    crate::route::spec::FEATURE_PROXY_PROTOCOL,
    crate::route::spec::FEATURE_TLS_BACKEND,
    crate::route::spec::FEATURE_TLS_ONLY,
    crate::route::spec::FEATURE_TLS_PASSTHROUGH,
];
