//! The calls that change Docker. Each is done or not done: none is repeated here.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard::models::NetworkCreateRequest;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tidegate_core::id::{SecretId, ServiceId, Version};
use tidegate_core::reconcile::desired::ServiceShape;
use tidegate_core::swarm::model::ApiError;

use crate::client::Docker;
use crate::error::{from_bollard, garbled};
use crate::{shape, wire};

impl Docker {
    /// `POST /services/create`
    ///
    /// # Errors
    /// As [`ApiError`] says; nothing is created then, unless the answer was lost. The same for each method below.
    pub async fn create_service(&self, shape: &ServiceShape) -> Result<ServiceId, ApiError> {
        let ids = self.secret_ids(shape).await?;
        let spec = shape::create(shape, &ids).map_err(|error| ApiError::Refused(error.to_string()))?;
        let answer = self.call(Method::POST, "/services/create", body(&spec)).await?;
        let created: wire::Service = serde_json::from_slice(&answer).map_err(garbled)?;
        Ok(ServiceId::from(created.id))
    }

    /// `POST /services/ID/update?version=`, with everything that `shape` does not know as it is. A service that changed
    /// since `version` is an [`ApiError::Conflict`].
    pub async fn update_service(&self, id: &ServiceId, version: Version, shape: &ServiceShape) -> Result<(), ApiError> {
        let answer = self.call(Method::GET, &format!("/services/{id}"), Bytes::new()).await?;
        let mut service: Value = serde_json::from_slice(&answer).map_err(garbled)?;
        let present = service.pointer("/Version/Index").and_then(Value::as_u64);
        // What was decided by another version must not be written over this one.
        if present != Some(version.0) {
            let text = format!("service {} has version {present:?}, not {}", shape.name, version.0);
            return Err(ApiError::Conflict(text));
        }
        let spec = service
            .get_mut("Spec")
            .ok_or_else(|| garbled("a service without a Spec"))?;
        let ids = self.secret_ids(shape).await?;
        shape::update(spec, shape, &ids).map_err(|error| ApiError::Refused(error.to_string()))?;
        let path = format!("/services/{id}/update?version={}", version.0);
        self.call(Method::POST, &path, body(spec)).await?;
        Ok(())
    }

    /// `DELETE /services/ID`
    pub async fn remove_service(&self, id: &ServiceId) -> Result<(), ApiError> {
        let removed = self.bollard.delete_service(id.as_str()).await;
        removed.map_err(|error| from_bollard(&error))
    }

    /// `POST /secrets/create`; `data` is 1 to 511 999 bytes long.
    pub async fn create_secret(
        &self,
        name: &str,
        labels: &[(String, String)],
        data: &[u8],
    ) -> Result<SecretId, ApiError> {
        let labels: BTreeMap<&str, &str> = labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        // Not through bollard, which logs what it sends.
        let spec = json!({ "Name": name, "Labels": labels, "Data": STANDARD.encode(data) });
        let answer = self.call(Method::POST, "/secrets/create", body(&spec)).await?;
        let created: wire::Secret = serde_json::from_slice(&answer).map_err(garbled)?;
        Ok(SecretId::from(created.id))
    }

    /// `DELETE /secrets/ID`
    pub async fn remove_secret(&self, id: &SecretId) -> Result<(), ApiError> {
        let removed = self.bollard.delete_secret(id.as_str()).await;
        removed.map_err(|error| from_bollard(&error))
    }

    /// `POST /networks/create` of an overlay network that only services can join.
    pub async fn create_network(&self, name: &str, internal: bool) -> Result<(), ApiError> {
        let request = NetworkCreateRequest {
            name: String::from(name),
            driver: Some(String::from("overlay")),
            internal: Some(internal),
            attachable: Some(false),
            ..NetworkCreateRequest::default()
        };
        let created = self.bollard.create_network(request).await;
        created.map(|_| ()).map_err(|error| from_bollard(&error))
    }

    /// Ids of the secrets that `shape` mounts, by name.
    async fn secret_ids(&self, shape: &ServiceShape) -> Result<BTreeMap<String, SecretId>, ApiError> {
        if shape.secrets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let secrets = self.secrets().await?;
        Ok(secrets.into_iter().map(|secret| (secret.name, secret.id)).collect())
    }
}

fn body(spec: &Value) -> Bytes {
    Bytes::from(spec.to_string())
}
