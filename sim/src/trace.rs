//! Everything that happened, in order: virtual time, host, what. Log lines of the product are part of it, stamped with
//! virtual time. A digest rolls over all of it, so two runs are compared by one number.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::rc::Rc;

use tidegate_core::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::seed::Seed;

/// The trace of one simulation.
#[derive(Debug)]
pub struct Trace {
    seed: Seed,
    now: Cell<Instant>,
    host: RefCell<String>,
    digest: Cell<u64>,
    errors: RefCell<Vec<String>>,
    show: bool,
}

impl Trace {
    /// An empty trace that reports to `seed`. With `SIM_TRACE=1` every line is also printed.
    pub fn new(seed: Seed) -> Rc<Self> {
        Rc::new(Trace {
            seed,
            now: Cell::new(Instant::START),
            host: RefCell::default(),
            digest: Cell::new(0xcbf2_9ce4_8422_2325),
            errors: RefCell::default(),
            show: std::env::var_os("SIM_TRACE").is_some(),
        })
    }

    /// The moment that log lines are stamped with.
    pub fn set_now(&self, now: Instant) {
        self.now.set(now);
    }

    /// Adds a line.
    pub fn add(&self, now: Instant, host: &str, what: &str) {
        let line = format!("{now} {host}: {what}");
        // FNV-1a, with an end for each line.
        let mut digest = self.digest.get();
        for byte in line.bytes().chain([b'\n']) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.digest.set(digest);
        if self.show {
            eprintln!("{line}");
        }
        self.seed.note(|report| {
            report.lines.push(line);
            report.digest = digest;
        });
    }

    /// Log lines at ERROR so far.
    pub fn errors(&self) -> Vec<String> {
        self.errors.borrow().clone()
    }

    /// Makes log lines of this thread part of the trace until the guard is dropped.
    pub fn capture(self: &Rc<Self>) -> tracing::subscriber::DefaultGuard {
        THREAD_TRACE.with(|slot| *slot.borrow_mut() = Some(Rc::clone(self)));
        tracing::subscriber::set_default(LogLines)
    }

    fn log(&self, level: Level, target: &str, text: &str) {
        // Inside a host turmoil knows the time better than the last step did.
        let elapsed = turmoil::sim_elapsed();
        let now = elapsed.map_or(self.now.get(), Instant::at);
        let host = self.host.borrow().clone();
        let line = format!("{level} {target}: {text}");
        self.add(now, if host.is_empty() { "world" } else { &host }, &line);
        if level == Level::ERROR {
            self.errors.borrow_mut().push(format!("{now} {host}: {text}"));
        }
    }
}

thread_local! {
    /// The trace that log lines of this thread belong to. A subscriber must be `Send`, and a simulation is one thread.
    static THREAD_TRACE: RefCell<Option<Rc<Trace>>> = const { RefCell::new(None) };
}

/// A subscriber that hands log lines to the trace of its thread. It tells hosts apart by turmoil's span `node`.
#[derive(Debug)]
struct LogLines;

/// The one span that matters has a fixed id; others share the other one.
const NODE: u64 = 1;
const OTHER: u64 = 2;

impl Subscriber for LogLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let product = target.starts_with("tidegate") || target.starts_with("sim");
        (product && *metadata.level() <= Level::INFO) || (metadata.is_span() && metadata.name() == "node")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        if attributes.metadata().name() != "node" {
            return span::Id::from_u64(OTHER);
        }
        let mut name = Text::default();
        attributes.record(&mut name);
        with_trace(|trace| trace.host.replace(name.message));
        span::Id::from_u64(NODE)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let line = format!("{}{}", text.message, text.fields);
        with_trace(|trace| trace.log(*metadata.level(), metadata.target(), line.trim()));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, id: &span::Id) {
        if id.into_u64() == NODE {
            with_trace(|trace| trace.host.borrow_mut().clear());
        }
    }
}

fn with_trace<T>(run: impl FnOnce(&Trace) -> T) {
    THREAD_TRACE.with(|slot| {
        if let Some(trace) = slot.borrow().as_deref() {
            run(trace);
        }
    });
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" | "name" => self.message.push_str(value),
            name => self.field(name, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            // Formatting into a String cannot fail.
            "message" => write!(self.message, "{value:?}").unwrap_or_default(),
            name => self.field(name, value),
        }
    }
}

impl Text {
    fn field(&mut self, name: &str, value: &dyn std::fmt::Debug) {
        write!(self.fields, " {name}={value:?}").unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lines_give_equal_digests_and_order_counts() {
        let digest = |lines: [&str; 2]| {
            let seed = Seed::new(1);
            let trace = Trace::new(seed.clone());
            for line in lines {
                trace.add(Instant::from_millis(5), "a", line);
            }
            seed.report().digest
        };
        assert_eq!(digest(["x", "y"]), digest(["x", "y"]));
        assert_ne!(digest(["x", "y"]), digest(["y", "x"]));
    }

    #[test]
    fn an_error_line_of_the_product_is_kept() {
        let trace = Trace::new(Seed::new(1));
        let guard = trace.capture();
        tracing::error!(route = "shop", "a promise is broken");
        tracing::debug!("not an operator's business");
        drop(guard);
        assert_eq!(trace.errors().len(), 1);
        assert!(trace.errors()[0].contains("a promise is broken route=\"shop\""));
        assert_eq!(trace.seed.report().lines.len(), 1);
    }
}
