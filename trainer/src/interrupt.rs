//! Ending by signal: the first SIGINT or SIGTERM asks for an orderly end, the second ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What a shell reports for a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes over SIGINT and SIGTERM from here on. A second call changes nothing.
pub fn install() {
    let mut fresh = false;
    let requested = REQUESTED.get_or_init(|| {
        fresh = true;
        Arc::new(AtomicBool::new(false))
    });
    if !fresh {
        return;
    }
    let take_over = |signal| -> io::Result<()> {
        // In this order: a signal ends the process if an earlier one has set the flag, and sets it otherwise.
        flag::register_conditional_shutdown(signal, INTERRUPTED, requested.clone())?;
        flag::register(signal, requested.clone())?;
        Ok(())
    };
    if let Err(error) = take_over(SIGINT).and_then(|()| take_over(SIGTERM)) {
        eprintln!("signals are not handled ({error}): an interruption loses what follows the last checkpoint");
    }
}

/// Whether an orderly end has been asked for.
pub fn requested() -> bool {
    REQUESTED
        .get()
        .is_some_and(|requested| requested.load(Ordering::SeqCst))
}
