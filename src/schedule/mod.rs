//! Which stage runs next, where, and what came of it. Knows processes and lines of JSON, not what a stage does.

pub mod event;
pub mod pool;
pub mod protocol;
pub mod queue;
pub mod sweep;
