use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{CloneAbout, ClonePlace, Options};
use planaria_net::quic::{Credentials, Transport};
use planaria_net::replica::{CloneProgress, Pace, Taking, take_clone};
use planaria_net::wire::message::Shape;
use planaria_net::{Error, Result};
use tokio::runtime::Handle;

use super::CloneJob;

/// The pause before the sources are tried again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// What happens to a clone while it is taken.
pub(crate) trait Audience: Send + Sync + 'static {
    /// It is tried with this source now.
    fn begins(&self, source: SocketAddr);
    /// It has come so far with it.
    fn progress(&self, progress: &CloneProgress);
    /// The way that it comes, and why that.
    fn way(&self, way: &str);
    /// A source did not give all.
    fn trouble(&self, source: SocketAddr, why: &str);
}

/// Whoever takes clones: a node in the background, or a command.
pub(crate) struct Taker {
    pub(crate) credentials: Credentials,
    pub(crate) engine: Options,
    pub(crate) runtime: Handle,
}

impl Taker {
    /// Takes a clone, from one source after the other, and puts it in its place.
    ///
    /// # Errors
    ///
    /// That of the last source, once nothing has come in for the patience of the job; at once what the sources cannot
    /// help, such as a full disk. What came in stays, to be gone on with.
    pub(crate) fn take<A: Audience>(
        &self,
        job: &CloneJob,
        created_ms: u64,
        pace: &Arc<Pace>,
        audience: &Arc<A>,
    ) -> Result<()> {
        let place = ClonePlace::new(&job.dir, Arc::clone(&self.engine.os));
        place.settle()?;
        if self.is_done(job, created_ms, &place)? {
            return Ok(());
        }
        let replaces = job.replace && place.is_there();
        let target = if replaces { place.next() } else { job.dir.clone() };
        audience.way(if replaces {
            "whole: it replaces what is there"
        } else {
            "whole: there is nothing yet"
        });
        self.fetch(
            job,
            &Taking {
                target,
                role: job.purpose.role(),
                shape: Shape::default(),
                options: self.engine.clone(),
                reuse: replaces.then(|| job.dir.clone()),
                about: Some(CloneAbout {
                    name: job.name.clone(),
                    purpose: job.purpose,
                    source: job.sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                    made_ms: 0,
                    expires_ms: None,
                }),
                ttl_ms: job.ttl_s.map(|ttl_s| ttl_s.saturating_mul(1_000)),
                pace: Arc::clone(pace),
            },
            audience,
        )?;
        if replaces {
            place.install()?;
        }
        Ok(())
    }

    /// Whether the clone got its name before the process ended that took it.
    fn is_done(&self, job: &CloneJob, created_ms: u64, place: &ClonePlace) -> Result<bool> {
        if !place.is_there() {
            return Ok(false);
        }
        let about = place.about()?;
        Ok(about.is_some_and(|about| about.name == job.name && about.made_ms >= created_ms))
    }

    /// Tries the sources in turn until one of them has given all.
    fn fetch<A: Audience>(&self, job: &CloneJob, taking: &Taking, audience: &Arc<A>) -> Result<()> {
        let os = &self.engine.os;
        let (mut heard, mut pause) = (os.monotonic(), PAUSE_MIN);
        loop {
            let mut last = Error::Protocol("a clone without a source".into());
            for source in &job.sources {
                let came_in = std::sync::atomic::AtomicBool::new(false);
                let came_in = Arc::new(came_in);
                match self.fetch_from(*source, taking, audience, &came_in) {
                    Ok(()) => return Ok(()),
                    Err(error) if is_final(&error) => return Err(error),
                    Err(error) => {
                        audience.trouble(*source, &error.to_string());
                        last = error;
                    }
                }
                if came_in.load(std::sync::atomic::Ordering::Relaxed) {
                    (heard, pause) = (os.monotonic(), PAUSE_MIN);
                }
            }
            let patience = Duration::from_secs(job.patience_s.into());
            if os.monotonic().saturating_sub(heard) >= patience {
                return Err(last);
            }
            self.runtime.block_on(taking.pace.rest(pause))?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn fetch_from<A: Audience>(
        &self,
        source: SocketAddr,
        taking: &Taking,
        audience: &Arc<A>,
        came_in: &Arc<std::sync::atomic::AtomicBool>,
    ) -> Result<()> {
        audience.begins(source);
        let (told, came_in) = (Arc::clone(audience), Arc::clone(came_in));
        let progress = move |progress: &CloneProgress| {
            if progress.done_bytes > progress.resumed_bytes + progress.linked_bytes {
                came_in.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            told.progress(progress);
        };
        let transport = Transport::default();
        let taken = take_clone(source, &self.credentials, &transport, taking, progress);
        self.runtime.block_on(taken).map(drop)
    }
}

/// Whether no source can help: it is about this side.
fn is_final(error: &Error) -> bool {
    match error {
        Error::GivenUp | Error::File { .. } => true,
        Error::Engine(error) => matches!(error.code(), "exists" | "no_space" | "in_use" | "io" | "not_found"),
        _ => false,
    }
}
