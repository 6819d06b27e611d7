//! Host and target of a request, as anybody may send them: never a panic, and what is read stays what it is when it is read
//! again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_core::request::authority::parse;
use tidegate_core::route::host::normalise;
use tidegate_core::route::path::{RequestPath, read};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (host, target) = text.split_once('\n').unwrap_or((text, text));
    if let Some(normal) = normalise(host) {
        let again = normalise(normal.as_str()).expect("a normal host is a host");
        assert_eq!(normal.as_str(), again.as_str());
    }
    if let Ok(authority) = parse(host) {
        assert!(!authority.host.is_empty() && !authority.host.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
    if let RequestPath::Normalised { text, had_dots } = read(target) {
        assert!(text.starts_with('/'));
        let dots = |segment: &str| segment == "." || segment == "..";
        assert!(!had_dots || !text.split('/').any(dots), "{text}");
        match read(&text) {
            RequestPath::Plain(plain) => assert_eq!(plain, text),
            other => panic!("{text} is read again as {other:?}"),
        }
    }
});
