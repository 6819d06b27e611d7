//! The first bytes that anybody on the internet may send: never a panic, and an answer that no later byte changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_core::tls::client_hello::{Parsed, parse};

fuzz_target!(|bytes: &[u8]| {
    let answer = parse(bytes);
    let step = (bytes.len() / 64).max(1);
    for end in (0..bytes.len()).step_by(step) {
        let earlier = parse(&bytes[..end]);
        assert!(earlier == Parsed::NeedMore || earlier == answer);
    }
});
