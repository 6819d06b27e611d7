//! The content of a revision: everything that the proxies of one service cluster serve by.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

use crate::id::ServiceId;
use crate::route::spec::RouteSpec;
use crate::settings::proxy::ProxySettings;

/// All specs of one service cluster, and the settings that its proxies serve by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Timeouts and limits.
    pub settings: ProxySettings,
    /// One spec per routed service.
    pub routes: BTreeMap<ServiceId, Arc<RouteSpec>>,
}
