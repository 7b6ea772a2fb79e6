use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use planaria_engine::{CloneAbout, ClonePlace, Database, Options};
use planaria_net::quic::{Credentials, Transport};
use planaria_net::replica::{
    CloneProgress, CloneStage, LazyTaking, Pace, Renewal, Taking, renew, take_clone,
};
use planaria_net::{Error, Result};
use tokio::runtime::Handle;

use super::CloneJob;
use super::preserve::{check_preserved, preserve};

/// The pause before the sources are tried again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// What happens to a clone while it is taken.
pub(crate) trait Audience: Send + Sync + 'static {
    /// It is tried with this source now.
    fn begins(&self, source: SocketAddr);
    /// It has come so far with it.
    fn progress(&self, progress: &CloneProgress);
    /// From now on it can be read by this, though it is not complete.
    fn opened(&self, _view: Database) {}
    /// The way that it comes, and why that.
    fn way(&self, way: &str);
    /// A source did not give all.
    fn trouble(&self, source: SocketAddr, why: &str);
}

/// Whoever takes clones: a node in the background, or a command.
pub(crate) struct Taker {
    pub(crate) credentials: Credentials,
    pub(crate) transport: Transport,
    pub(crate) engine: Options,
    pub(crate) runtime: Handle,
}

impl Taker {
    /// Takes a clone, from one source after the other, and puts it in its place.
    ///
    /// # Errors
    ///
    /// `busy` while somebody else works on a clone there. That of the last source, once nothing has come in for the patience of the
    /// job, or once none is left that asking again would help; at once what the sources cannot help, such as a full disk. What came in
    /// stays, to be gone on with.
    pub(crate) fn take<A: Audience>(
        &self,
        job: &CloneJob,
        created_ms: u64,
        pace: &Arc<Pace>,
        audience: &Arc<A>,
    ) -> Result<()> {
        let place = ClonePlace::new(&job.dir, Arc::clone(&self.engine.os)).claim()?;
        place.settle()?;
        if Self::is_done(job, created_ms, &place)? {
            return Ok(());
        }
        if job.lazy {
            audience.way("lazy: read while it comes in");
            return self.hydrate(job, &place, pace, audience);
        }
        let replaces = job.replace && place.is_there();
        if !replaces {
            audience.way("whole: there is nothing yet");
            return self.fetch(job, &self.taking(job, &place, false, pace), audience);
        }
        check_preserved(&job.dir, &job.preserve, &self.engine)?;
        // One that is complete and waits for its place was made for this before a process ended.
        if !self.waits(job, created_ms, &place)? {
            self.make_next(job, &place, pace, audience)?;
        }
        match preserve(&job.dir, &place.next(), &job.preserve, &self.engine) {
            // It would be refused again.
            Err(error @ planaria_engine::Error::Schema(_)) => {
                place.abandon()?;
                return Err(error.into());
            }
            preserved => preserved?,
        }
        place.install()?;
        Ok(())
    }

    /// Puts together what is to take the place of a clone that is there: by what has changed since, if nothing else has.
    fn make_next<A: Audience>(
        &self,
        job: &CloneJob,
        place: &ClonePlace,
        pace: &Arc<Pace>,
        audience: &Arc<A>,
    ) -> Result<()> {
        let begun = if job.shape.is_whole() {
            place.begin_renewal(&self.engine)
        } else {
            Err(planaria_engine::Error::Invalid("it is not to have everything".into()))
        };
        let why = match begun {
            Ok(_) => match self.renew(job, place, pace, audience) {
                Ok(()) => return Ok(()),
                Err(error @ Error::ForeignDatabase { .. }) => error.to_string(),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => error.to_string(),
            },
            Err(planaria_engine::Error::Invalid(why)) => why,
            Err(error) => return Err(error.into()),
        };
        audience.way(&format!("whole: {why}"));
        self.fetch(job, &self.taking(job, place, true, pace), audience)
    }

    /// Brings a link of the clone up to date, from the first source that can.
    fn renew<A: Audience>(
        &self,
        job: &CloneJob,
        place: &ClonePlace,
        pace: &Arc<Pace>,
        audience: &Arc<A>,
    ) -> Result<()> {
        audience.way("incremental");
        self.in_turn(job, pace, audience, |source, came_in| {
            let told = |bytes| {
                came_in.fetch_or(bytes > 0, Ordering::Relaxed);
                audience.progress(&CloneProgress {
                    stage: CloneStage::Fetching,
                    done_bytes: bytes,
                    ..CloneProgress::default()
                });
            };
            let (dir, engine) = (place.renewing(), &self.engine);
            let end = |renewal: &Renewal, db: Database| {
                audience.way(&format!("incremental: {} records by {}", renewal.records, renewal.way));
                audience.progress(&CloneProgress {
                    stage: CloneStage::Installing,
                    cut: Some(renewal.cut),
                    done_bytes: renewal.bytes,
                    total_bytes: renewal.bytes,
                    ..CloneProgress::default()
                });
                let made_ms = self.engine.os.now_millis();
                let expires_ms = ttl_ms(job).map(|ttl_ms| made_ms.saturating_add(ttl_ms));
                Ok(place.end_renewal(db, &CloneAbout { made_ms, expires_ms, ..about_of(job) })?)
            };
            let from = (source, &self.credentials, &self.transport);
            renew(from, &dir, engine, pace, &self.runtime, told, end).map(drop)
        })
    }

    fn taking(&self, job: &CloneJob, place: &ClonePlace, replaces: bool, pace: &Arc<Pace>) -> Taking {
        let target = if replaces { place.next() } else { job.dir.clone() };
        Taking {
            shape: job.shape.clone(),
            reuse: replaces.then(|| job.dir.clone()),
            about: Some(about_of(job)),
            ttl_ms: ttl_ms(job),
            pace: Arc::clone(pace),
            ..Taking::new(target, job.purpose.role(), &self.engine)
        }
    }

    /// Whether a complete clone of this job waits for its place. One of another job goes.
    fn waits(&self, job: &CloneJob, created_ms: u64, place: &ClonePlace) -> Result<bool> {
        let next = ClonePlace::new(place.next(), Arc::clone(&self.engine.os));
        if !next.is_there() {
            return Ok(false);
        }
        let waits = Self::is_done(job, created_ms, &next)?;
        if !waits {
            next.remove()?;
        }
        Ok(waits)
    }

    /// Whether the clone got its name before the process ended that took it.
    fn is_done(job: &CloneJob, created_ms: u64, place: &ClonePlace) -> Result<bool> {
        if !place.is_there() {
            return Ok(false);
        }
        let about = place.about()?;
        Ok(about.is_some_and(|about| about.name == job.name && about.made_ms >= created_ms))
    }

    /// Fetches all files that are not here.
    fn fetch<A: Audience>(&self, job: &CloneJob, taking: &Taking, audience: &Arc<A>) -> Result<()> {
        self.in_turn(job, &taking.pace, audience, |source, came_in| {
            self.fetch_from(source, taking, audience, came_in)
        })
    }

    /// Tries the sources in turn until one of them has given all. `from` takes what one has, and says whether anything came.
    fn in_turn<A: Audience>(
        &self,
        job: &CloneJob,
        pace: &Pace,
        audience: &Arc<A>,
        from: impl Fn(SocketAddr, &Arc<AtomicBool>) -> Result<()>,
    ) -> Result<()> {
        let os = &self.engine.os;
        let (mut heard, mut pause) = (os.monotonic(), PAUSE_MIN);
        let mut left = job.sources.clone();
        loop {
            let mut last = Error::Protocol("a clone without a source".into());
            for source in left.clone() {
                let came_in = Arc::new(AtomicBool::new(false));
                audience.begins(source);
                match from(source, &came_in) {
                    Ok(()) => return Ok(()),
                    Err(error) if is_final(&error) => return Err(error),
                    Err(error) => {
                        audience.trouble(source, &error.to_string());
                        if stays(&error) {
                            left.retain(|other| *other != source);
                        }
                        last = error;
                    }
                }
                if came_in.load(Ordering::Relaxed) {
                    (heard, pause) = (os.monotonic(), PAUSE_MIN);
                }
            }
            // How much is needed a source says: another one may need less, waiting helps nobody.
            if left.is_empty() || matches!(last, Error::Engine(planaria_engine::Error::NoRoom { .. })) {
                return Err(last);
            }
            let patience = Duration::from_secs(job.patience_s.into());
            if os.monotonic().saturating_sub(heard) >= patience {
                return Err(last);
            }
            self.runtime.block_on(pace.rest(pause))?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Has a clone read while what is not here is fetched.
    fn hydrate<A: Audience>(
        &self,
        job: &CloneJob,
        place: &ClonePlace,
        pace: &Arc<Pace>,
        audience: &Arc<A>,
    ) -> Result<()> {
        let told = Arc::clone(audience);
        let lazy = LazyTaking::new(self.taking(job, place, false, pace), move |view| told.opened(view))?;
        lazy.resume()?;
        self.in_turn(job, pace, audience, |source, came_in| {
            let progress = heard(audience, came_in);
            let taken = lazy.take_from(source, &self.credentials, &self.transport, progress);
            self.runtime.block_on(taken).map(drop)
        })
    }

    fn fetch_from<A: Audience>(
        &self,
        source: SocketAddr,
        taking: &Taking,
        audience: &Arc<A>,
        came_in: &Arc<AtomicBool>,
    ) -> Result<()> {
        let progress = heard(audience, came_in);
        let taken = take_clone(source, &self.credentials, &self.transport, taking, progress);
        self.runtime.block_on(taken).map(drop)
    }
}

/// Tells the audience of progress, and `came_in` of bytes.
fn heard<A: Audience>(audience: &Arc<A>, came_in: &Arc<AtomicBool>) -> impl Fn(&CloneProgress) + use<A> {
    let (told, came_in) = (Arc::clone(audience), Arc::clone(came_in));
    move |progress: &CloneProgress| {
        if progress.done_bytes > progress.resumed_bytes + progress.linked_bytes {
            came_in.store(true, Ordering::Relaxed);
        }
        told.progress(progress);
    }
}

fn ttl_ms(job: &CloneJob) -> Option<u64> {
    job.ttl_s.map(|ttl_s| ttl_s.saturating_mul(1_000))
}

/// What the clone is to say of itself, but for the times.
fn about_of(job: &CloneJob) -> CloneAbout {
    CloneAbout {
        name: job.name.clone(),
        purpose: job.purpose,
        source: job.sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        made_ms: 0,
        expires_ms: None,
    }
}

/// Whether another source may give what is left: what came in is worth keeping for it.
pub(super) fn helps_elsewhere(error: &Error) -> bool {
    let is_own = matches!(
        error,
        Error::Engine(planaria_engine::Error::Busy { .. } | planaria_engine::Error::NotExchanged { .. })
    );
    !is_own && !is_final(error)
}

/// Whether a source would say the same if it were asked again: it is damaged, gives other bytes than it promised, or does not have the
/// cut any more.
fn stays(error: &Error) -> bool {
    match error {
        Error::Remote(error) => {
            matches!(&*error.code, "damaged" | "foreign" | "poisoned" | "snapshot_too_old" | "gap")
        }
        Error::Engine(error) => matches!(error.code(), "damaged" | "foreign" | "invalid"),
        _ => false,
    }
}

/// Whether no source can help: it is about this side, or about what is asked.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Remote(error) => error.code == "invalid_shape",
        Error::GivenUp | Error::File { .. } | Error::ForeignDatabase { .. } => true,
        Error::Engine(planaria_engine::Error::NoRoom { .. }) => false,
        Error::Engine(error) => matches!(
            error.code(),
            "exists" | "no_space" | "in_use" | "io" | "not_found" | "schema" | "unknown_table"
        ),
        _ => false,
    }
}
