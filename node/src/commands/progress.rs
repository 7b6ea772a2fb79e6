use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar for bytes that come in or go out; on a terminal only.
#[derive(Clone)]
pub(crate) struct ByteBar(ProgressBar);

impl ByteBar {
    /// A bar that appears with the first byte.
    pub(crate) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{msg}  {bar:32.cyan/dim}  {bytes:>10} of {total_bytes}  {bytes_per_sec}  {eta} left",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self(bar)
    }

    /// Says what goes on now.
    pub(crate) fn stage(&self, what: &'static str) {
        self.0.set_message(what);
    }

    /// Shows how far it has come.
    pub(crate) fn show(&self, done_bytes: u64, total_bytes: u64) {
        self.0.set_length(total_bytes);
        self.0.set_position(done_bytes);
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
