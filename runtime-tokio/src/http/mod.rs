//! One request through the proxy: read, routed, forwarded, answered.

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod coder;
mod elsewhere;
pub(crate) mod error_page;
pub(crate) mod exchange;
pub(crate) mod first_byte;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod hedge;
pub(crate) mod serve;
pub(crate) mod upgrade;
