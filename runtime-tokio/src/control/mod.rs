//! The control network: controllers publish tables, proxies take them.
//!
//! HTTP/2 with mutual TLS. `GET /v1/clusters/NAME/table?proxy=ID&digest=D` answers with one JSON object a line for as
//! long as both live; `POST /v1/clusters/NAME/acks` takes one answer. `GET /v1/clusters/NAME/secrets?proxy=ID` answers
//! likewise with the secrets that the cluster's routes use, and `POST /v1/clusters/NAME/reports` takes what a proxy finds
//! wrong with them. A certificate of service cluster NAME is needed for all of these.
//!
//! `POST /v1/secrets?task=ID` takes all secrets that a courier holds, and answers with nothing for as long as both live. A
//! courier's certificate is needed for it.

pub mod courier;
pub mod publish;
mod secrets;
pub mod store;
pub mod subscribe;
pub mod witness;

use std::future::Future;
use std::sync::Arc;

use tidegate_core::id::{ClusterName, ProxyId};
use tidegate_core::route::allow::IpRange;
use tidegate_core::secrets::message::{Parcel, Report};
use tidegate_core::snapshot::{Ack, Connection, Digest};
use tokio::sync::mpsc;

/// Lines that wait for one slow proxy; one that lags further is cut off and starts anew with a full table.
pub const LINES_WAITING_MAX: usize = 256;

/// What the controller hears from its proxies and its courier.
#[derive(Debug)]
pub enum LinkFact {
    /// A proxy acknowledged a revision.
    Ack {
        /// Its service cluster.
        cluster: ClusterName,
        /// What it said.
        ack: Ack,
    },
    /// A courier handed over what it holds.
    CourierConnected {
        /// Number of the connection, unique in this process.
        connection: Connection,
        /// Its task, for people.
        task: String,
        /// The secrets.
        parcels: Vec<Parcel>,
        /// Kept as long as the courier is to stay.
        lines: mpsc::Sender<Arc<str>>,
    },
    /// A proxy asks for tables.
    Connected {
        /// Number of the connection, unique in this process.
        connection: Connection,
        /// Its service cluster, as its certificate says.
        cluster: ClusterName,
        /// Its own name.
        proxy: ProxyId,
        /// The table that it has already.
        digest: Option<Digest>,
        /// Where its lines go.
        lines: mpsc::Sender<Arc<str>>,
    },
    /// A proxy's connection ended.
    Disconnected {
        /// Its service cluster.
        cluster: ClusterName,
        /// Number of the connection.
        connection: Connection,
    },
    /// The networks that this process is on, of one that is controller and proxy.
    OwnNetworks(Vec<IpRange>),
    /// A proxy says what is wrong with its secrets.
    Report {
        /// Its service cluster.
        cluster: ClusterName,
        /// What it said.
        report: Report,
    },
    /// The connection of a courier, or of a proxy for its secrets, ended.
    SecretsEnded(Connection),
    /// A proxy asks for secrets.
    SecretsWanted {
        /// Number of the connection, unique in this process.
        connection: Connection,
        /// Its service cluster, as its certificate says.
        cluster: ClusterName,
        /// Its own name.
        proxy: ProxyId,
        /// Where its lines go.
        lines: mpsc::Sender<Arc<str>>,
    },
}

/// Runs what hyper spawns on this thread.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
