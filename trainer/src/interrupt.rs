//! Ending by signal: the first SIGINT or SIGTERM asks for an orderly end, the second ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a shell reports for a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

static INSTALLED: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);
static NOTHING_LEFT: AtomicBool = AtomicBool::new(false);

/// Takes over SIGINT and SIGTERM from here on. A second call changes nothing.
pub fn install() {
    if INSTALLED.swap(true, Ordering::SeqCst) {
        return;
    }
    let taken_over = Signals::new([SIGINT, SIGTERM]).and_then(|signals| {
        let listener = std::thread::Builder::new().name("signals".to_owned());
        listener.spawn(move || listen(signals)).map(drop)
    });
    if let Err(error) = taken_over {
        eprintln!("signals are not handled ({error}): an interruption loses what follows the last checkpoint");
    }
}

fn listen(mut signals: Signals) {
    for _ in signals.forever() {
        if NOTHING_LEFT.load(Ordering::SeqCst) || REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED);
        }
        eprintln!("interrupted: a checkpoint is saved as soon as this update allows; once more to end at once");
    }
}

/// From here on the first signal ends the process: there is nothing left to save.
pub fn end_at_once() {
    NOTHING_LEFT.store(true, Ordering::SeqCst);
}

/// Whether an orderly end has been asked for.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
