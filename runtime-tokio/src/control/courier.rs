//! The courier's side of the control network: runs the [`Courier`], and hands the secrets to every controller.
//!
//! They are read anew for each connection and kept nowhere: a secret that is mounted never changes.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use rustls::ClientConfig;
use tidegate_core::machine::{Input, step};
use tidegate_core::secrets::courier::{Action, Courier, Fact};
use tidegate_core::secrets::message::{Delivery, Parcel};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::subscribe::open;
use crate::clock::Clock;
use crate::identity::CONTROLLER_NAME;
use crate::net::Net;

/// Time to connect and hand over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the name of the controllers.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Facts that wait.
const FACTS_WAITING_MAX: usize = 64;

/// What a courier is made of.
#[derive(Debug)]
pub struct CourierApp<N> {
    /// The network.
    pub net: N,
    /// Time.
    pub clock: Clock,
    /// Its task, for people.
    pub task: String,
    /// Name of the controllers; it may stand for many.
    pub host: String,
    /// Their port.
    pub port: u16,
    /// Its identity.
    pub tls: Arc<ClientConfig>,
}

/// Hands what `read` gives to every controller, until `stop`. `report` is told who has everything.
pub async fn carry<N: Net>(
    app: CourierApp<N>,
    read: impl Fn() -> Vec<Parcel> + 'static,
    mut report: impl FnMut(Vec<SocketAddr>),
    stop: CancellationToken,
) {
    let (app, read) = (Rc::new(app), Rc::new(read));
    let mut machine = Courier::new(app.clock.now());
    let (facts, mut incoming) = mpsc::channel::<Fact>(FACTS_WAITING_MAX);
    let mut input = Input::Timeout;
    loop {
        let next = step(&mut machine, input, app.clock.now(), |action| match action {
            Action::Notice(text) => tracing::warn!("{text}"),
            Action::Resolve => {
                let (app, facts) = (app.clone(), facts.clone());
                tokio::task::spawn_local(async move {
                    let found = app.net.resolve(&app.host, app.port);
                    let found = tokio::time::timeout(RESOLVE_TIMEOUT, found).await;
                    let addresses = found.ok().and_then(Result::ok).unwrap_or_default();
                    facts.send(Fact::Resolved(addresses)).await.ok(); // the courier has stopped where this fails
                });
            }
            Action::Connect(address) => {
                let (app, read, facts) = (app.clone(), read.clone(), facts.clone());
                tokio::task::spawn_local(async move {
                    let why = match hand_over(&app, address, read(), &facts).await {
                        Ok(()) => "the controller closed the connection".to_owned(),
                        Err(error) => format!("{error:#}"),
                    };
                    facts.send(Fact::Ended(address, why)).await.ok(); // as above
                });
            }
        });
        report(machine.delivered().collect());
        input = tokio::select! { biased;
            () = stop.cancelled() => return,
            () = app.clock.sleep_until(next.map(|deadline| deadline.at)) => Input::Timeout,
            Some(fact) = incoming.recv() => Input::Fact(fact),
        };
    }
}

/// Hands everything over and stays: as long as the connection lives, the controller knows that the courier does.
async fn hand_over<N: Net>(
    app: &CourierApp<N>,
    address: SocketAddr,
    secrets: Vec<Parcel>,
    facts: &mpsc::Sender<Fact>,
) -> anyhow::Result<()> {
    let names: Vec<String> = secrets.iter().map(|parcel| parcel.name.clone()).collect();
    let delivery = Delivery { names: None, secrets };
    let body = Full::from(serde_json::to_vec(&delivery)?);
    let handing = async {
        let mut requests = open(&app.net, address, app.tls.clone()).await?;
        let request = Request::post(format!("https://{CONTROLLER_NAME}/v1/secrets?task={}", app.task)).body(body)?;
        Ok::<_, anyhow::Error>((requests.send_request(request).await?, requests))
    };
    let limited = tokio::time::timeout(HAND_OVER_TIMEOUT, handing).await;
    // The sender is kept: without it the connection would end.
    let (response, _requests) = limited.unwrap_or_else(|_| {
        Err(anyhow::anyhow!(
            "not handed over within {} s",
            HAND_OVER_TIMEOUT.as_secs()
        ))
    })?;
    let status = response.status();
    anyhow::ensure!(status == StatusCode::OK, "the controller answered {status}");
    tracing::info!(%address, secrets = names.join(", "), "handed over");
    facts.send(Fact::Delivered(address)).await.ok(); // the courier has stopped where this fails
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}
