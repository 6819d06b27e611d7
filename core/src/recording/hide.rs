//! What never gets into a recording, and what stands there instead.
//!
//! Contents of secrets, values of environment variables that are not Tidegate's own, values of labels that Tidegate does not
//! read (other routers keep passwords there), and whole task templates. Each is replaced by a keyed hash: equal values stay
//! equal, which is all that decisions are made of, and without the key, which never leaves the process, nobody can try guesses.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use sha2::{Digest as _, Sha256};

use crate::controller::ControllerFact;
use crate::reconcile::desired::{ManagedService, ServiceShape};
use crate::secrets::SecretText;
use crate::settings::Settings;
use crate::swarm::model::{Network, Secret, Service};
use crate::swarm::world::{Answer, WorldFact};

/// Begins what stands for something hidden; 16 hexadecimal digits follow.
const PREFIX: &str = "hidden:";
/// Label keys that Docker and Tidegate read.
const READ: [&str; 2] = ["com.docker.", "tidegate."];
/// Variables that Tidegate reads: settings and addresses, never secrets.
const OWN_VARIABLES: &str = "TIDEGATE_";

/// Hides by one key.
#[derive(Clone)]
pub struct Hide {
    key: [u8; 32],
    /// Label keys that the settings name: what is wanted must be compared with what is there.
    named: BTreeSet<String>,
}

impl core::fmt::Debug for Hide {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Hide")
            .field("named", &self.named)
            .finish_non_exhaustive()
    }
}

impl Hide {
    /// `key` is random and known to nobody; labels that `settings` name are shown.
    pub fn new(key: [u8; 32], settings: &Settings) -> Hide {
        let clusters = settings.clusters.values();
        let named = clusters.flat_map(|cluster| cluster.labels.keys().chain(cluster.container_labels.keys()));
        Hide {
            key,
            named: named.cloned().collect(),
        }
    }

    /// What stands for `text`; what stands for something already stays.
    pub fn text(&self, text: &str) -> String {
        if is_hidden(text) {
            return text.to_string();
        }
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(text.as_bytes());
        let hash = hash.finalize();
        let first = hash.iter().take(8);
        let number = first.fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        format!("{PREFIX}{number:016x}")
    }

    /// The same for a content of a secret.
    pub fn content(&self, content: &SecretText) -> SecretText {
        SecretText::new(self.text(content.expose()))
    }

    /// Hides values of labels that nobody here reads.
    fn labels(&self, labels: &mut BTreeMap<String, String>) {
        for (key, value) in labels {
            if !READ.iter().any(|read| key.starts_with(read)) && !self.named.contains(key) {
                *value = self.text(value);
            }
        }
    }

    /// In a service that may be routed.
    pub fn service(&self, service: &mut Service) {
        self.labels(&mut service.labels);
    }

    /// In a network.
    pub fn network(&self, network: &mut Network) {
        self.labels(&mut network.labels);
    }

    /// In what Docker says of a secret.
    pub fn secret(&self, secret: &mut Secret) {
        self.labels(&mut secret.labels);
    }

    /// In a service of Tidegate's own.
    pub fn managed(&self, service: &mut ManagedService) {
        self.shape(&mut service.shape);
        service.template = self.text(&service.template);
    }

    /// In its shape.
    pub fn shape(&self, shape: &mut ServiceShape) {
        self.labels(&mut shape.labels);
        self.labels(&mut shape.container_labels);
        let env = core::mem::take(&mut shape.env);
        shape.env = env.into_iter().map(|variable| self.variable(variable)).collect();
    }

    fn variable(&self, variable: String) -> String {
        match variable.split_once('=') {
            Some((key, value)) if !key.starts_with(OWN_VARIABLES) => format!("{key}={}", self.text(value)),
            Some(_) | None => variable,
        }
    }

    /// In a list of Docker's.
    pub fn answer(&self, answer: &mut Answer) {
        match answer {
            Answer::Managed(list) => list.iter_mut().for_each(|service| self.managed(service)),
            Answer::Networks(list) => list.iter_mut().for_each(|network| self.network(network)),
            Answer::Secrets(list) => list.iter_mut().for_each(|secret| self.secret(secret)),
            Answer::Services(list) => list.iter_mut().for_each(|service| self.service(service)),
            Answer::Nodes(_) | Answer::Tasks(_) => {}
        }
    }

    /// In whatever the controller is told.
    pub fn fact(&self, fact: &ControllerFact) -> ControllerFact {
        let mut fact = fact.clone();
        if let ControllerFact::CourierConnected { parcels, .. } = &mut fact {
            for parcel in parcels {
                parcel.content = parcel.content.as_ref().map(|content| self.content(content));
            }
        }
        if let ControllerFact::World(WorldFact::Answer { result: Ok(answer), .. }) = &mut fact {
            self.answer(answer);
        }
        fact
    }
}

fn is_hidden(text: &str) -> bool {
    let digits = text.strip_prefix(PREFIX);
    digits.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Parcels as a recording has them. The second lock: what was not hidden before is left out whole.
pub(crate) mod parcels {
    use alloc::borrow::Cow;
    use alloc::string::String;
    use alloc::vec::Vec;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::is_hidden;
    use crate::secrets::message::Parcel;
    use crate::secrets::{SecretProblem, SecretText};

    #[derive(Serialize, Deserialize)]
    struct Written<'a> {
        name: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<Cow<'a, SecretProblem>>,
    }

    pub(crate) fn serialize<S: Serializer>(parcels: &[Parcel], serializer: S) -> Result<S::Ok, S::Error> {
        let shown = |content: &SecretText| match is_hidden(content.expose()) {
            true => Cow::Owned(String::from(content.expose())),
            false => Cow::Borrowed("hidden"),
        };
        serializer.collect_seq(parcels.iter().map(|parcel| Written {
            name: Cow::Borrowed(&parcel.name),
            content: parcel.content.as_ref().map(shown),
            problem: parcel.problem.as_ref().map(Cow::Borrowed),
        }))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Parcel>, D::Error> {
        let parcels = Vec::<Written<'static>>::deserialize(deserializer)?;
        let parcel = |written: Written<'static>| Parcel {
            name: written.name.into_owned(),
            content: written.content.map(|content| SecretText::new(content.into_owned())),
            problem: written.problem.map(Cow::into_owned),
        };
        Ok(parcels.into_iter().map(parcel).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Version;

    fn hide() -> Hide {
        Hide::new([7; 32], &Settings::default())
    }

    #[test]
    fn equal_texts_stay_equal_and_what_is_hidden_stays() {
        let once = hide().text("swordfish");
        assert_eq!(once, hide().text("swordfish"));
        assert_ne!(once, hide().text("swordfisk"));
        assert_ne!(once, Hide::new([8; 32], &Settings::default()).text("swordfish"));
        assert_eq!(hide().text(&once), once);
        assert!(!once.contains("swordfish"));
    }

    #[test]
    fn tidegates_own_labels_and_variables_are_shown() {
        let mut settings = Settings::default();
        for cluster in settings.clusters.values_mut() {
            cluster.labels.insert("team".to_string(), "web".to_string());
        }
        let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
        let mut service = ManagedService {
            id: "x".into(),
            version: Version(1),
            shape: ServiceShape {
                labels: [
                    pair("tidegate.role", "proxy"),
                    pair("team", "web"),
                    pair("auth", "swordfish"),
                ]
                .into(),
                env: ["TIDEGATE_LOG=info", "PASSWORD=swordfish", "FLAG"]
                    .map(String::from)
                    .into(),
                ..ServiceShape::default()
            },
            template: "PASSWORD=swordfish".to_string(),
            update_state: None,
        };
        Hide::new([7; 32], &settings).managed(&mut service);
        let shown = serde_json::to_string(&service).unwrap();
        assert!(!shown.contains("swordfish"), "{shown}");
        for kept in ["\"proxy\"", "\"web\"", "TIDEGATE_LOG=info", "PASSWORD=hidden:", "FLAG"] {
            assert!(shown.contains(kept), "{kept} is not in {shown}");
        }
    }

    #[test]
    fn a_content_that_nobody_hid_is_not_written_either() {
        let fact = ControllerFact::CourierConnected {
            connection: crate::snapshot::Connection(1),
            task: "courier".to_string(),
            parcels: alloc::vec![crate::secrets::message::Parcel {
                name: "key".to_string(),
                content: Some(SecretText::new("swordfish")),
                problem: None,
            }],
        };
        assert!(!serde_json::to_string(&fact).unwrap().contains("swordfish"));
        let hidden = serde_json::to_string(&hide().fact(&fact)).unwrap();
        assert!(hidden.contains("hidden:") && !hidden.contains("swordfish"), "{hidden}");
    }
}
