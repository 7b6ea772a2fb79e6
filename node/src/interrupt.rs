use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::CliError;

/// What a process ended by Ctrl-C answers by custom: 128 and the number of the signal.
const INTERRUPTED: i32 = 130;

/// The signals that ask a process to end in good order: Ctrl-C, and that of whoever manages services.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Takes the signals over, within a runtime.
    pub(crate) fn new() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|error| failed(&error));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// The next of them.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Turns the first Ctrl-C into a flag, so that a command ends at a place of its own choosing. The second ends the
/// process at once; what was committed stays.
pub(crate) fn on_interrupt() -> Result<Arc<AtomicBool>, CliError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(|error| failed(&error))?;
    // The signals are taken over before the command goes on, not when the thread has come that far.
    let mut interrupts = {
        let _entered = runtime.enter();
        Interrupts::new()?
    };
    let listen = move || {
        runtime.block_on(async {
            interrupts.wait().await;
            flag.store(true, Ordering::Relaxed);
            interrupts.wait().await;
        });
        process::exit(INTERRUPTED);
    };
    thread::Builder::new().name("interrupt".to_owned()).spawn(listen).map_err(|error| failed(&error))?;
    Ok(interrupted)
}

fn failed(error: &std::io::Error) -> CliError {
    CliError::new("io", format!("cannot listen to signals: {error}"))
}
