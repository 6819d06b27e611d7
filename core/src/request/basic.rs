//! Basic authentication (RFC 7617): what a client says, and the file of users that it is compared with.
//!
//! The file is what `htpasswd` writes, a user and a hash per line. Hashes alone are taken: a password in plain text is refused,
//! since who reads the secret would have it. Lines that are wrong are left out and said by number and user, never by content.
//! Whether a password fits is for the shell to compute, which takes long by design.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use core::fmt;
use sha2::{Digest, Sha256};

/// Users of one file.
const USERS_MAX: usize = 10_000;
/// Bytes of user and password together.
const CREDENTIALS_MAX: usize = 1024;
/// The dearest bcrypt that is taken: 2^14 rounds, about a second.
const BCRYPT_COST_MAX: u32 = 14;
/// The dearest SHA-crypt that is taken.
const SHA_CRYPT_ROUNDS_MAX: u32 = 200_000;

/// What a client says it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Reads the value of `Authorization`; `None` where it is another scheme, or none.
    pub fn read(value: &[u8]) -> Option<Credentials> {
        let text = core::str::from_utf8(value).ok()?;
        let (scheme, token) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") || token.len() > CREDENTIALS_MAX * 2 {
            return None;
        }
        // RFC 7617 §2 wants padding; some clients leave it out.
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let bytes = GeneralPurpose::new(&STANDARD, config).decode(token.trim_ascii()).ok()?;
        let colon = bytes.iter().position(|byte| *byte == b':')?;
        let user = core::str::from_utf8(&bytes[..colon]).ok()?.to_owned();
        let password = bytes[colon + 1..].to_vec();
        (bytes.len() <= CREDENTIALS_MAX).then_some(Credentials { user, password })
    }

    /// What they are known by again without being kept: a hash with a key of the process, for this version of this file alone.
    pub fn fingerprint(&self, key: &[u8; 32], secret: &str, version: u64) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(key);
        for part in [secret.as_bytes(), self.user.as_bytes(), &self.password] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(version.to_be_bytes());
        hash.finalize().into()
    }
}

/// How a password was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// `$apr1$`: Apache's MD5.
    Apr1,
    /// `$2y$`, `$2a$`, `$2b$`.
    Bcrypt,
    /// `{SHA}`: SHA-1 without salt.
    Sha1,
    /// `$5$`, `$6$`: SHA-256 and SHA-512 crypt.
    ShaCrypt,
}

/// One line of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// How the password was hashed.
    pub scheme: Scheme,
    /// The hash as it is written.
    pub hash: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({}, {:?})", self.name, self.scheme)
    }
}

/// The users of one file, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(Vec<User>);

impl Users {
    /// Reads a file, and says what is wrong with it, a sentence for each line that is left out.
    pub fn read(text: &str) -> (Users, Vec<String>) {
        let mut users: Vec<User> = Vec::new();
        let mut wrong = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (line, number) = (line.trim_end(), at + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, hash)) = line.split_once(':').filter(|(name, _)| !name.is_empty()) else {
                wrong.push(format!("line {number} is no user and hash with a colon between them"));
                continue;
            };
            match scheme(hash) {
                Ok(_) if users.len() >= USERS_MAX => {
                    wrong.push(format!(
                        "line {number} and all that follow are beyond the {USERS_MAX} users of one file"
                    ));
                    break;
                }
                Ok(scheme) => users.push(User {
                    name: name.to_owned(),
                    scheme,
                    hash: hash.to_owned(),
                }),
                Err(why) => wrong.push(format!("line {number}, user {name:?}: {why}")),
            }
        }
        // Of two lines for one user the first holds, as with Apache.
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users.dedup_by(|b, a| {
            let is_second = a.name == b.name;
            if is_second {
                wrong.push(format!("user {:?} has several lines, of which the first holds", a.name));
            }
            is_second
        });
        (Users(users), wrong)
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The user of this name, and whom to compare with instead where there is none, so that both take as long.
    pub fn find(&self, name: &str) -> Result<&User, Option<&User>> {
        let at = self.0.binary_search_by(|user| user.name.as_str().cmp(name));
        at.map(|at| &self.0[at])
            .map_err(|_| self.0.iter().max_by_key(|user| user.scheme == Scheme::Bcrypt))
    }
}

fn scheme(hash: &str) -> Result<Scheme, &'static str> {
    let is_of = |text: &str, more: &[u8]| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    let truncated = "the hash is cut off or damaged: write it anew with htpasswd -B";
    let dear = "the hash takes too long to compare with: write it anew with htpasswd -B -C 10";
    if let Some(rest) = ["$2y$", "$2a$", "$2b$"].iter().find_map(|mark| hash.strip_prefix(mark)) {
        let (cost, rest) = rest.split_once('$').ok_or(truncated)?;
        let cost = cost.parse::<u32>().map_err(|_| truncated)?;
        if rest.len() != 53 || !is_of(rest, b"./") || cost < 4 {
            return Err(truncated);
        }
        return if cost > BCRYPT_COST_MAX {
            Err(dear)
        } else {
            Ok(Scheme::Bcrypt)
        };
    }
    if let Some(rest) = hash.strip_prefix("$apr1$") {
        let (salt, digest) = rest.split_once('$').ok_or(truncated)?;
        let fits = (1..=8).contains(&salt.len()) && digest.len() == 22 && is_of(digest, b"./");
        return if fits { Ok(Scheme::Apr1) } else { Err(truncated) };
    }
    if let Some(rest) = hash.strip_prefix("{SHA}") {
        return if rest.len() == 28 && is_of(rest, b"+/=") {
            Ok(Scheme::Sha1)
        } else {
            Err(truncated)
        };
    }
    for (mark, len) in [("$5$", 43), ("$6$", 86)] {
        let Some(rest) = hash.strip_prefix(mark) else { continue };
        let (rounds, rest) = match rest.strip_prefix("rounds=") {
            Some(rest) => rest.split_once('$').ok_or(truncated)?,
            None => ("5000", rest),
        };
        let rounds = rounds.parse::<u32>().map_err(|_| truncated)?;
        let (salt, digest) = rest.split_once('$').ok_or(truncated)?;
        if !(1..=16).contains(&salt.len()) || digest.len() != len || !is_of(digest, b"./") || rounds < 1000 {
            return Err(truncated);
        }
        return if rounds > SHA_CRYPT_ROUNDS_MAX {
            Err(dear)
        } else {
            Ok(Scheme::ShaCrypt)
        };
    }
    Err("this is a password in plain text, or a hash of another kind: write it with htpasswd -B")
}

/// The value of `WWW-Authenticate`.
pub fn challenge(realm: &str) -> String {
    // What is quoted was checked when the label was read, and hosts hold no quotation marks.
    format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BCRYPT: &str = "$2y$05$yKOK0hz1qTk7mZgtWEyqmOvY8ZP1NXyhVPaHW0F45Bm0LZlK4pdrm";

    fn read(value: &str) -> Option<(String, String)> {
        let read = Credentials::read(value.as_bytes())?;
        Some((read.user, String::from_utf8(read.password).unwrap()))
    }

    #[test]
    fn credentials_are_read_as_rfc_7617_has_them() {
        let aladdin = Some(("Aladdin".into(), "open sesame".into()));
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), aladdin);
        assert_eq!(read("bAsIc  QWxhZGRpbjpvcGVuIHNlc2FtZQ"), aladdin);
        assert_eq!(read("Basic YTpiOmM="), Some(("a".into(), "b:c".into())));
        assert_eq!(read("Basic Og=="), Some(("".into(), "".into())));
        let long = base64::engine::general_purpose::STANDARD.encode("a:".repeat(600));
        for other in [
            "",
            "Basic",
            "Basic ",
            "Basic QWxh",
            "Basic ===",
            "Bearer QWxhZGRpbjpvcGVu",
            &format!("Basic {long}"),
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_of_users_is_read_and_each_wrong_line_is_said_without_its_content() {
        let text = format!(
            "# staff\n\nbob:{BCRYPT}\r\nann:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00\neve:secret\nmax:{BCRYPT}x\n\
             old:{{SHA}}2PRZAyDhNDqRW2OUFwZQqPNdaSY=\nno colon\n:{BCRYPT}\nbob:{{SHA}}2PRZAyDhNDqRW2OUFwZQqPNdaSY=\n\
             dear:$2y$31$yKOK0hz1qTk7mZgtWEyqmOvY8ZP1NXyhVPaHW0F45Bm0LZlK4pdrm\nslow:$6$rounds=999999999$salt$x\n"
        );
        let (users, wrong) = Users::read(&text);
        let found: Vec<(&str, Scheme)> = users.0.iter().map(|user| (user.name.as_str(), user.scheme)).collect();
        assert_eq!(
            found,
            [("ann", Scheme::Apr1), ("bob", Scheme::Bcrypt), ("old", Scheme::Sha1)]
        );
        insta::assert_snapshot!(wrong.join("\n"));
        let shown = format!(
            "{users:?}{:?}",
            Credentials::read(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        );
        assert!(!shown.contains("2y") && !shown.contains("sesame"), "{shown}");
    }

    #[test]
    fn an_unknown_user_is_compared_with_somebody() {
        let (users, _) = Users::read(&format!("old:{{SHA}}2PRZAyDhNDqRW2OUFwZQqPNdaSY=\nzoe:{BCRYPT}\n"));
        assert_eq!(users.find("zoe").unwrap().name, "zoe");
        assert_eq!(
            users.find("nobody").unwrap_err().unwrap().name,
            "zoe",
            "with the dearest hash"
        );
        assert_eq!(Users::default().find("nobody"), Err(None));
    }

    #[test]
    fn a_fingerprint_is_of_one_file_in_one_version() {
        let of = |user: &str, password: &str| Credentials {
            user: user.into(),
            password: password.into(),
        };
        let print = |credentials: Credentials, secret, version| credentials.fingerprint(&[7; 32], secret, version);
        let one = print(of("ab", "c"), "s", 1);
        assert_eq!(one, print(of("ab", "c"), "s", 1));
        assert_ne!(one, print(of("a", "bc"), "s", 1));
        assert_ne!(one, print(of("ab", "c"), "s", 2));
        assert_ne!(one, print(of("ab", "c"), "t", 1));
        assert_ne!(one, of("ab", "c").fingerprint(&[8; 32], "s", 1));
    }

    proptest! {
        #[test]
        fn no_file_and_no_field_makes_it_panic(text in ".{0,200}", value in proptest::collection::vec(any::<u8>(), 0..200)) {
            for begin in ["", "a:$2y$", "a:$apr1$", "a:$6$rounds=", "a:{SHA}"] {
                let _ = Users::read(&format!("{begin}{text}"));
            }
            let _ = Credentials::read(&[&b"Basic "[..], &value].concat());
        }
    }
}
