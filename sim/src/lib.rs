//! Lies about the world.
