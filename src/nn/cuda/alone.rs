//! What touches a whole device, and what captures: never at one time. Making a handle of NVIDIA's libraries may wait for all of
//! a device or use the stream that all others wait for; while any stream captures the driver refuses that, and breaks the
//! recording as well (NVIDIA, CUDA C++ Programming Guide, "Creating a Graph Using Stream Capture"). The threads of a worker,
//! each with a stream of its own, would not know of each other.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

static ONE: Mutex<()> = Mutex::new(());

thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// This thread has its turn.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        HELD.set(false);
    }
}

/// Runs `work` while no other thread runs what must be alone; within such work of this thread it just runs.
pub fn alone<R>(work: impl FnOnce() -> R) -> R {
    if HELD.get() {
        return work();
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    HELD.set(true);
    let _turn = Turn;
    work()
}
