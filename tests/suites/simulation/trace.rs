//! What happened: the last lines for people, all of it as a hash, and how often.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Lines that are kept, unless `PLANARIA_TRACE` says how many.
const LINES_MAX: u64 = 250;

/// The last lines of a run, and a hash over all of them.
#[derive(Default)]
pub(crate) struct Trace {
    lines: VecDeque<String>,
    hasher: DefaultHasher,
    lines_max: Option<usize>,
}

impl Trace {
    pub(crate) fn note(&mut self, step: u64, now: u64, what: fmt::Arguments<'_>) {
        let line = format!("{step:>6} {now:>7} ms  {what}");
        line.hash(&mut self.hasher);
        let most = *self
            .lines_max
            .get_or_insert_with(|| crate::number("PLANARIA_TRACE").unwrap_or(LINES_MAX) as usize);
        if self.lines.len() >= most {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn lines(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}

macro_rules! coverage {
    ($(#[$about:meta])* $counts:ident: $($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $(#[$about])*
        #[derive(Default, Clone, Debug)]
        pub(crate) struct $counts {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        impl $counts {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// What did not happen at all.
            pub(crate) fn never(&self) -> Vec<&'static str> {
                let counts = [$((self.$name, stringify!($name)),)*];
                counts.into_iter().filter(|(count, _)| *count == 0).map(|(_, name)| name).collect()
            }
        }
    };
}

coverage! {
    /// How often things happened, to show that a run reaches what it is to test.
    Coverage:
    steps,
    simulated_ms,
    commits,
    commits_of_the_store,
    acknowledged,
    crashes,
    crashes_within_a_call,
    crashes_while_opening,
    power_cuts,
    clean_stops,
    wiped,
    disk_faults,
    full_disks,
    clock_jumps,
    cuts,
    partitions,
    tails,
    deltas,
    long_logs,
    hops,
    bulks,
    reconciles,
    pinned_reconciles,
    reconciles_asked,
    ranges_replaced,
    deltas_resumed,
    deltas_inherited,
    ranges_inherited,
    reconciled,
    again,
    take_backs,
    bulk_chunks,
    bulk_resumed,
    bulk_broken,
    bulk_installed,
    commits_lost,
    sparse_copies,
    splits,
    marks_dropped,
    failed_actions,
    contents_compared,
}

coverage! {
    /// The same for worlds in which the lead changes hands.
    Moves:
    promotions,
    promotions_refused,
    hand_overs,
    late,
    promises,
    lost_questions,
    lost_answers,
    deposed,
    stray_starts,
    stray_commits,
    rejoined,
    pauses,
    protected,
    retried,
    known_by_token,
    quarantines,
    taken_back,
    rewinds,
}
