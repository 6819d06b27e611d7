use super::*;
use alloc::string::ToString;

fn pattern(text: &str) -> String {
    host(text).unwrap().pattern.to_string()
}

#[test]
fn row_01_booleans_are_words_and_not_presence() {
    for text in ["true", "1", "YES", " on "] {
        assert_eq!(boolean(text), Ok(true), "{text}");
    }
    for text in ["false", "0", "No", "off", "", "  "] {
        assert_eq!(boolean(text), Ok(false), "{text}");
    }
    assert!(boolean("enabled").is_err());
}

#[test]
fn row_02_lists_are_trimmed_and_empty_items_ignored() {
    let items: alloc::vec::Vec<_> = list(" a.example.org, ,b.example.org ,; ").collect();
    assert_eq!(items, ["a.example.org", "b.example.org"]);
    assert_eq!(list("").count(), 0);
}

#[test]
fn row_03_hosts_lose_case_dot_and_port() {
    assert_eq!(pattern("WORDPRESS.Local."), "wordpress.local");
    assert_eq!(pattern("shop.example.org:8080"), "shop.example.org");
    assert!(host("shop.example.org:8080").unwrap().had_port);
    assert_eq!(pattern("[2001:DB8:0::1]:443"), "[2001:db8::1]");
    assert_eq!(pattern("::1"), "[::1]");
}

#[test]
fn row_04_a_wildcard_is_the_whole_first_part() {
    assert_eq!(pattern("*.Example.org"), "*.example.org");
    for text in ["*", "*.", "a.*.example.org", "shop*.example.org", "*.*.example.org"] {
        assert!(host(text).is_err(), "{text}");
    }
}

#[test]
fn host_names_keep_the_limits_of_dns() {
    let label = "a".repeat(63);
    assert!(host(&label).is_ok());
    assert!(host(&"a".repeat(64)).is_err());
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(host(&longest).is_ok());
    assert!(host(&format!("{longest}a")).is_err());
}

#[test]
fn hosts_that_are_not_names_are_refused_with_a_remedy() {
    assert!(host("bücher.example").unwrap_err().remedy.contains("punycode"));
    assert_eq!(pattern("xn--bcher-kva.example"), "xn--bcher-kva.example");
    assert!(
        host("http://shop.example.org/x")
            .unwrap_err()
            .remedy
            .contains("\"shop.example.org\"")
    );
    assert!(
        host("shop.example.org/app")
            .unwrap_err()
            .remedy
            .contains("context_root")
    );
    for text in ["", ".", "a..b", "-a.b", "a-.b", "a b", "a$b", "[::1", "a:b", "1::2::3"] {
        assert!(host(text).is_err(), "{text}");
    }
}

#[test]
fn row_36_times_have_units_and_bare_numbers_are_seconds() {
    assert_eq!(duration_ms("10"), Ok(10_000));
    assert_eq!(duration_ms("250ms"), Ok(250));
    assert_eq!(duration_ms("30s"), Ok(30_000));
    assert_eq!(duration_ms("1m30s"), Ok(90_000));
    assert_eq!(duration_ms(" 1h "), Ok(3_600_000));
    assert_eq!(duration_ms("0"), Ok(0));
    for text in [
        "",
        "s",
        "-1s",
        "1.5s",
        "10x",
        "1 2",
        "5d",
        "99999999999999999999s",
        "18446744073709551615h",
    ] {
        assert!(duration_ms(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_are_bytes_or_have_a_unit_of_1024() {
    for (text, bytes) in [
        ("0", 0),
        ("10", 10),
        (" 8K ", 8192),
        ("32m", 32 << 20),
        ("1 g", 1 << 30),
    ] {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
    for text in [
        "",
        "m",
        "-1",
        "1.5m",
        "1t",
        "10mb",
        "99999999999999999999",
        "99999999999g",
        "+1",
    ] {
        assert!(size(text).is_err(), "{text}");
    }
}

#[test]
fn cookie_names_are_tokens() {
    assert_eq!(cookie_name(" app_session ", false).as_deref(), Ok("app_session"));
    assert!(cookie_name("__Host-id", false).is_ok());
    assert!(cookie_name("__Host-id", true).is_err());
    let long = "a".repeat(COOKIE_BYTES_MAX + 1);
    for text in ["", "a b", "a=b", "a;b", "a,b", "é", "a\"b", "a\r\nb", &long] {
        assert!(cookie_name(text, false).is_err(), "{text}");
    }
}

#[test]
fn ports_are_numbers_from_1_to_65535() {
    assert_eq!(port(" 8080 "), Ok(8080));
    for text in [
        "",
        "0",
        "65536",
        "http",
        "80,81",
        "-1",
        "8080/tcp",
        "99999999999999999999999",
    ] {
        assert!(port(text).is_err(), "{text}");
    }
}

#[test]
fn a_path_prefix_is_normalised() {
    for (text, expected) in [
        ("/", "/"),
        ("/app/", "/app"),
        ("/a/b", "/a/b"),
        ("/%61pp", "/app"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("//", "/"),
    ] {
        assert_eq!(path_prefix(text).unwrap().as_str(), expected, "{text}");
    }
}

#[test]
fn path_prefixes_that_no_request_can_match_are_refused() {
    for text in [
        "",
        "app",
        "/a//b",
        "/a/../b",
        "/a/%2e%2e",
        "/a?b",
        "/a#b",
        "/a b",
        "/é",
        "/a%zz",
        "/a%",
        "/a,/b",
        "http://x/y",
        "/a/..%2fb",
        "/a\\b",
    ] {
        assert!(path_prefix(text).is_err(), "{text}");
    }
}
