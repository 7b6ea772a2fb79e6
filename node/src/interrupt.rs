use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::output::CliError;

/// What a process ended by Ctrl-C answers by custom: 128 and the number of the signal.
const INTERRUPTED: i32 = 130;

/// Turns the first Ctrl-C into a flag, so that a command ends at a place of its own choosing. The second ends the
/// process at once; what was committed stays.
pub(crate) fn on_interrupt() -> Result<Arc<AtomicBool>, CliError> {
    let failed = |error: std::io::Error| CliError::new("io", format!("cannot listen for Ctrl-C: {error}"));
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    // The signal is taken over before the command goes on, not when the thread has come that far.
    let mut signals = {
        let _entered = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map_err(failed)?
    };
    let listen = move || {
        runtime.block_on(async {
            signals.recv().await;
            flag.store(true, Ordering::Relaxed);
            signals.recv().await;
        });
        process::exit(INTERRUPTED);
    };
    thread::Builder::new().name("interrupt".to_owned()).spawn(listen).map_err(failed)?;
    Ok(interrupted)
}
