//! Rules of the compatibility reference about labels, by row; every label with right and wrong values.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Diagnostic, LabelledRoute, Reading, Severity, read};
use crate::swarm::model::Service;
use crate::testing::sample::service;

mod backend;
mod each;
mod hrm;
mod matrix;
mod matrix_tls;
mod reading;
mod resolving;
mod serving;
mod tls;

const USUAL: [(&str, &str); 2] = [("tidegate.hosts", "shop.example.org"), ("tidegate.port", "80")];

fn labelled(more: &[(&str, &str)]) -> Service {
    let labels: Vec<(&str, &str)> = USUAL.into_iter().chain(more.iter().copied()).collect();
    service("shop", &labels, &["a"])
}

fn route(service: &Service) -> LabelledRoute {
    let reading = read(service);
    reading
        .route
        .unwrap_or_else(|| panic!("refused: {:?}", reading.diagnostics))
}

/// The findings, as text without the service's name.
fn said(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics
        .iter()
        .map(|diagnostic| diagnostic.to_string().replace("service shop: ", ""))
        .collect()
}

/// The one finding about a reading that is refused, or not.
fn the_one(reading: &Reading, severity: Severity) -> &Diagnostic {
    assert_eq!(reading.diagnostics.len(), 1, "{:?}", reading.diagnostics);
    assert_eq!(reading.diagnostics[0].severity, severity);
    assert_eq!(reading.route.is_none(), severity == Severity::Error);
    &reading.diagnostics[0]
}
