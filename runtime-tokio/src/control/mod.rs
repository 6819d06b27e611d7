//! The control network: controllers publish tables, proxies take them.
//!
//! HTTP/2 with mutual TLS. `GET /v1/clusters/NAME/table?proxy=ID&digest=D` answers with one JSON object a line for as
//! long as both live; `POST /v1/clusters/NAME/acks` takes one answer. A certificate of service cluster NAME is needed
//! for both.

pub mod publish;
pub mod store;
pub mod subscribe;

use std::future::Future;
use std::sync::Arc;

use tidegate_core::id::{ClusterName, ProxyId};
use tidegate_core::snapshot::{Ack, Connection, Digest};
use tokio::sync::mpsc;

/// Lines that wait for one slow proxy; one that lags further is cut off and starts anew with a full table.
pub const LINES_WAITING_MAX: usize = 256;

/// What the controller hears from its proxies.
#[derive(Debug)]
pub enum LinkFact {
    /// A proxy acknowledged a revision.
    Ack {
        /// Its service cluster.
        cluster: ClusterName,
        /// What it said.
        ack: Ack,
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
