//! A reconcile: find the ranges that differ by comparing fingerprints from the top down, and have them replaced.

use std::collections::VecDeque;

use planaria_types::{KeyRange, TableId};

use super::action::Action;
use super::replica::{Phase, Replica};
use super::session::{End, breach};
use crate::compare::PartSum;
use crate::options::planted;
use crate::{Compare, Message, Millis, Options, Parts, RangesReply, RangesRequest, Record, Span};

/// Deeper than this no range is cut: what still differs there is replaced as it is.
const DEPTH_MAX: u32 = 64;
/// Ranges to be replaced that are kept apart. Beyond that, neighbours become one, with what lies between them.
const LEAVES_MAX: usize = 16_384;
/// Neighbours that touch become one up to so many records.
const LEAF_RECORDS_MAX: u64 = 4_096;
/// What a record is taken to weigh before it is seen, in bytes.
const RECORD_BYTES: u64 = 128;

/// How far a comparison has come.
#[derive(Debug)]
pub(super) struct Comparison {
    stage: Stage,
    /// The engine has begun to collect ranges.
    begun: bool,
    /// Ranges to be cut further, the next one last, and how often they have been cut.
    differing: Vec<(Span, u32)>,
    /// Ranges to be replaced, in order once they are fetched.
    leaves: VecDeque<Leaf>,
    /// Questions for records that are not answered, in order.
    asked: VecDeque<Vec<Leaf>>,
    replies: u64,
}

/// What a comparison waits for.
#[derive(Debug)]
enum Stage {
    /// Nothing: the next question can be asked.
    Ask,
    /// Parts of these ranges; of all tables, if there are none.
    Asked(Vec<(Span, u32)>),
    /// The engine to begin, so that these can be compared.
    Beginning(Vec<Candidate>),
    /// The copy's own fingerprints of these.
    Summing(Vec<Candidate>),
    /// Everything was compared: records are fetched.
    Fetch,
}

/// A part of the primary, to be compared.
#[derive(Debug)]
struct Candidate {
    span: Span,
    sum: PartSum,
    depth: u32,
    /// It cannot be cut further.
    whole: bool,
}

/// A range to be replaced, and about how many records the primary has there.
#[derive(Debug)]
struct Leaf {
    span: Span,
    count: u64,
}

impl Comparison {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Ask,
            begun: false,
            differing: Vec::new(),
            leaves: VecDeque::new(),
            asked: VecDeque::new(),
            replies: 0,
        }
    }

    /// Whether the engine holds something of it.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn is_complete(&self, options: &Options) -> bool {
        let compared = matches!(self.stage, Stage::Fetch);
        let half = planted!(options, ReconcileHalf) && self.replies > 0;
        compared && (half || (self.leaves.is_empty() && self.asked.is_empty()))
    }

    /// The next question for parts, if one can be asked.
    fn ask_parts(&mut self, options: &Options) -> Option<Vec<Span>> {
        if !matches!(self.stage, Stage::Ask) {
            return None;
        }
        if self.begun && self.differing.is_empty() {
            self.arrange();
            self.stage = Stage::Fetch;
            return None;
        }
        let keep = self.differing.len().saturating_sub(options.compare_spans.max(1) as usize);
        let batch = self.differing.split_off(keep);
        let spans = batch.iter().map(|(span, _)| span.clone()).collect();
        self.stage = Stage::Asked(batch);
        Some(spans)
    }

    /// The next question for records, if one can be asked while `storing` answers are not stored.
    fn ask_ranges(&mut self, options: &Options, storing: u64) -> Option<Vec<Span>> {
        let open = self.asked.len() as u64 + storing;
        if !matches!(self.stage, Stage::Fetch) || open >= u64::from(options.chunks_in_flight.max(1)) {
            return None;
        }
        let mut question = Vec::new();
        let mut bytes = 0_u64;
        while bytes < options.chunk_bytes && question.len() < options.compare_spans.max(1) as usize {
            let Some(leaf) = self.leaves.pop_front() else { break };
            bytes = bytes.saturating_add(leaf.count.saturating_mul(RECORD_BYTES));
            question.push(leaf);
        }
        if question.is_empty() {
            return None;
        }
        let spans = question.iter().map(|leaf| leaf.span.clone()).collect();
        self.asked.push_back(question);
        Some(spans)
    }

    /// Puts the ranges to be replaced in order, and makes one of those that touch.
    fn arrange(&mut self) {
        let mut leaves: Vec<Leaf> = std::mem::take(&mut self.leaves).into();
        leaves.sort_by(|a, b| (a.span.table, &a.span.keys.start).cmp(&(b.span.table, &b.span.keys.start)));
        let mut arranged: VecDeque<Leaf> = VecDeque::new();
        for leaf in leaves {
            match arranged.back_mut() {
                Some(last)
                    if last.span.table == leaf.span.table
                        && last.span.keys.end.as_ref() == Some(&leaf.span.keys.start)
                        && last.count.saturating_add(leaf.count) <= LEAF_RECORDS_MAX =>
                {
                    last.span.keys.end = leaf.span.keys.end;
                    last.count = last.count.saturating_add(leaf.count);
                }
                _ => arranged.push_back(leaf),
            }
        }
        self.leaves = arranged;
    }

    /// Replacing too much is right as well, so that the number of ranges, and with it memory, has a bound.
    fn bound(&mut self) {
        if self.leaves.len() <= LEAVES_MAX {
            return;
        }
        self.arrange();
        if self.leaves.len() <= LEAVES_MAX / 2 {
            return;
        }
        let mut paired: VecDeque<Leaf> = VecDeque::with_capacity(LEAVES_MAX);
        for (number, leaf) in std::mem::take(&mut self.leaves).into_iter().enumerate() {
            match paired.back_mut() {
                Some(last) if number % 2 == 1 && last.span.table == leaf.span.table => {
                    last.span.keys.end = leaf.span.keys.end;
                    last.count = last.count.saturating_add(leaf.count);
                }
                _ => paired.push_back(leaf),
            }
        }
        self.leaves = paired;
    }

    /// Takes the answer to a question for parts.
    fn take_parts(&mut self, parts: Parts) -> Result<Vec<Candidate>, End> {
        let Stage::Asked(batch) = std::mem::replace(&mut self.stage, Stage::Ask) else {
            return Err(breach("parts that were not asked for"));
        };
        let all_tables = batch.is_empty();
        if !all_tables && parts.tilings.len() != batch.len() {
            return Err(breach("parts of other ranges than were asked for"));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut batch = batch.into_iter();
        for tiling in parts.tilings {
            let (span, depth) = if all_tables {
                if candidates.last().is_some_and(|last| last.span.table >= tiling.table) {
                    return Err(breach("the tables of a comparison are out of order"));
                }
                (Span::all(tiling.table), 0)
            } else {
                batch.next().unwrap_or((Span::all(tiling.table), 0))
            };
            let of = tiling.of(&span.keys).filter(|_| tiling.table == span.table);
            let of = of.ok_or_else(|| breach("parts that do not make up their range"))?;
            let whole = of.len() == 1;
            candidates.extend(of.into_iter().map(|(span, sum)| Candidate {
                span,
                sum,
                depth: depth + 1,
                whole,
            }));
        }
        Ok(candidates)
    }

    /// Takes the copy's own fingerprints: what is equal is done, the rest is cut further or replaced.
    fn take_sums(&mut self, options: &Options, candidates: Vec<Candidate>, sums: &[[u8; 8]]) {
        let mut differing: Vec<Candidate> = candidates
            .into_iter()
            .enumerate()
            .filter(|(at, candidate)| sums.get(*at) != Some(&candidate.sum.short))
            .filter(|(at, candidate)| {
                // Nothing here: no use in looking for what is equal.
                if sums.get(*at) == Some(&[0; 8]) {
                    self.leaves.push_back(Leaf { span: candidate.span.clone(), count: candidate.sum.count });
                    return false;
                }
                true
            })
            .map(|(_, candidate)| candidate)
            .collect();
        if planted!(options, SkipDifferingRange) && differing.len() > 1 {
            differing.pop();
        }
        for candidate in differing {
            let small = candidate.sum.count <= options.compare_leaf_records;
            if small || candidate.whole || candidate.depth >= DEPTH_MAX {
                self.leaves.push_back(Leaf { span: candidate.span, count: candidate.sum.count });
            } else {
                self.differing.push((candidate.span, candidate.depth));
            }
        }
        self.bound();
        self.stage = Stage::Ask;
    }

    /// Takes the answer to a question for records: the spans that are answered. The rest is asked for again.
    fn take_ranges(&mut self, reply: &RangesReply) -> Result<Vec<Span>, End> {
        let question = self.asked.pop_front().ok_or_else(|| breach("records that were not asked for"))?;
        let done = reply.done as usize;
        if done > question.len() || (done == question.len() && reply.next.is_some()) {
            return Err(breach("more ranges were answered than were asked for"));
        }
        let mut question = question.into_iter();
        let mut answered: Vec<Span> = question.by_ref().take(done).map(|leaf| leaf.span).collect();
        let mut rest: Vec<Leaf> = question.collect();
        if let (Some(next), Some(first)) = (&reply.next, rest.first_mut()) {
            let (told, left) = (first.span.below(next), first.span.from(next));
            let (Some(told), Some(left)) = (told, left) else {
                return Err(breach("an answer that ends outside of its range"));
            };
            answered.push(told);
            first.span = left;
        }
        for leaf in rest.into_iter().rev() {
            self.leaves.push_front(leaf);
        }
        self.replies += 1;
        lie_within(&answered, &reply.records)?;
        Ok(answered)
    }
}

/// Records come by span and key, each within a span.
fn lie_within(spans: &[Span], records: &[Record]) -> Result<(), End> {
    let mut spans = spans.iter();
    let mut span = spans.next();
    let mut last: Option<&Record> = None;
    for record in records {
        while span.is_some_and(|own| !own.holds(record)) {
            span = spans.next();
            last = None;
        }
        if span.is_none() || last.is_some_and(|last| last.key >= record.key) {
            return Err(breach("a record outside of the ranges that were asked for, or out of order"));
        }
        last = Some(record);
    }
    Ok(())
}

impl Replica {
    /// The engine has begun to collect ranges; these are the tables that the copy has.
    pub fn handle_reconcile_begun(&mut self, round: u64, tables: &[TableId], now: Millis) {
        let Some((comparison, _)) = self.comparison(round) else { return };
        let Stage::Beginning(candidates) = std::mem::replace(&mut comparison.stage, Stage::Ask) else {
            return;
        };
        for table in tables {
            let known = candidates.iter().any(|candidate| candidate.span.table == *table);
            if !known {
                // The primary has no such table: what the copy has of it goes.
                comparison.leaves.push_back(Leaf { span: Span::all(*table), count: 0 });
            }
        }
        self.sum(round, candidates);
        self.advance(now);
    }

    /// The copy's own fingerprints of the spans of [`Action::SumSpans`], in short.
    pub fn handle_sums(&mut self, round: u64, sums: &[[u8; 8]], now: Millis) {
        let options = self.options.clone();
        let Some((comparison, _)) = self.comparison(round) else { return };
        let Stage::Summing(candidates) = std::mem::replace(&mut comparison.stage, Stage::Ask) else {
            return;
        };
        comparison.take_sums(&options, candidates, sums);
        self.advance(now);
    }

    /// Asks the engine for the copy's own fingerprints.
    fn sum(&mut self, round: u64, candidates: Vec<Candidate>) {
        self.status.counters.parts += candidates.len() as u64;
        let spans: Vec<Span> = candidates.iter().map(|candidate| candidate.span.clone()).collect();
        if let Some((comparison, _)) = self.comparison(round)
            && !spans.is_empty()
        {
            comparison.stage = Stage::Summing(candidates);
            self.actions.push_back(Action::SumSpans { round, spans });
        }
    }

    pub(super) fn on_parts(&mut self, parts: Parts, now: Millis) -> Result<(), End> {
        let Phase::Refreshing(refresh) = &mut self.phase else {
            return Ok(());
        };
        refresh.read_at(&self.options, parts.snapshot, None)?;
        let (round, base) = (refresh.round, refresh.base());
        let Some(comparison) = &mut refresh.comparison else {
            return Err(breach("parts in a round that compares nothing"));
        };
        let candidates = comparison.take_parts(parts)?;
        if comparison.begun {
            self.sum(round, candidates);
        } else {
            comparison.begun = true;
            comparison.stage = Stage::Beginning(candidates);
            self.actions.push_back(Action::BeginReconcile { round, base });
        }
        self.advance(now);
        Ok(())
    }

    pub(super) fn on_ranges(&mut self, reply: RangesReply, now: Millis) -> Result<(), End> {
        let Phase::Refreshing(refresh) = &mut self.phase else {
            return Ok(());
        };
        if !planted!(self.options, ReplaceAtWrongCut) {
            refresh.read_at(&self.options, reply.snapshot, None)?;
        }
        let (round, base) = (refresh.round, refresh.base());
        let Some(comparison) = &mut refresh.comparison else {
            return Err(breach("records of ranges in a round that compares nothing"));
        };
        let mut spans = comparison.take_ranges(&reply)?;
        let mut records = reply.records;
        let came = records.len();
        // What is newer than the base comes in the live stream, and may only be seen from there on.
        records.retain(|record| record.uid <= base);
        self.status.counters.records_dropped += (came - records.len()) as u64;
        if planted!(self.options, LeaveExtraRecord) {
            spans = records
                .iter()
                .map(|record| Span {
                    table: record.table,
                    keys: KeyRange::inclusive(&record.key, &record.key),
                })
                .collect();
        }
        self.status.counters.ranges += spans.len() as u64;
        let bytes: u64 = records.iter().map(Record::weight).sum();
        self.took(records.len(), bytes);
        self.actions.push_back(Action::StoreRanges { round, spans, records });
        self.advance(now);
        Ok(())
    }

    /// Asks for what can be asked for next.
    pub(super) fn advance_comparison(&mut self) {
        let options = self.options.clone();
        let Phase::Refreshing(refresh) = &self.phase else { return };
        let round = refresh.round;
        let Some((comparison, storing)) = self.comparison(round) else { return };
        let mut messages = Vec::new();
        if let Some(spans) = comparison.ask_parts(&options) {
            messages.push(Message::Compare(Compare { round, spans }));
        }
        while let Some(spans) = comparison.ask_ranges(&options, storing) {
            messages.push(Message::RangesRequest(RangesRequest { round, spans }));
        }
        self.actions.extend(messages.into_iter().map(Action::Send));
    }

    fn comparison(&mut self, round: u64) -> Option<(&mut Comparison, u64)> {
        match &mut self.phase {
            Phase::Refreshing(refresh) if refresh.round == round => {
                let storing = refresh.storing();
                refresh.comparison.as_mut().map(|comparison| (comparison, storing))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
