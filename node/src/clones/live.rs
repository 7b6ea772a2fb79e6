use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use planaria_engine::{ClonePurpose, Database};
use planaria_net::replica::{CloneProgress, Pace};
use planaria_net::wire::message::{CloneInfo, CloneRole};

use super::Audience;
use super::ledger::{CloneState, Entry};
use crate::stopwatch::Stopwatch;

/// Over how long a rate is measured, in milliseconds, and how far its points lie apart.
const WINDOW_MS: u64 = 5_000;
const BETWEEN_MS: u64 = 100;
/// What is remembered of what happened to one clone.
const REASONS_MAX: usize = 64;

/// What is in memory of a clone that comes in.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) pace: Arc<Pace>,
    told: Mutex<Told>,
    /// By what it is read before it is complete.
    view: Mutex<Option<Database>>,
}

#[derive(Debug, Default)]
struct Told {
    source: Option<SocketAddr>,
    progress: CloneProgress,
    /// What the attempts before this one had moved.
    moved_before: u64,
    speed: Speed,
    /// Since it was heard how far it is.
    heard: Option<Stopwatch>,
    way: String,
    reasons: Vec<String>,
}

impl Told {
    /// Bytes a second, of late: where nothing comes any more they become none.
    fn rate(&self) -> Option<u64> {
        let silent_ms = self.heard.map_or(0, |heard| heard.elapsed().as_millis() as u64);
        self.speed.after(silent_ms)
    }

    /// Bytes that came over the network.
    fn moved(&self) -> u64 {
        self.moved_before + self.progress.moved_bytes()
    }
}

impl Live {
    pub(super) fn new(pace: Pace, moved_before: u64) -> Self {
        let told = Told { moved_before, ..Told::default() };
        Self { pace: Arc::new(pace), told: Mutex::new(told), view: Mutex::default() }
    }

    /// By what it is read before it is complete, once it can be.
    pub(super) fn view(&self) -> Option<Database> {
        self.view.lock().clone()
    }

    /// Has an entry say what is known.
    pub(super) fn tell(&self, entry: &mut Entry) {
        let told = self.told.lock();
        let progress = &told.progress;
        entry.source = told.source.or(entry.source);
        entry.cut = progress.cut.or(entry.cut);
        if progress.cut.is_some() {
            entry.total_bytes = Some(progress.total_bytes);
            entry.resumed_bytes = progress.resumed_bytes;
            entry.linked_bytes = progress.linked_bytes;
        }
        entry.moved_bytes = told.moved();
        if !told.way.is_empty() {
            entry.way.clone_from(&told.way);
        }
        entry.reasons.extend(told.reasons.iter().cloned());
        let surplus = entry.reasons.len().saturating_sub(REASONS_MAX);
        entry.reasons.drain(..surplus);
    }
}

/// Those who listen to a clone of a node: whoever asks for it.
pub(super) struct Reported(Arc<Live>);

impl Reported {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self(live)
    }
}

impl Audience for Reported {
    fn begins(&self, source: SocketAddr) {
        let mut told = self.0.told.lock();
        told.moved_before = told.moved();
        told.progress = CloneProgress::default();
        (told.speed, told.heard) = (Speed::default(), None);
        told.source = Some(source);
    }

    fn progress(&self, progress: &CloneProgress) {
        let mut told = self.0.told.lock();
        told.progress = progress.clone();
        told.speed.note(progress.elapsed_ms, progress.moved_bytes());
        told.heard = Some(Stopwatch::start());
    }

    fn opened(&self, view: Database) {
        *self.0.view.lock() = Some(view);
    }

    fn way(&self, way: &str) {
        way.clone_into(&mut self.0.told.lock().way);
    }

    fn trouble(&self, source: SocketAddr, why: &str) {
        tracing::warn!(%source, why, "a source of a clone did not give all");
        let mut told = self.0.told.lock();
        let reason = format!("{source}: {why}");
        // One that is away says the same again and again.
        if told.reasons.last() != Some(&reason) && told.reasons.len() < REASONS_MAX {
            told.reasons.push(reason);
        }
    }
}

/// How fast something comes in, over the last seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Speed {
    /// Times in milliseconds, and bytes until then.
    points: VecDeque<(u64, u64)>,
}

impl Speed {
    /// At this time so many bytes were there in all.
    pub(crate) fn note(&mut self, at_ms: u64, bytes: u64) {
        if self.points.back().is_some_and(|(last, _)| at_ms < last + BETWEEN_MS) {
            return;
        }
        while self.points.len() > 1 && self.points.front().is_some_and(|(first, _)| first + WINDOW_MS < at_ms)
        {
            self.points.pop_front();
        }
        self.points.push_back((at_ms, bytes));
    }

    /// Bytes a second.
    pub(crate) fn bytes_per_s(&self) -> Option<u64> {
        self.after(0)
    }

    /// The same once nothing has come for so long since the last point.
    fn after(&self, silent_ms: u64) -> Option<u64> {
        let (last, after) = self.points.back()?;
        let until = last.saturating_add(silent_ms);
        let within = |(at, _): &&(u64, u64)| at + WINDOW_MS >= until;
        let (from, before) = self.points.iter().find(within).or(self.points.back())?;
        let time_ms = until.checked_sub(*from).filter(|time_ms| *time_ms > 0)?;
        u64::try_from(u128::from(after.saturating_sub(*before)) * 1_000 / u128::from(time_ms)).ok()
    }
}

/// How long so many bytes take at a rate, in milliseconds.
pub(crate) fn left_ms(bytes: u64, bytes_per_s: Option<u64>) -> Option<u64> {
    let rate = bytes_per_s.filter(|rate| *rate > 0)?;
    u64::try_from(u128::from(bytes) * 1_000 / u128::from(rate)).ok()
}

/// A clone in the words of the protocol.
pub(super) fn info_of(entry: &Entry, live: Option<&Live>) -> CloneInfo {
    let mut entry = entry.clone();
    let is_over = entry.state.is_over();
    let mut info = CloneInfo::default();
    if let Some(live) = live.filter(|_| !is_over) {
        live.tell(&mut entry);
        let told = live.told.lock();
        info.done_bytes = told.progress.done_bytes;
        info.bytes_per_s = told.rate();
        info.left_ms = left_ms(told.progress.total_bytes.saturating_sub(info.done_bytes), info.bytes_per_s);
        if entry.state == CloneState::Running {
            if live.view().is_some() {
                "hydrating".clone_into(&mut info.state);
            }
            told.progress.stage.name().clone_into(&mut info.stage);
        }
    } else if entry.state == CloneState::Complete {
        info.done_bytes = entry.total_bytes.unwrap_or_default();
    }
    CloneInfo {
        name: entry.job.name,
        state: if info.state.is_empty() { entry.state.name().to_owned() } else { info.state },
        role: match entry.job.purpose {
            ClonePurpose::Detached => CloneRole::Detached,
            ClonePurpose::Standby => CloneRole::Standby,
            ClonePurpose::Backup => CloneRole::Backup,
        },
        target: entry.job.dir.display().to_string(),
        cut: entry.cut,
        total_bytes: entry.total_bytes,
        expires_ms: entry.expires_ms,
        reasons: entry.reasons,
        from: entry.source.map(|source| source.to_string()).unwrap_or_default(),
        resumed_bytes: entry.resumed_bytes,
        linked_bytes: entry.linked_bytes,
        moved_bytes: entry.moved_bytes,
        rate_bytes_per_s: entry.job.rate_bytes_per_s,
        way: entry.way,
        ..info
    }
}

/// What a clone is for, in the words of the engine.
pub(crate) fn purpose_of(role: CloneRole) -> ClonePurpose {
    match role {
        // What goes into a store is no clone of a node: none is asked for as one.
        CloneRole::Detached | CloneRole::Store => ClonePurpose::Detached,
        CloneRole::Standby => ClonePurpose::Standby,
        CloneRole::Backup => ClonePurpose::Backup,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut speed = Speed::default();
        assert_eq!(speed.bytes_per_s(), None);
        for second in 0..=10 {
            speed.note(second * 1_000, second * 1_000_000);
        }
        assert_eq!(speed.bytes_per_s(), Some(1_000_000));
        for second in 11..=20 {
            speed.note(second * 1_000, 10_000_000 + (second - 10) * 10);
        }
        assert_eq!(speed.bytes_per_s(), Some(10));
        assert_eq!(left_ms(100, speed.bytes_per_s()), Some(10_000));
        assert_eq!(left_ms(100, Some(0)), None);
    }

    #[test]
    fn where_nothing_comes_any_more_the_rate_falls_to_nothing() {
        let mut speed = Speed::default();
        for second in 0..=5 {
            speed.note(second * 1_000, second * 1_000_000);
        }
        assert_eq!(speed.after(2_500), Some(444_444));
        assert_eq!([5_000, 60_000].map(|silent_ms| speed.after(silent_ms)), [Some(0), Some(0)]);
        assert_eq!(Speed::default().after(1_000), None);
    }
}
