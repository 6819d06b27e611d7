//! One method per call to Docker. Nothing here has a limit in time: callers put one around each call, and a
//! call that is dropped closes its connection.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::{API_DEFAULT_VERSION, body_full};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use tidegate_core::id::ServiceId;
use tidegate_core::reconcile::desired::{ManagedService, ROLE_LABEL};
use tidegate_core::swarm::model::{ApiError, Network, Node, Secret, Service, Task};

use crate::convert;
use crate::error::{from_bollard, garbled, is_version_mismatch, refused, unreachable};
use crate::transport::{Target, Transport};

/// Longest answer that is read: 20 times the list of 5,000 tasks.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Speaks to one engine. Cheap to clone.
#[derive(Clone)]
pub struct Docker {
    pub(crate) transport: Arc<Transport>,
    /// For the calls that bollard's models suffice for; uses `transport`.
    pub(crate) bollard: bollard::Docker,
    url: Arc<str>,
    /// SwarmKit's, where its watch is wanted.
    pub(crate) control_socket: Option<Arc<Path>>,
}

impl fmt::Debug for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Docker").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A URL that names no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {url:?} as the address of Docker: write unix:///path/to/docker.sock or tcp://host:port")]
pub struct UrlError {
    url: String,
}

/// A filter for these services; none for all.
fn some<'a>(key: &'static str, of: &'a [ServiceId]) -> Vec<(&'static str, Vec<&'a str>)> {
    match of {
        [] => Vec::new(),
        of => vec![(key, of.iter().map(ServiceId::as_str).collect())],
    }
}

impl Docker {
    /// A client of the engine at `unix:///path` or `tcp://host:port` (plain HTTP). Connects with the first call, so
    /// an engine that is not there yet is no error here.
    ///
    /// # Errors
    /// If the URL is neither of these.
    pub fn connect(url: &str) -> Result<Docker, UrlError> {
        let error = || UrlError { url: String::from(url) };
        let target = if let Some(path) = url.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(error());
            }
            Target::Unix(PathBuf::from(path))
        } else if let Some(address) = url.strip_prefix("tcp://") {
            let address = address.trim_end_matches('/');
            let (host, port) = address.rsplit_once(':').ok_or_else(error)?;
            if host.is_empty() || port.parse::<u16>().is_err() {
                return Err(error());
            }
            Target::Tcp(String::from(address))
        } else {
            return Err(error());
        };
        let transport = Transport::new(target);
        let calls = Arc::clone(&transport);
        let send = move |request| {
            let transport = Arc::clone(&calls);
            async move { transport.send(request).await }
        };
        // Its own limit must never be the one that strikes.
        let bollard =
            bollard::Docker::connect_with_custom_transport(send, Some("http://docker"), 3600, API_DEFAULT_VERSION)
                .expect("a custom transport connects with the first call");
        Ok(Docker {
            transport,
            bollard,
            url: Arc::from(url),
            control_socket: None,
        })
    }

    /// The URL that this was made with.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The negotiated API version, e.g. `1.41`; none before the first call and after a failed one.
    pub fn api_version(&self) -> Option<String> {
        self.transport.version().map(|version| version.to_string())
    }

    /// `GET /services`, those of `of` alone unless it is empty. Docker takes each as the beginning of an id; whole ones name
    /// one service, or none where it is gone.
    ///
    /// # Errors
    /// As [`ApiError`] says; also for each method below.
    pub async fn services(&self, of: &[ServiceId]) -> Result<Vec<Service>, ApiError> {
        convert::services(&self.get("/services", &some("id", of)).await?)
    }

    /// `GET /tasks`, of the services `of` alone unless it is empty.
    pub async fn tasks(&self, of: &[ServiceId]) -> Result<Vec<Task>, ApiError> {
        convert::tasks(&self.get("/tasks", &some("service", of)).await?)
    }

    /// `GET /networks`
    pub async fn networks(&self) -> Result<Vec<Network>, ApiError> {
        convert::networks(&self.get("/networks", &[]).await?)
    }

    /// `GET /nodes`
    pub async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        convert::nodes(&self.get("/nodes", &[]).await?)
    }

    /// `GET /secrets`
    pub async fn secrets(&self) -> Result<Vec<Secret>, ApiError> {
        convert::secrets(&self.get("/secrets", &[]).await?)
    }

    /// `GET /services` with the label `tidegate.role`, with their shapes.
    pub async fn managed_services(&self) -> Result<Vec<ManagedService>, ApiError> {
        convert::managed(&self.get("/services", &[("label", vec![ROLE_LABEL])]).await?)
    }

    pub(crate) async fn get(&self, path: &str, filters: &[(&str, Vec<&str>)]) -> Result<Bytes, ApiError> {
        let path = with_filters(path, filters);
        self.call(Method::GET, &path, Bytes::new()).await
    }

    /// One call, and all of its answer.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ApiError> {
        let answer = self.open(method, path, body).await?;
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| unreachable(&*error))?.to_bytes())
    }

    /// One call; the answer's body is still to come.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<http::Response<hyper::body::Incoming>, ApiError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body_full(body))
            .map_err(garbled)?;
        let answer = self
            .transport
            .send(request)
            .await
            .map_err(|error| from_bollard(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let text = body.map(|body| body.to_bytes()).unwrap_or_default();
        let message = convert::message(&text);
        if is_version_mismatch(status.as_u16(), &message) {
            self.transport.forget_version();
        }
        Err(refused(status.as_u16(), &message))
    }
}

/// `path?filters={…}`, as the Engine API takes filters: a JSON object in the query.
pub(crate) fn with_filters(path: &str, filters: &[(&str, Vec<&str>)]) -> String {
    if filters.is_empty() {
        return String::from(path);
    }
    let object: serde_json::Map<String, serde_json::Value> = filters
        .iter()
        .map(|(key, values)| (String::from(*key), serde_json::Value::from(values.clone())))
        .collect();
    format!(
        "{path}?filters={}",
        percent_encode(&serde_json::Value::from(object).to_string())
    )
}

/// RFC 3986 §2.1: everything but unreserved characters as `%XX`.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unix_and_tcp_urls_name_an_engine() {
        for url in [
            "unix:///var/run/docker.sock",
            "tcp://10.0.0.1:2375",
            "tcp://[::1]:2375",
            "tcp://manager:2375/",
        ] {
            assert_eq!(Docker::connect(url).expect(url).url(), url);
        }
        for url in [
            "",
            "/var/run/docker.sock",
            "unix://docker.sock",
            "tcp://host",
            "tcp://:2375",
            "ssh://host",
            "tcp://host:port",
        ] {
            let error = Docker::connect(url).expect_err(url).to_string();
            assert!(error.contains("write unix:///path"), "{error}");
        }
    }

    #[test]
    fn filters_are_json_in_the_query() {
        let path = with_filters("/tasks", &[("service", vec!["a", "b c"])]);
        assert_eq!(path, "/tasks?filters=%7B%22service%22%3A%5B%22a%22%2C%22b%20c%22%5D%7D");
        assert_eq!(with_filters("/tasks", &[]), "/tasks");
    }
}
