//! Routes from a file: looks at it twice a second, resolves the names in it, and installs what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate_core::controller::routes::OwnedClaim;
use tidegate_core::id::{Revision, ServiceId};
use tidegate_core::labels::Diagnostic;
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::snapshot::Digest;
use tidegate_core::snapshot::model::Snapshot;
use tidegate_core::snapshot::subscriber::Install;
use tidegate_core::source_file::{Endpoint, SourceFile, read};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::net::Net;

/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks between two resolutions of the names in it: 5 s.
const LOOKS_PER_RESOLUTION: u32 = 10;
/// Time for one name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of the file.
#[derive(Clone, Debug, Default)]
pub struct FileStatus {
    /// Findings about services.
    pub diagnostics: Vec<Diagnostic>,
    /// What each service claims.
    pub claims: Vec<OwnedClaim>,
    /// Why the present text is not served, if it is not.
    pub error: Option<String>,
}

/// Reads a file once.
///
/// # Errors
/// A line that names the file and what is wrong.
pub fn load(path: &Path) -> Result<SourceFile, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    read(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The snapshot of a file whose names were resolved to `addresses`.
pub fn snapshot(file: &SourceFile, settings: &ProxySettings, addresses: &BTreeMap<String, Vec<IpAddr>>) -> Snapshot {
    let resolve = |endpoint: &Endpoint| match endpoint.host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => addresses.get(&endpoint.host).cloned().unwrap_or_default(),
    };
    let routes = file
        .services
        .iter()
        .map(|service| (service.service.id.clone(), Arc::new(service.spec(resolve))));
    Snapshot {
        settings: settings.clone(),
        routes: routes.collect(),
    }
}

/// Follows `path`, beginning with `file`, until `stop`. A text that cannot be read changes nothing.
#[expect(
    clippy::too_many_arguments,
    reason = "seams, inputs and outlets of one loop; each is used once"
)]
pub async fn follow_file<N: Net, F: Future<Output = ()>>(
    net: N,
    clock: Clock,
    path: PathBuf,
    mut file: SourceFile,
    settings: ProxySettings,
    mut install: impl FnMut(Install) -> F,
    mut report: impl FnMut(FileStatus),
    stop: CancellationToken,
) {
    let mut seen = stamp(&path);
    let mut present: Option<Snapshot> = None;
    let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let mut revision = 0;
    let mut looks = 0_u32;
    // A comparison costs as much as the file is long, so one is made only after something changed.
    let mut stale = true;
    let mut unreported = true;
    let mut status = status_of(&file);
    status
        .diagnostics
        .iter()
        .for_each(|diagnostic| tracing::warn!("{diagnostic}"));
    loop {
        if looks.is_multiple_of(LOOKS_PER_RESOLUTION) || present.is_none() {
            let before = addresses.clone();
            resolve_names(&net, &file, &mut addresses).await;
            stale |= addresses != before;
        }
        let wanted = std::mem::take(&mut stale).then(|| snapshot(&file, &settings, &addresses));
        if let Some(wanted) = wanted
            && present.as_ref() != Some(&wanted)
        {
            revision += 1;
            let changed = present.as_ref().map(|before| differing(before, &wanted));
            let cause = match &changed {
                Some(changed) => format!("{} services of {}", changed.len(), path.display()),
                None => path.display().to_string(),
            };
            tracing::info!(cause, routes = wanted.routes.len(), "table installed");
            present = Some(wanted.clone());
            let snapshot = Arc::new(wanted);
            let digest = Digest::default();
            install(Install {
                snapshot,
                changed,
                revision: Revision(revision),
                cause,
                digest,
                stored: None,
            })
            .await;
        }
        if std::mem::take(&mut unreported) {
            report(status.clone());
        }
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = clock.pause(LOOK_EVERY) => {}
        }
        looks += 1;
        let now = stamp(&path);
        if now != seen {
            seen = now;
            unreported = true;
            match load(&path) {
                Ok(next) => {
                    let known: BTreeSet<&Diagnostic> = status.diagnostics.iter().collect();
                    let new = next.diagnostics.iter().filter(|diagnostic| !known.contains(diagnostic));
                    new.for_each(|diagnostic| tracing::warn!("{diagnostic}"));
                    status = status_of(&next);
                    file = next;
                    (looks, stale) = (0, true);
                }
                Err(error) => {
                    tracing::warn!("{error}; the last good table is served");
                    status.error = Some(error);
                }
            }
        }
    }
}

fn status_of(file: &SourceFile) -> FileStatus {
    FileStatus {
        diagnostics: file.diagnostics.clone(),
        claims: file.claims(),
        error: None,
    }
}

/// Changes with every edit: time of change, length and inode-independent existence.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// All names at once. A name that cannot be resolved keeps its addresses.
async fn resolve_names<N: Net>(net: &N, file: &SourceFile, addresses: &mut BTreeMap<String, Vec<IpAddr>>) {
    let hosts = file
        .services
        .iter()
        .flat_map(|service| &service.endpoints)
        .map(|endpoint| endpoint.host.as_str());
    let names: BTreeSet<String> = hosts
        .filter(|host| host.parse::<IpAddr>().is_err())
        .map(str::to_owned)
        .collect();
    addresses.retain(|name, _| names.contains(name));
    let found = Rc::new(std::cell::RefCell::new(BTreeMap::new()));
    let mut lookups = tokio::task::JoinSet::new();
    for name in names {
        let (net, found) = (net.clone(), found.clone());
        lookups.spawn_local(async move {
            match tokio::time::timeout(RESOLVE_TIMEOUT, net.resolve(&name, 0)).await {
                Ok(Ok(resolved)) => {
                    found
                        .borrow_mut()
                        .insert(name, resolved.iter().map(std::net::SocketAddr::ip).collect::<Vec<_>>());
                }
                Ok(Err(error)) => tracing::warn!(name, %error, "an endpoint's name cannot be resolved"),
                Err(_) => tracing::warn!(name, "an endpoint's name is not resolved in time"),
            }
        });
    }
    while lookups.join_next().await.is_some() {}
    addresses.append(&mut found.borrow_mut());
}

fn differing(before: &Snapshot, after: &Snapshot) -> BTreeSet<ServiceId> {
    let ids = before.routes.keys().chain(after.routes.keys());
    ids.filter(|id| before.routes.get(*id) != after.routes.get(*id))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::TokioNet;
    use tokio::sync::watch;

    const LIMIT: Duration = Duration::from_secs(20);
    const GOOD: &str =
        "[services.shop]\nlabels = { \"tidegate.hosts\" = \"shop.example.org\" }\nendpoints = [\"127.0.0.1:1\"]\n";

    #[tokio::test]
    async fn an_edit_is_picked_up_and_a_broken_one_keeps_the_last_good_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.toml");
        std::fs::write(&path, GOOD).unwrap();
        let (tables, mut served) = watch::channel(0_usize);
        let (statuses, mut status) = watch::channel(FileStatus::default());
        let follow = follow_file(
            TokioNet,
            Clock::system(),
            path.clone(),
            load(&path).unwrap(),
            ProxySettings::default(),
            move |table| {
                tables.send_replace(table.snapshot.routes.len());
                std::future::ready(())
            },
            move |now| {
                statuses.send_replace(now);
            },
            CancellationToken::new(),
        );
        let test = async {
            tokio::time::timeout(LIMIT, served.wait_for(|routes| *routes == 1))
                .await
                .unwrap()
                .unwrap();
            std::fs::write(&path, format!("{GOOD}\n[services.broken\n")).unwrap();
            let seen = tokio::time::timeout(LIMIT, status.wait_for(|status| status.error.is_some())).await;
            let error = seen.unwrap().unwrap().error.clone().unwrap();
            assert!(error.contains("routes.toml") && error.contains("line 5"), "{error}");
            assert_eq!(*served.borrow(), 1);
            let second = GOOD.replace("shop", "more");
            std::fs::write(&path, format!("{GOOD}{second}")).unwrap();
            tokio::time::timeout(LIMIT, served.wait_for(|routes| *routes == 2))
                .await
                .unwrap()
                .unwrap();
            tokio::time::timeout(LIMIT, status.wait_for(|status| status.error.is_none()))
                .await
                .unwrap()
                .unwrap();
        };
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                tokio::select! { biased;
                    () = test => {}
                    () = follow => {}
                }
            })
            .await;
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        assert!(
            load(Path::new("/nowhere/routes.toml"))
                .unwrap_err()
                .contains("/nowhere/routes.toml")
        );
    }
}
