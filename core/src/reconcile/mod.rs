//! Keeping the services that Tidegate owns as the settings want them: one update in flight, by compare-and-swap.

pub mod desired;
