use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

use super::*;

fn vector8(content: &[u8]) -> Vec<u8> {
    [&[content.len() as u8][..], content].concat()
}

fn vector16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

fn names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|(kind, name)| [vec![*kind], vector16(name)].concat())
        .collect();
    extension(SERVER_NAME, &vector16(&list))
}

fn protocols(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols.iter().flat_map(|protocol| vector8(protocol)).collect();
    extension(ALPN, &vector16(&list))
}

/// A handshake message with these extensions, as a browser would send it.
fn handshake(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(vector8(&[9; 32]));
    body.extend(vector16(&[0x0a, 0x0a, 0x13, 0x01, 0x13, 0x02])); // the first is GREASE
    body.extend(vector8(&[0]));
    body.extend(vector16(&extensions.concat()));
    let length = (body.len() as u32).to_be_bytes();
    [&[CLIENT_HELLO][..], &length[1..], &body].concat()
}

/// In records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| [&[HANDSHAKE, 3, 1][..], &vector16(fragment)].concat();
    message.chunks(size).flat_map(record).collect()
}

fn asked(extensions: &[Vec<u8>]) -> Parsed {
    parse(&records(&handshake(extensions), FRAGMENT_BYTES_MAX))
}

fn hello_for(name: &str) -> Parsed {
    Parsed::Hello(Hello {
        server_name: Some(name.to_string()),
        ..Hello::default()
    })
}

#[test]
fn a_name_is_read_in_lower_case_without_its_trailing_dot() {
    for name in ["shop.example.org", "SHOP.Example.org", "shop.example.org."] {
        assert_eq!(asked(&[names(&[(0, name.as_bytes())])]), hello_for("shop.example.org"));
    }
}

#[test]
fn grease_and_unknown_extensions_are_passed_over() {
    let hello = asked(&[
        extension(0x0a0a, &[]),
        names(&[(0, b"shop.example.org")]),
        extension(0x7a7a, &[0]),
        protocols(&[b"\x2a\x2a", b"h2", b"http/1.1"]),
        extension(21, &[0; 300]),
    ]);
    let Parsed::Hello(hello) = hello else {
        panic!("{hello:?}")
    };
    assert_eq!(hello.server_name.as_deref(), Some("shop.example.org"));
    assert_eq!(hello.alpn, [&b"\x2a\x2a"[..], b"h2", b"http/1.1"]);
}

#[test]
fn the_outer_name_of_an_encrypted_client_hello_is_the_name() {
    let hello = asked(&[names(&[(0, b"outer.example.org")]), extension(0xfe0d, &[0; 200])]);
    let expected = Hello {
        server_name: Some("outer.example.org".to_string()),
        has_ech: true,
        ..Hello::default()
    };
    assert_eq!(hello, Parsed::Hello(expected));
}

#[test]
fn a_client_without_a_name_or_with_an_address_in_its_place_has_none() {
    let none = Parsed::Hello(Hello::default());
    assert_eq!(asked(&[extension(43, &[2, 3, 4])]), none);
    assert_eq!(asked(&[]), none);
    for address in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
        assert_eq!(asked(&[names(&[(0, address.as_bytes())])]), none, "{address}");
    }
}

#[test]
fn extensions_may_be_missing_altogether() {
    let mut message = handshake(&[]);
    message.truncate(message.len() - 2);
    message[3] -= 2;
    assert_eq!(parse(&records(&message, 16_384)), Parsed::Hello(Hello::default()));
}

#[test]
fn several_names_are_refused_and_names_of_other_types_passed_over() {
    let both = names(&[(0, b"a.example.org"), (0, b"b.example.org")]);
    assert_eq!(asked(&[both]), Parsed::Reject(Reason::SeveralNames));
    let other = names(&[(7, b"\xff\xff"), (0, b"a.example.org")]);
    assert_eq!(asked(&[other]), hello_for("a.example.org"));
}

#[test]
fn one_extension_twice_is_refused() {
    let name = || names(&[(0, b"a.example.org")]);
    assert_eq!(asked(&[name(), name()]), Parsed::Reject(Reason::DuplicateExtension));
    let grease = || extension(0x1a1a, &[]);
    assert_eq!(asked(&[grease(), grease()]), Parsed::Reject(Reason::DuplicateExtension));
}

#[test]
fn what_is_no_host_name_is_refused() {
    let long = [b"a".repeat(63), b"a".repeat(63), b"a".repeat(63), b"a".repeat(63)].join(&b"."[..]);
    for name in [
        &b""[..],
        b".",
        b"a..example.org",
        b"shop example.org",
        b"shop.example.org\0",
        b"*.example.org",
        b"caf\xc3\xa9.example.org",
        b"\xff",
        b"shop.example.org:443",
        &long,
        &b"a".repeat(64),
    ] {
        assert_eq!(
            asked(&[names(&[(0, name)])]),
            Parsed::Reject(Reason::BadName),
            "{name:?}"
        );
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let good = handshake(&[names(&[(0, b"shop.example.org")])]);
    // Every length byte of the body, one more and one less.
    for at in [38, 71, 72, 79, 81, 82, 85, 86, 87, 88, 90, 91] {
        for change in [1_u8, 255] {
            let mut wrong = good.clone();
            wrong[at] = wrong[at].wrapping_add(change);
            let parsed = parse(&records(&wrong, 16_384));
            assert!(
                matches!(parsed, Parsed::Reject(_)),
                "byte {at} changed by {change}: {parsed:?}"
            );
        }
    }
    assert_eq!(asked(&[extension(ALPN, &[0, 0])]), Parsed::Reject(Reason::Malformed));
    assert_eq!(asked(&[extension(ALPN, &[0, 1, 0])]), Parsed::Reject(Reason::Malformed));
    assert_eq!(
        asked(&[extension(SERVER_NAME, &[0, 0])]),
        Parsed::Reject(Reason::Malformed)
    );
}

#[test]
fn what_is_not_tls_is_known_by_its_first_bytes() {
    for bytes in [
        &b"G"[..],
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0",
        b"SSH-2.0-",
        &[0x80, 0x2e, 1], // SSL 2
        &[22, 2, 0],
        &[21, 3, 1, 0, 2, 2, 40],
        &[22, 3, 1, 0, 4, 2], // another message than ClientHello
        &[0],
    ] {
        assert_eq!(parse(bytes), Parsed::NotTls, "{bytes:?}");
    }
    assert_eq!(parse(&[]), Parsed::NeedMore);
}

#[test]
fn records_that_cannot_be_are_refused() {
    assert_eq!(parse(&[22, 3, 1, 0, 0]), Parsed::Reject(Reason::BadRecord));
    assert_eq!(parse(&[22, 3, 1, 0x40, 0x01]), Parsed::Reject(Reason::BadRecord));
    let message = handshake(&[names(&[(0, b"shop.example.org")])]);
    let mut split = records(&message, 50);
    split[55] = 20; // the second record is no handshake
    assert_eq!(parse(&split), Parsed::Reject(Reason::BadRecord));
}

#[test]
fn a_message_beyond_the_limit_is_known_by_its_length() {
    assert_eq!(parse(&[22, 3, 1, 0, 200, 1, 0, 0x40, 0x01]), Parsed::TooLong);
    assert_eq!(parse(&[22, 3, 1, 0, 200, 1, 1, 0, 0]), Parsed::TooLong);
    let message = handshake(&[names(&[(0, b"shop.example.org")]), extension(21, &vec![0; 16_000])]);
    assert!(message.len() > 16_000 && message.len() < HELLO_BYTES_MAX);
    assert_eq!(parse(&records(&message, 16_384)), hello_for("shop.example.org"));
    // The same one byte a record is more than anybody sends.
    let tiny = records(&message, 1);
    assert_eq!(parse(&tiny), Parsed::TooLong);
    assert_eq!(parse(&tiny[..INPUT_BYTES_MAX - 1]), Parsed::NeedMore);
}

/// A valid or broken message: bits of it may be flipped.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let extensions = prop_oneof![
        "[a-zA-Z0-9.:_*-]{0,40}".prop_map(|name| names(&[(0, name.as_bytes())])),
        (0_u8..2, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(kind, name)| names(&[(kind, &name)])),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..4)
            .prop_map(|list| protocols(&list.iter().map(Vec::as_slice).collect::<Vec<_>>())),
        (any::<u16>(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(kind, content)| extension(kind, &content)),
    ];
    (
        prop::collection::vec(extensions, 0..5),
        prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(extensions, flip)| {
            let mut message = handshake(&extensions);
            if let Some((at, with)) = flip {
                let at = at.index(message.len());
                message[at] ^= with;
            }
            message
        })
}

proptest! {
    #[test]
    fn the_answer_does_not_depend_on_how_the_bytes_were_split(
        message in messages(),
        size in 16_usize..200,
        behind in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let whole = [records(&message, 16_384), behind.clone()].concat();
        let answer = parse(&whole);
        let mut is_final = false;
        for end in 0..=whole.len() {
            let parsed = parse(&whole[..end]);
            prop_assert!(!is_final || parsed == answer, "{end} bytes: {parsed:?} after {answer:?}");
            prop_assert!(parsed == Parsed::NeedMore || parsed == answer, "{end} bytes: {parsed:?}, not {answer:?}");
            is_final = parsed != Parsed::NeedMore;
        }
        // The same message in several records, where it is one at all.
        if matches!(answer, Parsed::Hello(_)) {
            prop_assert_eq!(parse(&[records(&message, size), behind].concat()), answer);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), is_record in any::<bool>()) {
        let bytes = if is_record { records(&bytes, 300) } else { bytes };
        parse(&bytes);
        let hello = [&[CLIENT_HELLO, 0, (bytes.len() >> 8) as u8, bytes.len() as u8][..], &bytes].concat();
        parse(&records(&hello, 100));
    }
}
