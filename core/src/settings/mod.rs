//! The operator's settings: text to values, with a clear word about each key that cannot be honoured.

pub mod proxy;
