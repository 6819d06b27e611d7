//! SwarmKit's watch of tasks on the manager's control socket (facts §9). It only carries on what it is told.
//!
//! The socket is the manager's own: gRPC over TLS, as `swarm-manager`, with a certificate of the Swarm's authority, which
//! `GET /swarm` tells. Nothing is shown to it: whoever can open the socket may do everything.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use tidegate_core::id::Version;
use tidegate_core::swarm::model::{ApiError, FeedEnd, TaskEvent};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use crate::client::Docker;
use crate::error::{garbled, unreachable};
use crate::grpc::{self, End, Messages};
use crate::swarmkit;

/// The name in every manager's certificate.
const MANAGER: &str = "swarm-manager";

/// The part of `GET /swarm` that is needed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Swarm {
    #[serde(rename = "TLSInfo")]
    tls_info: TlsInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TlsInfo {
    trust_root: String,
}

impl Docker {
    /// The same engine, with the control socket of its Swarm manager at `path`.
    #[must_use]
    pub fn with_control_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.control_socket = Some(Arc::from(path.into()));
        self
    }

    /// Changes of tasks, in the order in which they are made: from now on, or all since `resume_from`, which may be the
    /// version of any object of the Swarm, and may have been told by another manager. The stream is open when this returns.
    /// Each item is what one transaction changed; after an error nothing comes.
    ///
    /// # Errors
    /// As [`FeedEnd`] says, here and in the stream.
    pub async fn task_changes(
        &self,
        resume_from: Option<Version>,
    ) -> Result<impl Stream<Item = Result<Vec<TaskEvent>, FeedEnd>> + use<>, FeedEnd> {
        let watch = self.watch(resume_from).await?;
        Ok(stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            loop {
                let message = watch.next().await;
                match message.and_then(|message| swarmkit::events(&message).map_err(unreadable)) {
                    Ok(events) if events.is_empty() => {}
                    Ok(events) => return Some((Ok(events), Some(watch))),
                    Err(end) => return Some((Err(end), None)),
                }
            }
        }))
    }

    /// The messages that [`Self::task_changes`] reads, as they come: for whoever wants to see what a manager sends.
    ///
    /// # Errors
    /// As there.
    pub async fn watch_messages(
        &self,
        resume_from: Option<Version>,
    ) -> Result<impl Stream<Item = Result<Bytes, FeedEnd>> + use<>, FeedEnd> {
        let watch = self.watch(resume_from).await?;
        Ok(stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            let message = watch.next().await;
            let rest = message.is_ok().then_some(watch);
            Some((message, rest))
        }))
    }

    async fn watch(&self, resume_from: Option<Version>) -> Result<Watch, FeedEnd> {
        let Some(path) = self.control_socket.clone() else {
            return Err(FeedEnd::NotThere(String::from("no control socket is named")));
        };
        // Before anything is asked of Docker: without a socket there is nothing to ask for.
        let socket = UnixStream::connect(&*path)
            .await
            .map_err(|error| no_socket(&path, &error))?;
        let tls = self.manager_tls().await.map_err(FeedEnd::Broken)?;
        let name = ServerName::try_from(MANAGER).expect("a valid name");
        let secured = TlsConnector::from(tls).connect(name, socket).await;
        let secured = secured.map_err(|error| FeedEnd::Broken(unreachable(&error)))?;
        let refused = |end| why_not_open(end, resume_from.is_some());
        let request = swarmkit::request(resume_from);
        let opened = grpc::call(secured, MANAGER, swarmkit::WATCH, &request).await;
        let mut messages = opened.map_err(refused)?;
        // An empty message says that it is open; one that is not would be told too.
        let first = messages.next().await.map_err(refused)?;
        Ok(Watch {
            messages,
            first: Some(first),
        })
    }

    /// What connects to a manager of this Swarm and to nobody else.
    async fn manager_tls(&self) -> Result<Arc<ClientConfig>, ApiError> {
        let swarm: Swarm = serde_json::from_slice(&self.get("/swarm", &[]).await?).map_err(garbled)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(swarm.tls_info.trust_root.as_bytes()) {
            roots.add(certificate.map_err(garbled)?).map_err(garbled)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(garbled)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Offered, since newer managers want it, and not insisted on, since older ones stop naming one (facts §9).
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn no_socket(path: &Path, error: &io::Error) -> FeedEnd {
    let what = format!("{}: {error}", path.display());
    let kind = error.kind();
    if kind == ErrorKind::NotFound {
        let mount = "mount the folder that it is in, /var/run/docker/swarm, from a manager";
        FeedEnd::NotThere(format!("{what}; {mount}"))
    } else if kind == ErrorKind::PermissionDenied {
        FeedEnd::NotThere(format!("{what}; it is root's"))
    } else {
        FeedEnd::Broken(ApiError::Unreachable(what))
    }
}

/// A manager that refuses a version says no more than that something is out of order, in words that differ.
fn why_not_open(end: End, resumes: bool) -> FeedEnd {
    match &end {
        End::Status { code, text } => {
            let leaves = [grpc::CANCELLED, grpc::UNAVAILABLE].contains(code) || text.contains("context canceled");
            let is_none = [grpc::UNIMPLEMENTED, grpc::PERMISSION_DENIED, grpc::UNAUTHENTICATED].contains(code);
            match (is_none, resumes && !leaves) {
                (true, _) => FeedEnd::NotThere(end.to_string()),
                (false, true) => FeedEnd::Gap(end.to_string()),
                (false, false) => broken(&end),
            }
        }
        End::Unreadable(text) => FeedEnd::Gap(text.clone()),
        End::Broken(_) => broken(&end),
    }
}

/// Resuming would meet the same message again.
fn unreadable(error: prost::DecodeError) -> FeedEnd {
    FeedEnd::Gap(format!("a message cannot be read: {error}"))
}

fn broken(end: &End) -> FeedEnd {
    FeedEnd::Broken(ApiError::Unreachable(end.to_string()))
}

/// An open watch, of which the first message has come.
struct Watch {
    messages: Messages,
    first: Option<Bytes>,
}

impl Watch {
    async fn next(&mut self) -> Result<Bytes, FeedEnd> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        self.messages.next().await.map_err(|end| match end {
            End::Unreadable(text) => FeedEnd::Gap(text),
            End::Broken(_) | End::Status { .. } => broken(&end),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u32, text: &str) -> End {
        let text = String::from(text);
        End::Status { code, text }
    }

    #[test]
    fn only_who_wanted_to_resume_can_have_a_gap() {
        let refused = || status(grpc::UNKNOWN, "versions are out of order");
        assert!(matches!(why_not_open(refused(), true), FeedEnd::Gap(text) if text.contains("out of order")));
        assert!(matches!(why_not_open(refused(), false), FeedEnd::Broken(_)));
        // A manager that stops has lost nothing.
        for leaving in [
            status(grpc::UNAVAILABLE, "transport is closing"),
            status(grpc::UNKNOWN, "context canceled"),
        ] {
            assert!(matches!(why_not_open(leaving, true), FeedEnd::Broken(_)));
        }
    }

    #[test]
    fn another_api_and_a_missing_right_are_no_watch_at_all() {
        for code in [grpc::UNIMPLEMENTED, grpc::PERMISSION_DENIED, grpc::UNAUTHENTICATED] {
            assert!(matches!(why_not_open(status(code, "no"), true), FeedEnd::NotThere(_)));
        }
    }
}
