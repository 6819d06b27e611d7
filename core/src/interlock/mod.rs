//! Interlock's labels and options beside ours: one source for the comparison in `docs/interlock.md`.

#[cfg(test)]
mod decisions;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
