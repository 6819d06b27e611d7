//! What the requests of a pool are served by: its labels over the cluster's settings, in the forms that requests need.
//! Made once per table, shared by all requests.

use std::cell::RefCell;
use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tidegate_core::request::affinity;
use tidegate_core::rng::Rng;
use tidegate_core::route::PoolSpec;
use tidegate_core::route::edits::HeaderEdit;
use tidegate_core::route::spec::{Affinity, BasicAuth, Coding};
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::time::Duration;

use crate::http::headers::values;

/// See the module.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Bytes of a request body; 0: no limit.
    pub(crate) body_bytes_max: u64,
    pub(crate) connect_timeout: Duration,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// Without a response by then, a second copy goes elsewhere.
    pub(crate) hedge_after: Option<Duration>,
    /// Without a response by then, it is asked whether the endpoint is still there; zero: never.
    pub(crate) doubt: Duration,
    pub(crate) request_edits: Edits,
    pub(crate) response_edits: Edits,
    pub(crate) basic_auth: Vec<BasicAuth>,
    pub(crate) compress: Vec<Coding>,
    affinity: Affinity,
}

/// What a client is known by again.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// For `Pool::pick`.
    pub(crate) key: Option<u64>,
    /// `Set-Cookie` for its response.
    pub(crate) cookie: Option<HeaderValue>,
}

impl Serving {
    pub(crate) fn new(spec: &PoolSpec, settings: &ProxySettings) -> Self {
        let limits = &spec.limits;
        let time = |own: Option<u32>, clusters: u32| Duration::from_millis(own.unwrap_or(clusters).into());
        Serving {
            body_bytes_max: limits.body_bytes_max.unwrap_or(settings.body_bytes_max),
            connect_timeout: time(limits.connect_timeout_ms, settings.connect_timeout_ms),
            first_byte_timeout: time(limits.first_byte_timeout_ms, settings.first_byte_timeout_ms),
            idle_timeout: time(limits.idle_timeout_ms, settings.idle_timeout_ms),
            hedge_after: limits.hedge_after_ms.map(|ms| Duration::from_millis(ms.into())),
            doubt: Duration::from_millis(settings.doubt_ms.into()),
            request_edits: Edits::new(&spec.edits.request),
            response_edits: Edits::new(&spec.edits.response),
            basic_auth: spec.basic_auth.clone(),
            compress: spec.compress.clone(),
            affinity: spec.affinity.clone(),
        }
    }

    /// Whether `Authorization` was for the proxy, and is not for the app.
    pub(crate) fn keeps_authorization(&self) -> bool {
        !self.basic_auth.is_empty() && self.basic_auth.iter().all(|auth| !auth.forward)
    }

    /// What the client of a request is known by, `headers` as it sent them.
    pub(crate) fn know(&self, headers: &HeaderMap, client: IpAddr, rng: &RefCell<Rng>) -> Known {
        let value = |name: &str| affinity::cookie(values(headers, &header::COOKIE), name);
        match &self.affinity {
            Affinity::None => Known::default(),
            Affinity::Address => Known {
                key: Some(affinity::key_of_address(client)),
                cookie: None,
            },
            Affinity::AppCookie(name) => Known {
                key: value(name).map(affinity::key_of_value),
                cookie: None,
            },
            Affinity::OwnCookie(name) => match value(name).filter(|value| affinity::is_ours(value)) {
                Some(value) => Known {
                    key: Some(affinity::key_of_value(value)),
                    cookie: None,
                },
                None => {
                    let (key, line) = affinity::new_cookie(name, &mut rng.borrow_mut());
                    Known {
                        key: Some(key),
                        cookie: HeaderValue::from_str(&line).ok(),
                    }
                }
            },
        }
    }
}

/// Header edits with parsed names and values.
#[derive(Debug)]
pub(crate) struct Edits(Vec<Edit>);

#[derive(Debug)]
enum Edit {
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
    Set(HeaderName, HeaderValue),
}

impl Edits {
    /// Labels are checked, so nothing gets lost here; what a newer controller allows and we cannot say is left out.
    fn new(edits: &[HeaderEdit]) -> Self {
        let name = |name: &str| HeaderName::try_from(name).ok();
        let value = |value: &str| HeaderValue::try_from(value).ok();
        let parsed = edits.iter().filter_map(|edit| {
            Some(match edit {
                HeaderEdit::Add { name: n, value: v } => Edit::Add(name(n)?, value(v)?),
                HeaderEdit::Remove { name: n } => Edit::Remove(name(n)?),
                HeaderEdit::Set { name: n, value: v } => Edit::Set(name(n)?, value(v)?),
            })
        });
        Edits(parsed.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for edit in &self.0 {
            match edit {
                Edit::Add(name, value) => {
                    headers.append(name, value.clone());
                }
                Edit::Remove(name) => {
                    headers.remove(name);
                }
                Edit::Set(name, value) => {
                    headers.insert(name, value.clone());
                }
            }
        }
    }
}
