//! `Actor.Attributes` of events: an object's name, and what an update changed of what Docker compares (facts §3).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use super::Swarm;
use crate::id::{NetworkId, NodeId, SecretId, ServiceId};
use crate::swarm::model::EventKind;

const NAME: &str = "name";

/// What an event says beside what it is about: `name`, and for each thing that an update changed what it was and is, such as
/// `replicas.old` and `replicas.new`. Most changes leave no trace in it. Tidegate reads none of it: an event is a reason to
/// look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub BTreeMap<String, String>);

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (key, value) in &self.0 {
            write!(f, "{between}{key}={value}")?;
            between = " ";
        }
        Ok(())
    }
}

/// What Docker compares of an object, and its name.
pub(super) type Traits = BTreeMap<&'static str, String>;

impl Swarm {
    /// Attributes of an event about an object that has just changed, was made or is gone.
    pub(super) fn attributes(&mut self, kind: EventKind, id: &str) -> Attributes {
        let new = self.traits(kind, id);
        let key = (kind, id.to_string());
        let old = match &new {
            Some(new) => self.told.insert(key, new.clone()),
            None => self.told.remove(&key),
        };
        match (old, new) {
            (Some(old), Some(new)) => compare(&old, &new),
            (Some(only), None) | (None, Some(only)) => compare(&only, &only),
            (None, None) => Attributes::default(),
        }
    }

    fn traits(&self, kind: EventKind, id: &str) -> Option<Traits> {
        let mut traits = Traits::new();
        let name = match kind {
            EventKind::Service => {
                let service = self.services.get(&ServiceId::from(id))?;
                traits.insert("image", service.shape.image.clone());
                traits.extend(
                    service
                        .shape
                        .replicas
                        .map(|replicas| ("replicas", replicas.to_string())),
                );
                traits.extend(service.update_state.map(|state| ("updatestate", state.to_string())));
                &service.shape.name
            }
            EventKind::Node => {
                let record = self.nodes.get(&NodeId::from(id))?;
                traits.insert("availability", lower(&record.availability));
                traits.insert("state", lower(&record.node.state));
                &record.node.hostname
            }
            EventKind::Network => &self.networks.get(&NetworkId::from(id))?.network.name,
            EventKind::Secret => &self.secrets.get(&SecretId::from(id))?.secret.name,
            // A config, which has its name alone.
            EventKind::Other => self.configs.get(id)?,
        };
        traits.insert(NAME, name.clone());
        Some(traits)
    }
}

fn lower(state: &impl fmt::Debug) -> String {
    format!("{state:?}").to_lowercase()
}

/// What is no more, as the state of an update that a change wiped, is not told.
fn compare(old: &Traits, new: &Traits) -> Attributes {
    let mut attributes = Attributes::default();
    for (key, value) in new {
        let before = old.get(key);
        if *key == NAME {
            attributes.0.insert(key.to_string(), value.clone());
        } else if before != Some(value) {
            attributes.0.insert(format!("{key}.new"), value.clone());
            attributes
                .0
                .extend(before.map(|before| (format!("{key}.old"), before.clone())));
        }
    }
    attributes
}
