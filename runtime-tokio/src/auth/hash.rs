//! Whether a password fits a hash of a file of users. Comparisons take the same time wherever the first difference is.

use md5::{Digest as _, Md5};
use sha_crypt::{PasswordVerifier as _, ShaCrypt};
use sha1::Sha1;
use subtle::ConstantTimeEq as _;
use tidegate_core::request::basic::{Scheme, User};

pub(super) fn fits(user: &User, password: &[u8]) -> bool {
    match user.scheme {
        Scheme::Apr1 => {
            let mut parts = user.hash.split('$').skip(2);
            let (Some(salt), Some(digest)) = (parts.next(), parts.next()) else {
                return false;
            };
            same(&apr1(password, salt.as_bytes()), digest.as_bytes())
        }
        Scheme::Bcrypt => bcrypt::verify(password, &user.hash).unwrap_or(false),
        Scheme::Sha1 => {
            let digest = user.hash.trim_start_matches("{SHA}");
            same(&base64(&Sha1::digest(password)), digest.as_bytes())
        }
        Scheme::ShaCrypt => ShaCrypt::default()
            .verify_password(password, user.hash.as_str())
            .is_ok(),
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes()
}

/// Apache's variant of the MD5 crypt of FreeBSD: the 22 characters behind the salt.
fn apr1(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let mut digest = Md5::new_with_prefix(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    let mut first = Md5::new_with_prefix(password)
        .chain_update(b"$apr1$")
        .chain_update(salt);
    for at in (0..password.len()).step_by(16) {
        first.update(&digest[..16.min(password.len() - at)]);
    }
    let mut bits = password.len();
    while bits > 0 {
        match (bits & 1, password.first()) {
            (0, Some(byte)) => first.update([*byte]),
            _ => first.update([0]),
        }
        bits >>= 1;
    }
    digest = first.finalize();
    for round in 0..1000 {
        let is_odd = round % 2 == 1;
        let mut next = Md5::new();
        next.update(if is_odd { password } else { &digest[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if is_odd { &digest[..] } else { password });
        digest = next.finalize();
    }
    let mut out = Vec::with_capacity(22);
    let mut write = |mut bits: u32, count: usize| {
        const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for _ in 0..count {
            out.push(DIGITS[(bits & 63) as usize]);
            bits >>= 6;
        }
    };
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        let byte = |at: usize| u32::from(digest[at]);
        write((byte(a) << 16) | (byte(b) << 8) | byte(c), 4);
    }
    write(u32::from(digest[11]), 2);
    out
}

#[cfg(test)]
mod tests {
    use tidegate_core::request::basic::Users;

    use super::*;

    /// Made by `htpasswd` and `openssl passwd`.
    const LINES: &[(&str, &str)] = &[
        ("secret", "$apr1$lZL6V/ci$PR6QJXkRFUzdUuaYcwrI//"),
        ("a", "$apr1$x$16j9.5e7KiXmuYFAYpPJM/"),
        (
            "a much longer password than sixteen bytes, ä",
            "$apr1$abcdefgh$x/Ru4rU6uhvKXZYl8QzRQ/",
        ),
        ("secret", "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA"),
        (
            "secret",
            "$6$rounds=1000$saltstring$2BkAo106CG84raQcWpAlhyy6TSSkAsL1nfvBCoezLYyerUzY2l8axTvq6NynEt7SQAx3/cdop9ds0po8uaeHq0",
        ),
        (
            "secret",
            "$6$abc$IdWKNKTJEb8LxY7CGg8YBXlvtfZzFw7Mp/r6niK9YB2mdvgY..TKjv1T..8RadRt2qvUHYRLr/TsVArtr91iR1",
        ),
        ("secret", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
        ("secret", "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"),
        ("secret", "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"),
        ("secret", "$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"),
    ];

    #[test]
    fn each_kind_of_hash_fits_its_own_password_alone() {
        for (password, hash) in LINES {
            let (users, wrong) = Users::read(&format!("bob:{hash}\n"));
            assert_eq!(wrong, Vec::<String>::new(), "{hash}");
            let user = users.find("bob").expect("bob");
            assert!(fits(user, password.as_bytes()), "{hash}");
            for other in ["", "x", &password[1..], &format!("{password}x")] {
                assert!(!fits(user, other.as_bytes()), "{hash} with {other:?}");
            }
        }
    }
}
