//! Users that hold a connection open: they upgrade it, say something now and then, and want the echo. Nobody but the
//! task or the proxy at its ends may end it.

use std::rc::Rc;
use std::time::Duration;

use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tidegate_core::id::TaskId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Wish, open, within};
use crate::shared::Shared;
use crate::witness::StreamEnd;

/// A user's patience with an echo.
const PATIENCE: Duration = Duration::from_secs(5);

/// One user that holds streams, one after another, while there is something to ask for.
pub(crate) async fn run(shared: Rc<Shared>, name: String, wish: Wish) {
    let mut rng = shared.fork(&name);
    loop {
        shared.wait(Duration::from_millis(rng.between(20, 200))).await;
        let Some(proxy) = shared.entry(&mut rng).filter(|_| shared.is_loaded()) else {
            continue;
        };
        let opened = shared.now();
        let (service, task, mut stream) = match within(&shared, PATIENCE, upgrade(&shared, proxy, &wish)).await {
            Some(Ok(stream)) => stream,
            // Requests are judged elsewhere; a stream counts from its first byte on.
            Some(Err(_)) | None => continue,
        };
        shared.trace(&name, &format!("holds a stream to {task}"));
        let mut said = 0_u64;
        let why = loop {
            shared.wait(Duration::from_millis(rng.between(50, 300))).await;
            if !shared.is_loaded() {
                break None;
            }
            said += 1;
            match within(&shared, PATIENCE, echo(&mut stream, said)).await {
                Some(Ok(())) => {}
                Some(Err(why)) => break Some(why),
                None => break Some(format!("no echo within {PATIENCE:?}")),
            }
        };
        let Some(why) = why else { continue };
        let ended = shared.now();
        shared.trace(&name, &format!("loses its stream to {task}: {why}"));
        shared.witness().stream(StreamEnd {
            opened,
            ended,
            service,
            task,
            proxy: proxy.ip(),
            why,
        });
    }
}

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// The service and the task that answer, and the stream.
async fn upgrade(
    shared: &Rc<Shared>,
    proxy: std::net::SocketAddr,
    wish: &Wish,
) -> Result<(String, TaskId, Upgraded), String> {
    let stream = open(shared, proxy).await?;
    let (mut connection, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::task::spawn_local(driver.with_upgrades());
    let request = Request::get(&wish.path)
        .header(http::header::HOST, &wish.host)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "websocket")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = connection
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!("the answer is {}", response.status()));
    }
    let header = |name| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (service, task) = (header("x-service"), TaskId::from(header("x-task")));
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| error.to_string())?;
    Ok((service, task, TokioIo::new(upgraded)))
}

async fn echo(stream: &mut Upgraded, said: u64) -> Result<(), String> {
    stream
        .write_all(&said.to_be_bytes())
        .await
        .map_err(|error| error.kind().to_string())?;
    let mut heard = [0; 8];
    stream
        .read_exact(&mut heard)
        .await
        .map_err(|error| error.kind().to_string())?;
    if u64::from_be_bytes(heard) == said {
        Ok(())
    } else {
        Err("the echo is another".to_owned())
    }
}
