//! Clones that are asked for again and again.

use planaria_net::wire::jobs::{CloneWish, ScheduleInfo, When, is_clone_name};

use super::calendar::next_after;
use super::{Center, Now};
use crate::catalog::{Change, CloneRecord, EventKind, ScheduleRecord};
use crate::{Error, Result};

/// Schedules that are kept, at most.
const SCHEDULES_MAX: usize = 1_024;
/// Bytes of the name of a schedule: a number follows it in the names of its clones.
const NAME_BYTES_MAX: usize = 100;
/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

impl Center {
    /// Has a clone asked for again and again, in place of a schedule of that name. One that goes by a time between two clones
    /// asks at once for the first time, and one that goes by the calendar when it says.
    ///
    /// # Errors
    ///
    /// `invalid` if its name or its time cannot be, and as [`Center::submit_clone`] for what would be refused now.
    pub fn set_schedule(&mut self, now: Now, name: &str, when: &When, wish: &CloneWish) -> Result<()> {
        let record = self.schedule_record(now, name, when, wish)?;
        let database = self.database_named(wish.database.as_deref())?.database;
        let times = match when {
            When::Every(ms) => format!("every {ms} ms"),
            When::Calendar(pattern) => format!("by the calendar, {pattern}"),
        };
        let what = format!("{name}: a clone to {} is asked for {times}", record.wish.to);
        let event = self.event(now, EventKind::ScheduleSet, Some(database), &wish.to, what, Vec::new());
        self.note(vec![Change::Schedule(Box::new(record)), event])?;
        self.watch_schedules(now)
    }

    /// A schedule as it is kept, if it can be.
    pub(super) fn schedule_record(
        &self,
        now: Now,
        name: &str,
        when: &When,
        wish: &CloneWish,
    ) -> Result<ScheduleRecord> {
        let invalid =
            |what: String| Error::refused("invalid", what, "see `planaria cluster schedule --help`");
        if !is_clone_name(name) || name.len() > NAME_BYTES_MAX {
            return Err(invalid(format!("{name:?} is no name of a schedule")));
        }
        let next = next_after(when, now.wall_ms)?;
        let due_ms = if matches!(when, When::Every(_)) { now.wall_ms } else { next };
        if wish.name.is_some() {
            return Err(invalid("the clones of a schedule are named by it and their numbers".to_owned()));
        }
        let schedules = &self.contents.schedules;
        if schedules.len() >= SCHEDULES_MAX && !schedules.contains_key(name) {
            let what = format!("there are {SCHEDULES_MAX} schedules");
            return Err(Error::refused("too_many", what, "remove some"));
        }
        let wish = &self.settled(wish)?;
        self.check_wish(now, wish)?;
        let database = self.database_named(wish.database.as_deref())?.database;
        let wish = CloneWish { database: Some(database.to_string()), ..wish.clone() };
        Ok(ScheduleRecord { name: name.to_owned(), when: when.clone(), wish, due_ms })
    }

    /// Has a schedule end. Clones that it has asked for go on.
    ///
    /// # Errors
    ///
    /// `unknown_schedule`.
    pub fn remove_schedule(&mut self, now: Now, name: &str) -> Result<()> {
        let Some(known) = self.contents.schedules.get(name) else {
            let what = format!("no schedule is called {name:?}");
            return Err(Error::refused(
                "unknown_schedule",
                what,
                "`planaria cluster schedule list` shows them",
            ));
        };
        let what = format!("{name}: no more clones are asked for");
        let event = self.event(now, EventKind::ScheduleEnded, None, &known.wish.to, what, Vec::new());
        self.note(vec![Change::ScheduleRemoved(name.to_owned()), event])
    }

    /// The schedules, by name.
    pub fn schedules(&self) -> Vec<ScheduleInfo> {
        let info = |schedule: &ScheduleRecord| {
            let database = schedule.wish.database.clone().unwrap_or_default();
            let mut known = self.contents.databases.values();
            let known = known.find(|known| known.database.to_string() == database);
            let database = known.map_or(database, |known| known.name.clone());
            ScheduleInfo {
                name: schedule.name.clone(),
                when: schedule.when.clone(),
                wish: CloneWish { database: Some(database), ..schedule.wish.clone() },
                due_ms: schedule.due_ms,
            }
        };
        self.contents.schedules.values().map(info).collect()
    }

    /// Asks for the clones that are due. Times that passed while the control center was down are made up for once, and none
    /// is asked for while the one before is under way.
    pub(super) fn watch_schedules(&mut self, now: Now) -> Result<()> {
        let is_due = |schedule: &&ScheduleRecord| schedule.due_ms <= now.wall_ms;
        let due: Vec<ScheduleRecord> = self.contents.schedules.values().filter(is_due).cloned().collect();
        for schedule in due {
            let due_ms = match &schedule.when {
                // In step with the first time.
                When::Every(ms) => {
                    let missed = now.wall_ms.saturating_sub(schedule.due_ms) / (*ms).max(1);
                    schedule.due_ms.saturating_add((missed + 1).saturating_mul(*ms))
                }
                // It named times when it was set. One that names none any more must not keep all others from being heard.
                calendar @ When::Calendar(_) => {
                    next_after(calendar, now.wall_ms).unwrap_or(now.wall_ms + DAY_MS)
                }
            };
            let next = ScheduleRecord { due_ms, ..schedule.clone() };
            // It is written down first: what cannot be asked for now is not asked for with every report.
            self.note(vec![Change::Schedule(Box::new(next))])?;
            let origin = format!("the schedule {}", schedule.name);
            let is_under_way = |clone: &CloneRecord| clone.origin == origin;
            if self.contents.clones.values().any(is_under_way) {
                tracing::info!(
                    schedule = schedule.name,
                    "the clone before this one is under way: it is passed over"
                );
                continue;
            }
            let name = Some(format!("{}-{}", schedule.name, self.contents.last_job + 1));
            let wish = CloneWish { name, ..schedule.wish };
            match self.submit_clone(now, &wish, &origin) {
                Err(Error::Refused { code, what, .. }) => {
                    let what = format!("{origin} asked for a clone in vain ({code}): {what}");
                    let event = self.event(now, EventKind::CloneFailed, None, &wish.to, what, Vec::new());
                    self.note(vec![event])?;
                }
                submitted => drop(submitted?),
            }
        }
        Ok(())
    }
}
