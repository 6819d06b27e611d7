//! TLS as far as it decides where a connection goes: which name a client asks for before anything is encrypted, and
//! which certificates a cluster's routes want.
//!
//! Never holds a key and never does cryptography: that is rustls, in the shell.

pub mod certificates;
pub mod client_hello;
pub mod redirect;
