//! Speaks Docker: bollard models to facts, reconcile actions to API calls.
