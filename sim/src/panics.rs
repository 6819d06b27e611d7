//! Panics of tasks that nobody waits for. Tokio keeps them to the task, so a broken invariant in the middle of the product
//! would end one connection and go unseen; here it fails the simulation.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    /// The first panic on this thread that nobody has heard of. Each simulation has a thread of its own.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Listens from now on; what this thread had before is forgotten.
pub(crate) fn watch() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // On a thread that ends nobody listens any more.
            let _ = HEARD.try_with(|heard| {
                heard.borrow_mut().get_or_insert_with(|| panic.to_string());
            });
            before(panic);
        }));
    });
    taken();
}

/// The first panic since it was asked last.
pub(crate) fn taken() -> Option<String> {
    HEARD.with(RefCell::take)
}
