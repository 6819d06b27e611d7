//! What `tidegate prove` asks and does: one service with its update, what its tasks ended by, and a rolling update.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tidegate_core::id::{ServiceId, Version};
use tidegate_core::reconcile::desired::ServiceShape;
use tidegate_core::swarm::model::{ApiError, Task};

use crate::client::{Docker, with_filters};
use crate::error::garbled;
use crate::{convert, shape, wire};

/// One service, as far as its updates go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The key of the next write.
    pub version: Version,
    /// Its settings.
    pub shape: ServiceShape,
    /// `UpdateStatus.State`; empty where Docker gives none.
    pub update_state: String,
    /// `UpdateStatus.StartedAt`: tells one update from the one before.
    pub update_started: String,
    /// `UpdateStatus.Message`
    pub update_message: String,
}

impl Docker {
    /// `GET /services/ID`
    ///
    /// # Errors
    /// As [`ApiError`] says; also for each method below.
    pub async fn inspect_service(&self, id: &ServiceId) -> Result<Inspected, ApiError> {
        let answer = self.call(Method::GET, &format!("/services/{id}"), Bytes::new()).await?;
        inspected(&answer)
    }

    /// `GET /tasks` of one service, with the exit code that each one's container had, 0 while it runs.
    pub async fn tasks_and_exits(&self, of: &ServiceId) -> Result<Vec<(Task, i64)>, ApiError> {
        let path = with_filters("/tasks", &[("service", vec![of.as_str()])]);
        let answer = self.call(Method::GET, &path, Bytes::new()).await?;
        convert::tasks_and_exits(&answer)
    }

    /// `GET /images/NAME/json`: whether the image has a health check; none where this engine does not have it.
    pub async fn image_has_health_check(&self, image: &str) -> Result<Option<bool>, ApiError> {
        match self
            .call(Method::GET, &format!("/images/{image}/json"), Bytes::new())
            .await
        {
            Ok(answer) => Ok(Some(has_health_check(&answer)?)),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces every task of the service as its update settings say, and changes nothing else: what `docker service update
    /// --force` does. A [`ApiError::Conflict`] if it is not at `version` any more.
    pub async fn force_update(&self, id: &ServiceId, version: Version) -> Result<(), ApiError> {
        let answer = self.call(Method::GET, &format!("/services/{id}"), Bytes::new()).await?;
        let spec = forced(&answer, version)?;
        let path = format!("/services/{id}/update?version={}", version.0);
        self.call(Method::POST, &path, Bytes::from(spec.to_string())).await?;
        Ok(())
    }
}

fn inspected(json: &[u8]) -> Result<Inspected, ApiError> {
    let service: wire::Service = serde_json::from_slice(json).map_err(garbled)?;
    Ok(Inspected {
        version: Version(service.version.index),
        shape: shape::read(service.spec),
        update_state: service.update_status.state,
        update_started: service.update_status.started_at,
        update_message: service.update_status.message,
    })
}

fn has_health_check(json: &[u8]) -> Result<bool, ApiError> {
    let image: Value = serde_json::from_slice(json).map_err(garbled)?;
    let first = image.pointer("/Config/Healthcheck/Test/0").and_then(Value::as_str);
    Ok(first.is_some_and(|word| word != "NONE"))
}

/// The spec of a service with another `ForceUpdate`.
fn forced(json: &[u8], version: Version) -> Result<Value, ApiError> {
    let mut service: Value = serde_json::from_slice(json).map_err(garbled)?;
    let present = service.pointer("/Version/Index").and_then(Value::as_u64);
    if present != Some(version.0) {
        return Err(ApiError::Conflict(format!(
            "the service has version {present:?}, not {}",
            version.0
        )));
    }
    let mut spec = service
        .get_mut("Spec")
        .map(Value::take)
        .ok_or_else(|| garbled("a service without a Spec"))?;
    let template = spec
        .get_mut("TaskTemplate")
        .and_then(Value::as_object_mut)
        .ok_or_else(|| garbled("a service without a TaskTemplate"))?;
    let before = template.get("ForceUpdate").and_then(Value::as_u64).unwrap_or_default();
    template.insert(String::from("ForceUpdate"), json!(before + 1));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(force: &Value) -> Vec<u8> {
        let mut template = json!({ "ContainerSpec": { "Image": "a", "Future": 1 } });
        if !force.is_null() {
            template["ForceUpdate"] = force.clone();
        }
        json!({
            "ID": "s1", "Version": { "Index": 7 },
            "Spec": { "Name": "a", "TaskTemplate": template, "Other": [1] },
            "UpdateStatus": { "State": "paused", "StartedAt": "t1", "Message": "task failed" },
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_forced_update_changes_one_number_and_no_older_version() {
        for (before, after) in [(Value::Null, 1), (json!(4), 5)] {
            let spec = forced(&service(&before), Version(7)).unwrap();
            let expected = json!({
                "Name": "a", "Other": [1],
                "TaskTemplate": { "ContainerSpec": { "Image": "a", "Future": 1 }, "ForceUpdate": after },
            });
            assert_eq!(spec, expected);
        }
        assert!(matches!(
            forced(&service(&Value::Null), Version(6)),
            Err(ApiError::Conflict(_))
        ));
        assert!(matches!(forced(b"{}", Version(6)), Err(ApiError::Conflict(_))));
        assert!(matches!(
            forced(br#"{"Version":{"Index":6}}"#, Version(6)),
            Err(ApiError::Garbled(_))
        ));
    }

    #[test]
    fn an_update_is_read_with_what_docker_says_of_it() {
        let read = inspected(&service(&Value::Null)).unwrap();
        assert_eq!(
            (read.version, read.shape.name.as_str(), read.update_state.as_str()),
            (Version(7), "a", "paused")
        );
        assert_eq!(
            (read.update_started.as_str(), read.update_message.as_str()),
            ("t1", "task failed")
        );
    }

    #[test]
    fn an_images_health_check_is_one_unless_it_is_switched_off() {
        let has = |text: &str| has_health_check(text.as_bytes()).unwrap();
        assert!(has(r#"{"Config":{"Healthcheck":{"Test":["CMD","/app","check"]}}}"#));
        assert!(!has(r#"{"Config":{"Healthcheck":{"Test":["NONE"]}}}"#));
        assert!(!has(r#"{"Config":{}}"#));
    }
}
