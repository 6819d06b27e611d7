//! Row 37: another endpoint for a request that one has answered, or does not answer, and that may be sent again.

use std::rc::Rc;

use http::Response;
use hyper::body::Incoming;
use tidegate_core::pool::{Pick, Token};
use tidegate_core::request::retry::{self, Failure};

use super::body::RequestBody;
use super::exchange::{Hold, Upstream};
use super::forward::Outbound;
use crate::worker::serving::Serving;

/// An answer that says that the app could not, kept while another endpoint is asked.
pub(super) struct Unable {
    pub(super) response: Response<Incoming>,
    pub(super) upstream: Upstream,
    pub(super) serving: Rc<Serving>,
}

/// An endpoint that was not asked yet, for a request that may be sent again. Nobody waits for one.
pub(super) fn other(outbound: &Outbound, tried: &[Token]) -> Option<Hold> {
    let sent = RequestBody::sent(outbound.body.as_ref());
    let pool = &outbound.pool;
    if pool.is_retired() || !retry::may_retry(outbound.method.as_str(), sent, Failure::Unable) {
        return None;
    }
    match pool.pick(outbound.known.key, tried, None) {
        Pick::Endpoint(picked) => {
            let hold = Hold {
                pool: Rc::clone(pool),
                token: picked.token,
            };
            (!tried.contains(&picked.token)).then_some(hold)
        }
        Pick::Park(ticket) => {
            pool.unpark(ticket);
            None
        }
        Pick::Unavailable(_) => None,
    }
}
