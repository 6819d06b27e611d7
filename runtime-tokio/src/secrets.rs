//! The secrets that this process has, from wherever they come: a folder of files, or the courier by way of a controller.
//!
//! How a feature uses them: name the secret in [`RouteSpec::secrets`](tidegate_core::route::spec::RouteSpec::secrets), and
//! it is here. Take a clone of the [`Secrets`] of the process (workers have one in their
//! [`WorkerConfig`](crate::worker::WorkerConfig)), and
//!
//! - [`get`](Secrets::get) gives the content, or why there is none. It stays the last good one when the secret goes.
//! - [`Secret::version`] is another number whenever the content is another: keep what was made of it beside the version, and
//!   make it anew only where that differs.
//! - [`stamp`](Secrets::stamp) is one atomic load, for the path of a request: as long as it is the same, nothing changed.
//! - [`changes`](Secrets::changes) wakes who waits for the next change.
//! - [`report`](Secrets::report) takes what is wrong with a content. It is logged once, counted in the metrics, and shown by
//!   controllers beside the label; that a secret is missing is reported anyway.
//!
//! All of it may be called on any thread. Contents are in memory alone and never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tidegate_core::secrets::message::Delivery;
use tidegate_core::secrets::{Finding, SECRET_BYTES_MAX, Secret, SecretProblem, SecretText, Shelf};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// Between two looks at the files of a folder.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// See the module. Clones are the same secrets.
#[derive(Clone)]
pub struct Secrets(Arc<Shared>);

struct Shared {
    shelf: Mutex<Shelf>,
    folder: Option<Folder>,
    stamp: AtomicU64,
    changes: watch::Sender<u64>,
    /// By who says so.
    reports: Mutex<BTreeMap<&'static str, BTreeSet<Finding>>>,
    findings: watch::Sender<BTreeSet<Finding>>,
}

struct Folder {
    path: PathBuf,
    seen: Mutex<BTreeMap<String, Seen>>,
}

/// What a file looked like when it was read: time of change and length; `None` where there was none.
type Seen = Option<(SystemTime, u64)>;

impl Secrets {
    /// Secrets that are files in a folder, each by its name. Docker mounts them so.
    pub fn folder(path: PathBuf) -> Secrets {
        Secrets::over(Some(Folder {
            path,
            seen: Mutex::default(),
        }))
    }

    /// Secrets that somebody brings: see [`Secrets::take`].
    pub fn brought() -> Secrets {
        Secrets::over(None)
    }

    fn over(folder: Option<Folder>) -> Secrets {
        Secrets(Arc::new(Shared {
            shelf: Mutex::default(),
            folder,
            stamp: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            reports: Mutex::default(),
            findings: watch::Sender::new(BTreeSet::new()),
        }))
    }

    /// Whether somebody is to bring them.
    pub fn is_brought(&self) -> bool {
        self.0.folder.is_none()
    }

    /// Takes the names that a new table wants, and reads those that are files. Call it before workers get the table.
    pub fn want(&self, names: BTreeSet<String>) {
        let mut shelf = self.shelf();
        let mut changed = shelf.want(names);
        changed |= self.read_files(&mut shelf);
        drop(shelf);
        self.tell(changed);
    }

    /// Takes what was brought.
    pub fn take(&self, delivery: Delivery) {
        let mut shelf = self.shelf();
        let mut changed = delivery.names.is_some_and(|names| shelf.list(names));
        for parcel in delivery.secrets {
            changed |= shelf.put(&parcel.name, parcel.content, parcel.problem);
        }
        drop(shelf);
        self.tell(changed);
    }

    /// What there is of the secret `name`. Of one that no route wants there is nothing.
    pub fn get(&self, name: &str) -> Secret {
        self.shelf().get(name).cloned().unwrap_or(Secret {
            version: 0,
            content: None,
            problem: Some(SecretProblem::Waiting),
        })
    }

    /// Another number after each change of any secret.
    pub fn stamp(&self) -> u64 {
        self.0.stamp.load(Ordering::Acquire)
    }

    /// Wakes after each change of any secret.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Takes all that `who` finds wrong with contents now, in place of what it found before.
    pub fn report(&self, who: &'static str, findings: BTreeSet<Finding>) {
        let before = lock(&self.0.reports).insert(who, findings.clone());
        if before.unwrap_or_default() != findings {
            self.gather();
        }
    }

    /// Takes what `who` finds wrong with the present content of one secret, in place of what it found of that one before.
    pub fn report_of(&self, who: &'static str, secret: &str, findings: impl IntoIterator<Item = Finding>) {
        let mut reports = lock(&self.0.reports);
        let found = reports.entry(who).or_default();
        let before = found.clone();
        found.retain(|finding| finding.secret != secret);
        found.extend(findings);
        let changed = *found != before;
        drop(reports);
        if changed {
            self.gather();
        }
    }

    /// All that is wrong with secrets that the table wants, now and later.
    pub fn findings(&self) -> watch::Receiver<BTreeSet<Finding>> {
        self.0.findings.subscribe()
    }

    /// Looks at the files again; what is brought comes by itself.
    pub fn refresh(&self) {
        let changed = self.read_files(&mut self.shelf());
        self.tell(changed);
    }

    /// Looks at the files every few seconds, in a task of its own, until `stop`.
    pub fn follow(self, clock: Clock, stop: CancellationToken) {
        if self.0.folder.is_none() {
            return;
        }
        spawn_local(async move {
            loop {
                let at = clock.now() + LOOK_EVERY;
                tokio::select! { biased;
                    () = stop.cancelled() => return,
                    () = clock.sleep_until(Some(at)) => self.refresh(),
                }
            }
        });
    }

    fn read_files(&self, shelf: &mut Shelf) -> bool {
        let Some(folder) = &self.0.folder else { return false };
        let mut all_seen = lock(&folder.seen);
        all_seen.retain(|name, _| shelf.wanted().contains(name));
        let mut changed = false;
        for name in shelf.wanted().clone() {
            let seen = look(&folder.path, &name);
            if all_seen.get(&name) == Some(&seen) {
                continue;
            }
            changed |= match read(&folder.path, &name) {
                Ok(text) => shelf.put(&name, Some(text), None),
                Err(problem) => shelf.put(&name, None, Some(problem)),
            };
            all_seen.insert(name, seen);
        }
        changed
    }

    fn tell(&self, changed: bool) {
        if changed {
            let stamp = self.0.stamp.fetch_add(1, Ordering::AcqRel) + 1;
            self.0.changes.send_replace(stamp);
            self.gather();
        }
    }

    /// Gathers all findings, and logs those that are new.
    fn gather(&self) {
        let mut all: BTreeSet<Finding> = {
            let mut reports = lock(&self.0.reports);
            // What was found of secrets that no route wants any more is nobody's business.
            let wanted = self.shelf().wanted().clone();
            reports
                .values_mut()
                .for_each(|found| found.retain(|finding| wanted.contains(&finding.secret)));
            reports.values().flatten().cloned().collect()
        };
        let problems = |shelf: MutexGuard<'_, Shelf>| -> Vec<Finding> {
            let problems = shelf.problems();
            problems.map(|(name, problem)| problem.finding(name)).collect()
        };
        all.extend(problems(self.shelf()));
        self.0.findings.send_if_modified(|known| {
            for finding in all.difference(known) {
                if finding.passing {
                    tracing::info!("{finding}");
                } else {
                    tracing::warn!("{finding}");
                }
            }
            let changed = *known != all;
            *known = all;
            changed
        });
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.0.shelf)
    }
}

/// Nothing: for workers that serve no route with a secret.
impl Default for Secrets {
    fn default() -> Self {
        Secrets::brought()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("folder", &self.0.folder.as_ref().map(|folder| &folder.path))
            .field("stamp", &self.stamp())
            .finish_non_exhaustive()
    }
}

/// A thread that panicked left nothing half done: every change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names come from labels, so one that leaves the folder is none.
fn path(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(only)), None) if only.len() == name.len() => Some(folder.join(only)),
        _ => None,
    }
}

fn look(folder: &Path, name: &str) -> Seen {
    let metadata = fs::metadata(path(folder, name)?).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The content of a secret that is a file.
///
/// # Errors
/// Why it has none.
pub fn read(folder: &Path, name: &str) -> Result<SecretText, SecretProblem> {
    let unreadable = |why: &str| SecretProblem::Unreadable(why.to_owned());
    let path = path(folder, name).ok_or_else(|| unreadable("that is no name of a secret"))?;
    let bytes = fs::metadata(&path).and_then(|metadata| match metadata.len() {
        0..=SECRET_BYTES_MAX => fs::read(&path),
        _ => Err(io::Error::other(format!("it is larger than {SECRET_BYTES_MAX} bytes"))),
    });
    match bytes.map(String::from_utf8) {
        Ok(Ok(text)) => Ok(SecretText::new(text)),
        Ok(Err(_)) => Err(SecretProblem::NotText),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SecretProblem::Missing),
        Err(error) => Err(unreadable(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::secrets::message::Parcel;

    use super::*;

    fn wanting(folder: &Path, names: &[&str]) -> Secrets {
        let secrets = Secrets::folder(folder.to_owned());
        secrets.want(names.iter().map(|name| (*name).to_owned()).collect());
        secrets
    }

    fn content(secrets: &Secrets, name: &str) -> Option<String> {
        secrets.get(name).content.map(|text| text.expose().to_owned())
    }

    #[test]
    fn files_are_read_when_they_are_wanted_and_again_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "one").unwrap();
        let secrets = wanting(folder.path(), &["a", "b"]);
        assert_eq!(content(&secrets, "a").as_deref(), Some("one"));
        assert_eq!(secrets.get("b").last_good(), Err(SecretProblem::Missing));
        let (stamp, mut changes) = (secrets.stamp(), secrets.changes());
        secrets.refresh();
        assert_eq!(secrets.stamp(), stamp);
        fs::write(folder.path().join("a"), "another").unwrap();
        fs::write(folder.path().join("b"), "b").unwrap();
        secrets.refresh();
        assert_ne!(secrets.stamp(), stamp);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(content(&secrets, "a").as_deref(), Some("another"));
        assert_eq!(content(&secrets, "b").as_deref(), Some("b"));
    }

    #[test]
    fn the_last_content_stays_when_the_file_goes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "one").unwrap();
        let secrets = wanting(folder.path(), &["a"]);
        fs::remove_file(folder.path().join("a")).unwrap();
        secrets.refresh();
        assert_eq!(content(&secrets, "a").as_deref(), Some("one"));
        let findings = secrets.findings().borrow().clone();
        assert_eq!(findings.first().unwrap().problem, "there is no secret a");
        let other = Finding::new("a", "it is odd", "mend it");
        secrets.report("somebody", [other.clone()].into());
        assert_eq!(secrets.findings().borrow().len(), 2);
        fs::write(folder.path().join("a"), "another").unwrap();
        secrets.refresh();
        assert_eq!(*secrets.findings().borrow(), [other].into());
        secrets.report("somebody", BTreeSet::new());
        assert!(secrets.findings().borrow().is_empty());
    }

    #[test]
    fn a_name_cannot_leave_the_folder_and_what_is_no_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("a"), "one").unwrap();
        fs::write(inner.join("bytes"), [0xff, 0xfe]).unwrap();
        let secrets = wanting(&inner, &["../a", "..", "bytes"]);
        for name in ["../a", ".."] {
            assert!(matches!(
                secrets.get(name).last_good(),
                Err(SecretProblem::Unreadable(_))
            ));
        }
        assert_eq!(secrets.get("bytes").last_good(), Err(SecretProblem::NotText));
    }

    #[test]
    fn what_is_brought_is_there_whether_the_table_comes_before_or_after() {
        let secrets = Secrets::brought();
        let parcel = |name: &str, text: &str| Parcel {
            name: name.to_owned(),
            content: Some(SecretText::new(text)),
            problem: None,
        };
        secrets.want(["a".to_owned()].into());
        assert!(secrets.findings().borrow().first().unwrap().passing);
        secrets.take(Delivery {
            names: Some(["a".to_owned(), "b".to_owned()].into()),
            secrets: vec![parcel("a", "one"), parcel("b", "two")],
        });
        assert_eq!(content(&secrets, "a").as_deref(), Some("one"));
        assert!(secrets.findings().borrow().is_empty());
        secrets.want(["b".to_owned()].into());
        assert_eq!(content(&secrets, "b").as_deref(), Some("two"));
    }

    #[test]
    fn nothing_shows_a_content() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "hush-hush").unwrap();
        let secrets = wanting(folder.path(), &["a"]);
        let shown = format!("{secrets:?} {:?}", secrets.get("a"));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
