use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Global;
use crate::commands::print;
use crate::interrupt::on_interrupt;
use crate::output::{Cell, CliError, Format, Render, Report};
use crate::stopwatch::Stopwatch;

/// # Errors
///
/// `interrupted` if somebody did.
pub(super) fn check(interrupted: &AtomicBool) -> Result<(), CliError> {
    if interrupted.load(Ordering::Relaxed) {
        return Err(CliError::new(
            "interrupted",
            "the demo was interrupted: its processes and files are gone",
        ));
    }
    Ok(())
}

/// How the demo is told: step by step to people, as one object to programs.
pub(super) struct Story {
    global: Global,
    facts: Option<Report>,
    spinner: Option<ProgressBar>,
    steps: u32,
    begun: Stopwatch,
    interrupted: Arc<AtomicBool>,
}

impl Story {
    /// # Errors
    ///
    /// If the signals that interrupt it cannot be listened to.
    pub(super) fn new(global: &Global) -> Result<Self, CliError> {
        let told = global.output != Format::Json;
        let spinner = (told && std::io::stderr().is_terminal()).then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg:.dim}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(80));
            spinner
        });
        let story = Self {
            global: global.clone(),
            facts: Some(Report::new()),
            spinner,
            steps: 0,
            begun: Stopwatch::start(),
            interrupted: on_interrupt()?,
        };
        story.write("Planaria: cut it into fragments, and every fragment grows into a whole clone.");
        Ok(story)
    }

    /// What says that somebody interrupts it. Whoever is told it waits for nothing more, and leaves nothing behind.
    pub(super) fn interrupted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }

    /// Begins the next part.
    ///
    /// # Errors
    ///
    /// `interrupted` if somebody did.
    pub(super) fn step(&mut self, what: &str) -> Result<(), CliError> {
        check(&self.interrupted)?;
        self.steps += 1;
        let at = time(self.begun.elapsed());
        self.write(&format!("\n{:>2}  {what}  [{at}]", self.steps));
        if let Some(spinner) = &self.spinner {
            spinner.set_message(what.to_owned());
        }
        Ok(())
    }

    /// Tells a person something.
    pub(super) fn say(&self, what: &str) {
        self.write(&format!("      {what}"));
    }

    fn write(&self, line: &str) {
        if self.global.output == Format::Json {
            return;
        }
        let write = || {
            // Whoever does not listen to the story still gets its end.
            let _ = writeln!(std::io::stdout(), "{line}");
        };
        match &self.spinner {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        }
    }

    /// Notes a fact for programs.
    pub(super) fn fact(&mut self, name: &'static str, value: Cell) {
        self.facts = self.facts.take().map(|facts| facts.with(name, value));
    }

    /// Ends the story with a verdict.
    pub(super) fn end(&mut self, verdict: &str) -> Result<(), CliError> {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        self.write(&format!("\n{verdict}, after {}\n", time(self.begun.elapsed())));
        match self.facts.take() {
            Some(facts) => print(&self.global, &facts),
            None => Ok(()),
        }
    }
}

/// A time as people read it.
pub(super) fn time(duration: Duration) -> String {
    Cell::Duration(duration).human()
}

/// So many rows in such a time, and the rate.
pub(super) fn rate(rows: u64, over: Duration) -> String {
    format!("{}, {}", time(over), crate::output::count_rate(rows, over))
}
