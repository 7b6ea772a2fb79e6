//! What a session serves of a reconcile: parts with their fingerprints, and the records of ranges that differ.

use std::collections::VecDeque;

use planaria_types::Uid;

use super::action::{PartsRead, RangesRead, SessionAction};
use super::serve::Stop;
use crate::{Options, Parts, RangesReply, Reason, Span};

/// Questions for records that may wait.
const QUESTIONS_MAX: usize = 64;

/// A comparison under way. It remembers questions, not what was answered: the secondary asks for the rest.
#[derive(Debug)]
pub(super) struct CompareServing {
    at_least: Uid,
    pinned: bool,
    parts: Question,
    ranges: VecDeque<Vec<Span>>,
    reading_ranges: bool,
}

/// The one question for parts that may be open.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    None,
    Asked(Vec<Span>),
    Reading,
}

impl CompareServing {
    pub(super) fn new(at_least: Uid, pinned: bool) -> Self {
        Self { at_least, pinned, parts: Question::None, ranges: VecDeque::new(), reading_ranges: false }
    }

    /// Takes a question for parts; false if one is open.
    pub(super) fn ask_parts(&mut self, spans: Vec<Span>) -> bool {
        let free = self.parts == Question::None;
        if free {
            self.parts = Question::Asked(spans);
        }
        free
    }

    /// Takes a question for records; false if too many are open.
    pub(super) fn ask_ranges(&mut self, spans: Vec<Span>) -> bool {
        let free = self.ranges.len() < QUESTIONS_MAX;
        if free {
            self.ranges.push_back(spans);
        }
        free
    }

    pub(super) fn poll(&mut self, options: &Options, round: u64) -> Option<SessionAction> {
        let (at_least, pinned) = (self.at_least, self.pinned);
        if let Question::Asked(spans) = &mut self.parts {
            let spans = std::mem::take(spans);
            self.parts = Question::Reading;
            let parts = if spans.is_empty() { options.compare_first_parts } else { options.compare_parts };
            return Some(SessionAction::ReadParts { round, spans, parts, at_least, pinned });
        }
        if self.reading_ranges {
            return None;
        }
        let spans = self.ranges.pop_front()?;
        self.reading_ranges = true;
        let bytes_max = options.chunk_bytes;
        Some(SessionAction::ReadRanges { round, spans, at_least, pinned, bytes_max })
    }

    pub(super) fn take_parts(&mut self, round: u64, read: PartsRead) -> Result<Parts, Stop> {
        self.parts = Question::None;
        let PartsRead::Parts { snapshot, tilings } = read else {
            return Err(Ok(Reason::PinExpired));
        };
        if snapshot < self.at_least {
            return Err(Err("parts were read at too old a snapshot"));
        }
        Ok(Parts { round, snapshot, tilings })
    }

    pub(super) fn take_ranges(&mut self, round: u64, read: RangesRead) -> Result<RangesReply, Stop> {
        self.reading_ranges = false;
        let RangesRead::Ranges { snapshot, done, next, records } = read else {
            return Err(Ok(Reason::PinExpired));
        };
        if snapshot < self.at_least {
            return Err(Err("ranges were read at too old a snapshot"));
        }
        Ok(RangesReply { round, snapshot, done, next, records })
    }
}
