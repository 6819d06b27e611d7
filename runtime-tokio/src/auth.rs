//! Basic authentication: compares what clients say with the files of users that are Docker secrets.
//!
//! Comparing takes long by design, a tenth of a second or more with bcrypt, so each worker has a thread for it, started when it
//! is first needed, with a bounded queue. Who was right is known again by a keyed hash (`core::request::basic`), so that only the
//! first request of a client waits. What was wrong is not remembered. A file that comes or changes is read when it is next asked
//! for; one that goes or holds no usable line leaves the last good one. Without one the route is closed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use http::HeaderValue;
use tidegate_core::request::basic::{Credentials, Users};
use tidegate_core::request::fault::Fault;
use tidegate_core::rng::Rng;
use tidegate_core::route::spec::BasicAuth;
use tidegate_core::secrets::Finding;
use tokio::sync::oneshot;
use tracing::warn;

mod hash;

use crate::secrets::Secrets;

/// Comparisons that may wait for the thread; beyond it, clients are asked to come again.
const WAITING_MAX: usize = 64;
/// Clients that are known again, before they all are forgotten.
const KNOWN_MAX: usize = 4096;

/// Who reports about the secrets.
const WHO: &str = "basic_auth";
const LINE: &str =
    "write lines as `htpasswd -nB NAME` prints them; without one the route is closed, or the last good users hold";

type Fingerprint = [u8; 32];

/// A worker's part of it.
pub(crate) struct Auth {
    key: [u8; 32],
    secrets: Secrets,
    /// [`Secrets::stamp`] when the files were looked at last.
    stamp: Cell<u64>,
    files: RefCell<BTreeMap<String, File>>,
    known: RefCell<BTreeSet<Fingerprint>>,
    jobs: RefCell<Option<SyncSender<Job>>>,
}

#[derive(Clone, Default)]
struct File {
    version: u64,
    /// `None`: there never was a good one.
    users: Option<Arc<Users>>,
}

struct Job {
    users: Arc<Users>,
    credentials: Credentials,
    fingerprint: Fingerprint,
    answer: oneshot::Sender<bool>,
}

impl Auth {
    pub(crate) fn new(secrets: Secrets, rng: &mut Rng) -> Self {
        let mut key = [0; 32];
        for part in key.chunks_exact_mut(8) {
            part.copy_from_slice(&rng.next_u64().to_be_bytes());
        }
        Auth {
            key,
            stamp: Cell::new(secrets.stamp()),
            secrets,
            files: RefCell::default(),
            known: RefCell::default(),
            jobs: RefCell::default(),
        }
    }

    /// Whether a client with this `Authorization` may come in: all files must have it.
    pub(crate) async fn admit(
        &self,
        wanted: &[BasicAuth],
        authorization: Option<&HeaderValue>,
        host: Option<&HeaderValue>,
    ) -> Result<(), Fault> {
        for auth in wanted {
            let (version, users) = self.users(&auth.secret).ok_or(Fault::UsersUnknown)?;
            let refused = || Fault::Unauthorized {
                realm: auth.realm.clone().unwrap_or_else(|| {
                    let host = host.and_then(|host| host.to_str().ok());
                    host.unwrap_or("tidegate").to_owned()
                }),
            };
            let credentials = authorization.and_then(|value| Credentials::read(value.as_bytes()));
            let credentials = credentials.ok_or_else(refused)?;
            let fingerprint = credentials.fingerprint(&self.key, &auth.secret, version);
            if self.known.borrow().contains(&fingerprint) {
                continue;
            }
            let (answer, heard) = oneshot::channel();
            self.send(Job {
                users,
                credentials,
                fingerprint,
                answer,
            })?;
            match heard.await {
                Ok(true) => self.remember(fingerprint),
                Ok(false) => return Err(refused()),
                Err(_) => return Err(Fault::UsersUnknown), // the thread is gone
            }
        }
        Ok(())
    }

    /// The file in its present version.
    fn users(&self, secret: &str) -> Option<(u64, Arc<Users>)> {
        let mut files = self.files.borrow_mut();
        let stamp = self.secrets.stamp();
        if self.stamp.replace(stamp) != stamp {
            for (name, file) in files.iter_mut() {
                self.look(name, file);
            }
        }
        if !files.contains_key(secret) {
            let mut file = File::default();
            self.look(secret, &mut file);
            files.insert(secret.to_owned(), file);
        }
        let file = files.get(secret)?;
        Some((file.version, Arc::clone(file.users.as_ref()?)))
    }

    fn look(&self, name: &str, file: &mut File) {
        let secret = self.secrets.get(name);
        if file.version == secret.version && file.users.is_some() {
            return;
        }
        // Why there is no content is told where secrets come from.
        let Some(text) = &secret.content else { return };
        let (users, wrong) = Users::read(text.expose());
        let mut findings: Vec<Finding> = wrong
            .iter()
            .map(|problem| Finding::new(name, format!("the secret {name}: {problem}"), LINE))
            .collect();
        if users.is_empty() {
            let problem = format!("the secret {name} has no usable line");
            findings.push(Finding::new(name, problem, LINE));
        }
        self.secrets.report_of(WHO, name, findings);
        if users.is_empty() {
            return;
        }
        *file = File {
            version: secret.version,
            users: Some(Arc::new(users)),
        };
    }

    fn remember(&self, fingerprint: Fingerprint) {
        remember(&mut self.known.borrow_mut(), fingerprint);
    }

    fn send(&self, job: Job) -> Result<(), Fault> {
        let mut jobs = self.jobs.borrow_mut();
        if jobs.is_none() {
            let (sender, receiver) = sync_channel(WAITING_MAX);
            let thread = std::thread::Builder::new().name("basic-auth".to_owned());
            match thread.spawn(move || compare(&receiver)) {
                Ok(_) => *jobs = Some(sender), // it ends with the sender
                Err(error) => warn!(%error, "no thread to compare passwords in"),
            }
        }
        let sent = jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
        if sent { Ok(()) } else { Err(Fault::UsersUnknown) }
    }
}

fn remember(known: &mut BTreeSet<Fingerprint>, fingerprint: Fingerprint) {
    if known.len() >= KNOWN_MAX {
        known.clear();
    }
    known.insert(fingerprint);
}

/// The thread. A page asks for many things at once: the second of the same client finds the answer of the first.
fn compare(jobs: &Receiver<Job>) {
    let mut known = BTreeSet::new();
    while let Ok(job) = jobs.recv() {
        let Job {
            users,
            credentials,
            fingerprint,
            answer,
        } = job;
        if answer.is_closed() {
            continue; // the client left
        }
        let fits = known.contains(&fingerprint)
            || match users.find(&credentials.user) {
                Ok(user) => hash::fits(user, &credentials.password),
                Err(somebody) => {
                    // As long as for a user that there is.
                    let _ = somebody.map(|user| hash::fits(user, &credentials.password));
                    false
                }
            };
        if fits {
            remember(&mut known, fingerprint);
        }
        let _ = answer.send(fits); // it may have left meanwhile
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}
