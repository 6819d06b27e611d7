//! `tidegate courier`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use tidegate_core::identity::PROXY_FILE;
use tidegate_core::route::explain::Explanation;
use tidegate_core::secrets::message::Parcel;
use tokio::sync::watch;

use super::{Failure, host_and_port, identity, serve_admin, stop_signal};
use crate::admin::{Admin, Routes};
use crate::cli::CourierArgs;
use crate::clock::Clock;
use crate::control::courier::{CourierApp, carry};
use crate::net::TokioNet;
use crate::secrets::read;
use crate::telemetry::exposition::Text;

pub(super) async fn run(args: CourierArgs) -> Result<ExitCode, Failure> {
    let clock = Clock::system();
    let stop = stop_signal()?;
    let (host, port) = host_and_port(&args.controller)?;
    let tls = identity(&args.secrets.join(PROXY_FILE), clock)?;
    let (report, delivered) = watch::channel(Vec::new());
    let secrets = args.secrets.clone();
    let holds = names(&secrets).map_err(|error| {
        let folder = secrets.display();
        Failure::usage(format!("error: --secrets {folder}: cannot be read: {error}"))
    })?;
    serve_admin(&args.admin, clock, Some(&host), CourierAdmin { holds, delivered }).await?;
    let app = CourierApp {
        net: TokioNet,
        clock,
        task: args.task,
        host,
        port,
        tls,
    };
    let read = move || parcels(&secrets);
    carry(
        app,
        read,
        move |now| {
            report.send_replace(now);
        },
        stop,
    )
    .await;
    Ok(ExitCode::SUCCESS)
}

/// Everything in the folder but its own identity.
fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != PROXY_FILE && !name.starts_with('.') && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn parcels(folder: &Path) -> Vec<Parcel> {
    let names = names(folder).unwrap_or_else(|error| {
        tracing::error!(%error, "the folder of the secrets cannot be read");
        Vec::new()
    });
    let parcels = names.into_iter().map(|name| {
        let (content, problem) = match read(folder, &name) {
            Ok(content) => (Some(content), None),
            Err(problem) => (None, Some(problem)),
        };
        Parcel { name, content, problem }
    });
    parcels.collect()
}

/// What a courier tells: names, and who has them.
#[derive(Clone, Debug)]
struct CourierAdmin {
    holds: Vec<String>,
    delivered: watch::Receiver<Vec<SocketAddr>>,
}

impl Admin for CourierAdmin {
    /// Ready from the start: whether a controller is there is not its affair.
    async fn unready(&self) -> Option<String> {
        None
    }

    async fn metrics(&self) -> String {
        let mut out = Text::default();
        for (name, help, value) in [
            ("tidegate_courier_secrets", "Secrets that it holds", self.holds.len()),
            (
                "tidegate_courier_controllers",
                "Controllers that have all of them",
                self.delivered.borrow().len(),
            ),
        ] {
            out.family(name, "gauge", help);
            out.sample(name, &[], value);
        }
        out.0
    }

    async fn status(&self) -> serde_json::Value {
        serde_json::json!({
            "role": "courier",
            "version": env!("CARGO_PKG_VERSION"),
            "secrets": self.holds,
            "controllers": *self.delivered.borrow(),
        })
    }

    async fn routes(&self) -> Routes {
        Routes::default()
    }

    async fn explain(&self, _url: &str) -> Vec<(String, Explanation)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_carried_but_its_own_identity() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in [
            (PROXY_FILE, &b"own"[..]),
            ("shop.pem", b"pem"),
            ("bytes", &[0xff, 0xfe]),
        ] {
            std::fs::write(folder.path().join(name), content).expect("a file");
        }
        let parcels = parcels(folder.path());
        let shown: Vec<(&str, bool)> = parcels
            .iter()
            .map(|parcel| (parcel.name.as_str(), parcel.content.is_some()))
            .collect();
        assert_eq!(shown, [("bytes", false), ("shop.pem", true)]);
    }
}
