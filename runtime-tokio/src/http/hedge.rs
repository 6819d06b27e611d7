//! A second copy of a request that takes long, at another endpoint; the first answer is used.

use std::pin::pin;
use std::rc::Rc;

use tidegate_core::request::retry;
use tidegate_core::time::Duration;

use super::body::RequestBody;
use super::exchange::Hold;
use super::forward::{self, Answered, Failed, Outbound};
use crate::net::Net;
use crate::worker::Worker;
use crate::worker::serving::{Known, Serving};

/// When a second copy of this request is to be sent, if ever.
pub(super) fn after(serving: &Serving, outbound: &Outbound) -> Option<Duration> {
    let sent = RequestBody::sent(outbound.body.as_ref());
    let is_plain = outbound.upgrade.is_none();
    serving
        .hedge_after
        .filter(|_| is_plain && retry::may_hedge(outbound.method.as_str(), sent))
}

/// One try, and where it takes too long a second one beside it at another endpoint. The first answer counts; the other
/// try is cancelled.
pub(super) async fn send<N: Net>(
    worker: &Rc<Worker<N>>,
    serving: &Serving,
    outbound: &mut Outbound,
    hold: Hold,
    may_leave: bool,
    after: Duration,
) -> Result<Answered, Failed> {
    let clock = worker.shared.clock;
    let (pool, token) = (Rc::clone(&hold.pool), hold.token);
    let mut twin = twin(outbound);
    let mut first = pin!(forward::send(worker, serving, outbound, hold, may_leave));
    tokio::select! { biased;
        answered = &mut first => return answered,
        () = clock.sleep_until(Some(clock.now() + after)) => {}
    }
    let Some(picked) = pool.hedge(twin.known.key, token) else {
        return first.await;
    };
    let hold = Hold {
        pool: Rc::clone(&pool),
        token: picked.token,
    };
    let mut second = pin!(forward::send(worker, serving, &mut twin, hold, may_leave));
    let won = |answered| {
        pool.handle_hedge_won();
        answered
    };
    tokio::select! { biased;
        answered = &mut first => match answered {
            Ok(answered) => Ok(answered),
            Err(failed) => second.await.map(won).map_err(|_| failed),
        },
        answered = &mut second => match answered {
            Ok(answered) => Ok(won(answered)),
            Err(_) => first.await,
        },
    }
}

/// A second copy of a request without body.
fn twin(outbound: &Outbound) -> Outbound {
    Outbound {
        pool: Rc::clone(&outbound.pool),
        known: Known {
            key: outbound.known.key,
            cookie: None,
        },
        unedited: None,
        method: outbound.method.clone(),
        original: outbound.original.clone(),
        target: outbound.target.clone(),
        host: outbound.host.clone(),
        headers: outbound.headers.clone(),
        authorization: outbound.authorization.clone(),
        body: None,
        trailers: outbound.trailers,
        upgrade: None,
        is_sent: true,
    }
}
