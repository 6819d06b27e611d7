//! Interlock's labels and options beside ours: what `tidegate import interlock` carries over, and one source for the
//! comparison in `docs/interlock.md`.
//!
//! Nothing of a file is dropped in silence: [`import`] answers every option, and every raw line in it, with a line of its own.

mod directives;
pub mod import;
pub mod options;
mod special;

pub use import::{Imported, Line, Verdict, import};

#[cfg(test)]
mod decisions;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
