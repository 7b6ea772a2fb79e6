//! The invariants that the model can speak of, one function each. E is for the engine, R for replication.

use std::fmt;

use planaria_types::{EpochOrder, Fingerprint, Position, Uid};

use super::copy::{CopyId, CopyState, Role, Stage};
use super::ledger::{Commit, Key, Row};
use super::op::Op;
use super::stack::Rectangle;
use super::{Model, Refused};

/// An invariant that does not hold, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The name of the invariant: `E6`, `R13` and so on.
    pub invariant: &'static str,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not hold: {}", self.invariant, self.found)
    }
}

impl std::error::Error for Violation {}

type Check = Result<(), Violation>;

fn hold(holds: bool, invariant: &'static str, found: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Violation { invariant, found: found() }) }
}

impl Model {
    /// Checks every invariant of one state.
    pub fn check(&self) -> Check {
        self.r1_a_position_names_one_content()?;
        for (id, copy) in self.ids().zip(&self.copies) {
            self.e2_e3_a_copy_holds_a_prefix_of_whole_commits(id, copy)?;
            self.e6_a_cut_reads_as_its_history_replayed(id, copy)?;
            self.r0_rectangles_are_stacked(id, copy)?;
            self.r5_an_online_secondary_holds_a_prefix(id, copy)?;
            self.r11_records_come_from_primaries(id, copy)?;
            self.r13_marks_above_the_floor_are_there(id, copy)?;
            self.r15_deleted_rows_stay_away(id, copy)?;
        }
        self.r16_equal_positions_have_equal_digests()
    }

    /// Checks what must hold between a state and the one that `op` made of it.
    pub fn check_step(before: &Self, op: &Op, after: &Self) -> Check {
        after.r11_only_a_primary_writes(before, op)?;
        for (id, (old, new)) in after.ids().zip(before.copies.iter().zip(&after.copies)) {
            if std::sync::Arc::ptr_eq(old, new) {
                continue;
            }
            e1_a_crash_keeps_what_was_synced(id, old, new, op)?;
            e15_bounds_do_not_fall(id, old, new)?;
            after.r4_updates_become_visible_in_order(id, old, new, op)?;
            r9_epochs_do_not_fall(id, old, new)?;
            after.r10_what_is_taken_back_is_quarantined(id, old, new, op)?;
            after.r13_marks_are_kept_for_the_registered(id, old, new, op)?;
            after.r21_a_refreshing_copy_reads_as_before(id, old, new, op)?;
        }
        Ok(())
    }

    /// R1: one position names one content, over all copies and all time. A primary that drew a UID twice under one
    /// epoch is caught here; what copies make of a position is held by E2, E6 and R16.
    fn r1_a_position_names_one_content(&self) -> Check {
        hold(self.ledger.reused().is_empty(), "R1", || {
            format!("written twice under one position: {:?}", self.ledger.reused())
        })
    }

    /// E2 and E3: what a copy holds is a prefix of the commit order, across all keys, and every commit in it is whole.
    /// Checked at the end of the log and at what is durable, which is what a crash would leave.
    fn e2_e3_a_copy_holds_a_prefix_of_whole_commits(&self, id: CopyId, copy: &CopyState) -> Check {
        let mut below = copy.history.position_of(copy.base);
        for commit in &copy.log {
            let real = self.ledger.get(commit.position);
            hold(commit.predecessor == below, "E2", || format!("{id:?} logs {commit:?} on top of {below}"))?;
            hold(real.is_some_and(|real| **real == **commit), "E3", || {
                format!("{id:?} holds half of {commit:?}")
            })?;
            below = commit.position;
        }
        if copy.stack.hides(copy.appended()) {
            return Ok(());
        }
        for key in self.keys() {
            let held = copy.newest(key, Uid::MAX).and_then(|record| record.content());
            let real = self.ledger.replay(copy.end(), key);
            hold(held == real, "E2", || {
                format!("{id:?} ends with {held:?} at {key:?}, its history with {real:?}")
            })?;
        }
        Ok(())
    }

    /// E6: every cut that a copy will read, and every snapshot it holds, shows what replaying its history to that cut
    /// shows; and the visible cut can always be read.
    fn e6_a_cut_reads_as_its_history_replayed(&self, id: CopyId, copy: &CopyState) -> Check {
        let shown = copy.shown();
        let cuts = self.ledger.back_from(shown).map(|commit| commit.position).chain([Position::default()]);
        for position in cuts {
            for key in self.keys() {
                let real = self.ledger.replay(position, key);
                let wanted = copy.snapshots.contains(&position.uid) || position == shown;
                match copy.read(key, position.uid) {
                    Ok(held) => hold(held == real, "E6", || {
                        format!(
                            "{id:?} reads {held:?} at {key:?} as of {position}, its history says {real:?}"
                        )
                    })?,
                    Err(why) => hold(!wanted, "E6", || format!("{id:?} cannot read {position}: {why:?}"))?,
                }
            }
        }
        let lost = copy.visible != shown.uid || self.ledger.get(shown).is_none() != (shown.uid == Uid::ZERO);
        hold(!lost, "E6", || format!("{id:?} shows {shown}, which no primary wrote"))
    }

    /// R0: over every key the rectangles are stacked by UID, without overlap and without a hole, up to where the log
    /// begins.
    fn r0_rectangles_are_stacked(&self, id: CopyId, copy: &CopyState) -> Check {
        for key in self.keys() {
            let mut top = Uid::ZERO;
            let over: Vec<&Rectangle> = copy.stack.rectangles().iter().filter(|own| own.spans(key)).collect();
            for rectangle in over {
                let fits = rectangle.low == top && rectangle.low < rectangle.high;
                hold(fits, "R0", || format!("{id:?} at {key:?}: {rectangle:?} is stacked on {top}"))?;
                let inside = |uid: Uid| rectangle.low < uid && uid <= rectangle.high;
                let owned = rectangle
                    .records
                    .iter()
                    .all(|record| inside(record.uid()) && rectangle.spans(record.key));
                hold(owned, "R0", || format!("{id:?}: a record lies outside of {rectangle:?}"))?;
                top = rectangle.high;
            }
            hold(top == copy.base, "R0", || {
                format!("{id:?} at {key:?}: runs end at {top}, the log begins at {}", copy.base)
            })?;
        }
        Ok(())
    }

    /// R5: a secondary at the live stream holds a prefix of its primary's history, and shows nothing that the primary
    /// could lose.
    fn r5_an_online_secondary_holds_a_prefix(&self, id: CopyId, copy: &CopyState) -> Check {
        let Some(session) = copy.session.as_ref().filter(|session| session.stage == Stage::Live) else {
            return Ok(());
        };
        let Ok(primary) = self.copy(session.primary) else {
            return Ok(());
        };
        let prefix = self.ledger.precedes(copy.end(), primary.end());
        hold(prefix, "R5", || {
            format!("{id:?} is online at {}, its primary at {}", copy.end(), primary.end())
        })?;
        hold(copy.visible <= primary.durable, "R5", || {
            format!("{id:?} shows {}, its primary has {} durable", copy.visible, primary.durable)
        })
    }

    /// R11 (and E4): every record names a commit that a primary wrote, and that says the same of the key.
    fn r11_records_come_from_primaries(&self, id: CopyId, copy: &CopyState) -> Check {
        for record in copy.stack.rectangles().iter().flat_map(|rectangle| &rectangle.records) {
            let author = self.ledger.author(record.row);
            let written =
                author.is_some_and(|commit| commit.changes.kind_of(record.key) == Some(record.kind));
            hold(written, "R11", || format!("{id:?} holds {record:?}, which no primary wrote"))?;
        }
        Ok(())
    }

    /// R11: the ledger grows by commits at primaries, under their own newest epoch, and by nothing else.
    fn r11_only_a_primary_writes(&self, before: &Self, op: &Op) -> Check {
        let wrote = self.ledger.len() - before.ledger.len();
        let Op::Commit { at, .. } = *op else {
            return hold(wrote == 0, "R11", || format!("{op:?} drew a UID"));
        };
        let led = |model: &Self| Ok::<_, Refused>(model.copy(at)?.role == Role::Primary);
        hold(wrote == 1 && led(before) == Ok(true), "R11", || format!("{op:?} wrote {wrote} commits"))
    }

    /// R13, first half: the newest delete mark of a key is there unless it lies at or below the mark floor, so that a
    /// delta from any position at or above the floor is complete.
    fn r13_marks_above_the_floor_are_there(&self, id: CopyId, copy: &CopyState) -> Check {
        for key in self.keys() {
            let newest =
                self.ledger.back_from(copy.end()).find(|commit| commit.changes.kind_of(key).is_some());
            let needed = newest
                .filter(|commit| commit.changes.deletes.contains(key) && commit.uid() > copy.mark_floor);
            let Some(mark) = needed.map(|commit| commit.uid()) else {
                continue;
            };
            hold(copy.newest_mark(key) == Some(mark), "R13", || {
                format!(
                    "{id:?} lost the delete mark {mark} of {key:?}, its mark floor is {}",
                    copy.mark_floor
                )
            })?;
        }
        Ok(())
    }

    /// R13, second half: no step drops a delete mark above the durable position of a copy that is registered here.
    /// What an explicit give-up allowed is not in the registrations any more.
    fn r13_marks_are_kept_for_the_registered(
        &self,
        id: CopyId,
        old: &CopyState,
        new: &CopyState,
        op: &Op,
    ) -> Check {
        if !matches!(op, Op::Merge { .. } | Op::Flush { .. }) {
            return Ok(());
        }
        let registered = new.registered.iter().flatten().map(|registration| registration.durable).min();
        for key in self.keys() {
            let gone = old.newest_mark(key).filter(|_| new.newest_mark(key).is_none());
            let wrong = gone.filter(|mark| registered.is_some_and(|durable| *mark > durable));
            hold(wrong.is_none(), "R13", || {
                format!("{id:?} dropped the mark {wrong:?}, needed above {registered:?}")
            })?;
        }
        Ok(())
    }

    /// R15: a row that the history of the shown position deleted, or overwrote, is not shown.
    fn r15_deleted_rows_stay_away(&self, id: CopyId, copy: &CopyState) -> Check {
        for key in self.keys() {
            let Ok(Some(row)) = copy.read(key, copy.visible) else {
                continue;
            };
            let after = |commit: &&std::sync::Arc<Commit>| Row::at(commit.position) != row;
            let mut later = self.ledger.back_from(copy.shown()).take_while(after);
            let deleted = later.find(|commit| commit.changes.deletes.contains(key));
            hold(deleted.is_none(), "R15", || {
                format!("{id:?} shows {row:?} at {key:?}, deleted by {deleted:?}")
            })?;
        }
        Ok(())
    }

    /// R16: copies that show one position have one digest.
    fn r16_equal_positions_have_equal_digests(&self) -> Check {
        for (id, one) in self.ids().zip(&self.copies) {
            for (other_id, other) in self.ids().zip(&self.copies).filter(|(other, _)| *other > id) {
                if one.shown() == other.shown() {
                    let (digest, other_digest) = (self.digest(one), self.digest(other));
                    hold(digest == other_digest, "R16", || {
                        format!("{id:?} and {other_id:?} differ at {}", one.shown())
                    })?;
                }
            }
        }
        Ok(())
    }

    /// The fingerprint of what a copy shows.
    fn digest(&self, copy: &CopyState) -> Fingerprint {
        let mut digest = Fingerprint::EMPTY;
        for key in self.keys() {
            if let Ok(Some(row)) = copy.read(key, copy.visible) {
                let word = (u128::from(row.uid.get()) << 64) | u128::from(row.nonce << 8) | u128::from(key.0);
                digest.add_hash((word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            }
        }
        digest
    }

    /// R4: what a copy shows moves along one history, never back and never past a commit it does not have. Only a crash
    /// (what was not synced) and a handshake or install (what lies beyond the fork) take something back.
    fn r4_updates_become_visible_in_order(
        &self,
        id: CopyId,
        old: &CopyState,
        new: &CopyState,
        op: &Op,
    ) -> Check {
        let back = matches!(op, Op::Crash { .. } | Op::Connect { .. })
            || (matches!(op, Op::Install { .. })
                && old.refresh().is_some_and(|refresh| refresh.fork.uid < old.visible));
        let (from, to) = (old.shown(), new.shown());
        let forward = self.ledger.precedes(from, to);
        hold(back || forward, "R4", || format!("{op:?} moved what {id:?} shows from {from} to {to}"))?;
        hold(new.visible <= new.appended(), "R4", || format!("{id:?} shows {to} and has {}", new.end()))
    }

    /// R10: what was shown and durable, and is not part of the history any more, is in quarantine.
    fn r10_what_is_taken_back_is_quarantined(
        &self,
        id: CopyId,
        old: &CopyState,
        new: &CopyState,
        op: &Op,
    ) -> Check {
        if matches!(op, Op::Crash { .. }) {
            return Ok(());
        }
        let shown = self.ledger.back_from(old.shown()).map(|commit| commit.position);
        let mut lost = shown.filter(|position| !self.ledger.precedes(*position, new.end()));
        let dropped = lost.find(|position| !new.quarantine.contains(&Row::at(*position)));
        hold(dropped.is_none(), "R10", || format!("{op:?} took {dropped:?} from {id:?} without quarantine"))
    }

    /// R21: a copy reads as its old position until it reads as the new one, in one step and in full.
    fn r21_a_refreshing_copy_reads_as_before(
        &self,
        id: CopyId,
        old: &CopyState,
        new: &CopyState,
        op: &Op,
    ) -> Check {
        if old.refresh().is_none() || matches!(op, Op::Install { .. } | Op::Connect { .. }) {
            return Ok(());
        }
        let same = old.shown() == new.shown()
            && self.keys().all(|key: Key| old.read(key, old.visible) == new.read(key, new.visible));
        hold(same, "R21", || format!("{op:?} changed what {id:?} shows before its refresh was installed"))
    }
}

/// E1: a crash takes nothing that was durable.
fn e1_a_crash_keeps_what_was_synced(id: CopyId, old: &CopyState, new: &CopyState, op: &Op) -> Check {
    let kept = !matches!(op, Op::Crash { .. }) || new.appended() >= old.durable;
    hold(kept, "E1", || format!("{id:?} had {} durable and came back with {}", old.durable, new.appended()))
}

/// E15: the reserved bound of a copy never falls.
fn e15_bounds_do_not_fall(id: CopyId, old: &CopyState, new: &CopyState) -> Check {
    hold(new.drawn >= old.drawn, "E15", || format!("{id:?} fell back from {} to {}", old.drawn, new.drawn))
}

/// R9: a copy never follows or leads under an older epoch than it has accepted.
fn r9_epochs_do_not_fall(id: CopyId, old: &CopyState, new: &CopyState) -> Check {
    let order = new.accepted.order(&old.accepted);
    let rises = matches!(order, EpochOrder::Newer | EpochOrder::Same);
    hold(rises, "R9", || format!("{id:?} accepted {} after {}", new.accepted, old.accepted))
}
