//! The whole state of a controller between two facts, as plain data: what a recording begins with when its beginning was
//! dropped. A controller that is made of one decides from there on exactly as the original did.
//!
//! Not in it: settings and identity, which do not change and are told beside it, and everything that [`Hide`] hides. A field
//! that an older version did not write takes its default, and one that is unknown is passed over, so that a recording outlives
//! the version that made it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use serde::{Deserialize, Serialize};

use super::fleet::Fleet;
use super::routes::{BookState, RouteBook};
use super::{Controller, Me};
use crate::id::ClusterName;
use crate::labels::Diagnostic;
use crate::reconcile::machine::WriteId;
use crate::recording::Hide;
use crate::secrets::{Ledger, LedgerState};
use crate::settings::Settings;
use crate::snapshot::Publisher;
use crate::swarm::world::World;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    world: World,
    book: BookState,
    publishers: BTreeMap<ClusterName, Publisher>,
    #[serde(default)]
    fleet: Option<Fleet>,
    #[serde(default)]
    ledger: LedgerState,
    #[serde(default)]
    secret_diagnostics: BTreeSet<Diagnostic>,
    #[serde(default)]
    told_trouble: Option<String>,
    #[serde(default)]
    told_feed: Option<String>,
}

impl Controller {
    /// The present state. Only between two facts, when no action is left to be taken.
    pub fn checkpoint(&self, hide: &Hide) -> Checkpoint {
        debug_assert!(self.actions.is_empty(), "actions that nobody took are in no checkpoint");
        Checkpoint {
            world: self.world.hidden(hide),
            book: self.book.state(),
            publishers: self.publishers.clone(),
            fleet: self.fleet.as_ref().map(|fleet| fleet.hidden(hide)),
            ledger: self.ledger.hidden(hide),
            secret_diagnostics: self.secret_diagnostics.clone(),
            told_trouble: self.told_trouble.clone(),
            told_feed: self.told_feed.clone(),
        }
    }

    /// The write of a proxy service that is under way.
    pub fn write_in_flight(&self) -> Option<WriteId> {
        self.fleet.as_ref()?.write_in_flight()
    }

    /// Whether it has never done anything. What it was told before that is in no recording, so this is only before its first
    /// timeout.
    pub(crate) fn is_new(&self) -> bool {
        self.world.is_new()
    }

    /// A controller as it was at `checkpoint`; `settings` and `me` are those of that time.
    pub fn resume(settings: Settings, me: Me, checkpoint: Checkpoint) -> Self {
        let mut controller = Controller::new(settings, me);
        controller.world = checkpoint.world.with_settings((&controller.settings.controller).into());
        controller.book = RouteBook::from_state(checkpoint.book, &controller.world);
        for (name, publisher) in checkpoint.publishers {
            if let Some(ours) = controller.publishers.get_mut(&name) {
                ours.resume(publisher);
            }
        }
        if let (Some(ours), Some(fleet)) = (&mut controller.fleet, checkpoint.fleet) {
            ours.resume(fleet);
        }
        controller.ledger = Ledger::from_state(checkpoint.ledger);
        controller.secret_diagnostics = checkpoint.secret_diagnostics;
        controller.told_trouble = checkpoint.told_trouble;
        controller.told_feed = checkpoint.told_feed;
        controller
    }
}
