//! The proxy's side of secrets, on the connection that its tables come over: takes what it is given, and says what is wrong
//! with it. Contents go from the line into [`Secrets`] and nowhere else.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use tidegate_core::id::ProxyId;
use tidegate_core::secrets::Finding;
use tidegate_core::secrets::message::{Delivery, Report};

use super::subscribe::LineReader;
use crate::clock::Clock;
use crate::secrets::Secrets;

/// Before secrets are asked for again on a connection that goes on.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Takes secrets for as long as the connection lives; `base` is the URL of the service cluster.
pub(super) async fn take(
    mut requests: SendRequest<Full<Bytes>>,
    base: String,
    proxy: ProxyId,
    secrets: Secrets,
    clock: Clock,
) {
    loop {
        // An older controller brings none; a newer one may come any time.
        if let Err(error) = take_once(&mut requests, &base, &proxy, &secrets).await {
            tracing::debug!(%error, "secrets are asked for again");
        }
        clock.pause(AGAIN_AFTER).await;
    }
}

async fn take_once(
    requests: &mut SendRequest<Full<Bytes>>,
    base: &str,
    proxy: &ProxyId,
    secrets: &Secrets,
) -> anyhow::Result<()> {
    let request = Request::get(format!("{base}/secrets?proxy={proxy}")).body(Full::default())?;
    requests.ready().await?;
    let response = requests.send_request(request).await?;
    let status = response.status();
    anyhow::ensure!(status == StatusCode::OK, "the controller answered {status}");
    let mut lines = LineReader::new(response.into_body());
    while let Some(line) = lines.next().await? {
        // The error itself would show a part of the line.
        let delivery = serde_json::from_str::<Delivery>(&line)
            .map_err(|error| anyhow::anyhow!("a line of secrets cannot be read ({:?})", error.classify()))?;
        secrets.take(delivery);
    }
    Ok(())
}

/// What a proxy says of its secrets now: what passes by itself is not worth a word.
pub(super) fn report(proxy: &ProxyId, findings: &std::collections::BTreeSet<Finding>) -> Report {
    Report {
        proxy: proxy.clone(),
        findings: findings.iter().filter(|finding| !finding.passing).cloned().collect(),
    }
}

/// Posts what is wrong whenever that changes.
pub(super) async fn tell(mut requests: SendRequest<Full<Bytes>>, base: String, proxy: ProxyId, secrets: Secrets) {
    let mut findings = secrets.findings();
    let mut told = report(&proxy, &std::collections::BTreeSet::new());
    loop {
        let now = report(&proxy, &findings.borrow_and_update());
        if now != told {
            if let Err(error) = post(&mut requests, &base, &now).await {
                tracing::debug!(%error, "a report was lost");
            }
            told = now;
        }
        if findings.changed().await.is_err() {
            return;
        }
    }
}

async fn post(requests: &mut SendRequest<Full<Bytes>>, base: &str, report: &Report) -> anyhow::Result<()> {
    let body = Full::from(serde_json::to_vec(report)?);
    requests.ready().await?;
    requests
        .send_request(Request::post(format!("{base}/reports")).body(body)?)
        .await?;
    Ok(())
}
