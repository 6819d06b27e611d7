//! Tables on their way from a controller to its proxies: full once, deltas after that, acknowledged each.

pub mod model;
