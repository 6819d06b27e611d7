//! Ciphers of TLS by name: that of IANA's registry, or OpenSSL's as NGINX has it.

use alloc::string::String;
use alloc::vec::Vec;

/// One cipher suite that is spoken.
#[derive(Debug, PartialEq, Eq)]
pub struct Cipher {
    /// Its number in the registry.
    pub code: u16,
    /// IANA's name.
    pub name: &'static str,
    /// OpenSSL's name.
    pub openssl: &'static str,
    /// Whether it belongs to TLS 1.3; else to TLS 1.2.
    pub is_tls13: bool,
}

const fn tls13(code: u16, name: &'static str, openssl: &'static str) -> Cipher {
    Cipher {
        code,
        name,
        openssl,
        is_tls13: true,
    }
}

const fn tls12(code: u16, name: &'static str, openssl: &'static str) -> Cipher {
    Cipher {
        code,
        name,
        openssl,
        is_tls13: false,
    }
}

/// Every one, by number.
#[rustfmt::skip]
pub const CIPHERS: &[Cipher] = &[
    tls13(0x1301, "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    tls13(0x1302, "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
    tls13(0x1303, "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
    tls12(0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    tls12(0xc02c, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    tls12(0xc02f, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    tls12(0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    tls12(0xcca8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"),
    tls12(0xcca9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
];

/// The cipher with this name.
pub fn find(name: &str) -> Option<&'static Cipher> {
    let is = |cipher: &&Cipher| cipher.name.eq_ignore_ascii_case(name) || cipher.openssl.eq_ignore_ascii_case(name);
    CIPHERS.iter().find(is)
}

/// All names, for messages.
pub fn names() -> String {
    let names: Vec<&str> = CIPHERS.iter().map(|cipher| cipher.openssl).collect();
    names.join(", ")
}

/// Whether a suite is spoken where the settings name these: a version of TLS of which none is named keeps all of its own.
pub fn allows(named: &[String], code: u16) -> bool {
    let Some(cipher) = CIPHERS.iter().find(|cipher| cipher.code == code) else {
        return named.is_empty();
    };
    let mut of_version = named
        .iter()
        .filter_map(|name| find(name))
        .filter(|other| other.is_tls13 == cipher.is_tls13)
        .peekable();
    of_version.peek().is_none() || of_version.any(|other| other.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_which_no_cipher_is_named_keeps_its_own() {
        let named = [String::from("ecdhe-rsa-aes256-gcm-sha384")];
        let left: Vec<&str> = CIPHERS
            .iter()
            .filter(|cipher| allows(&named, cipher.code))
            .map(|cipher| cipher.name)
            .collect();
        assert_eq!(
            left,
            [
                "TLS_AES_128_GCM_SHA256",
                "TLS_AES_256_GCM_SHA384",
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            ]
        );
        assert!(CIPHERS.iter().all(|cipher| allows(&[], cipher.code)));
    }
}
