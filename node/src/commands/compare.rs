//! `planaria verify --against`: two databases are compared by the fingerprints of their ranges, from the top down.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use planaria_engine::TableDef;
use planaria_replication::{PartSum, Span};
use planaria_types::{DatabaseId, KeyRange, Portion, TableId, Uid};

use super::{stdout, target};
use crate::cli::Global;
use crate::compare::KeySum;
use crate::key_text::{format_key, format_raw};
use crate::output::{Cell, CliError, Heading, RowWriter};
use crate::session::{IfAbsent, Place, Session};

/// Parts that all tables are cut into, each, for the first question.
const FIRST_PARTS: u32 = 512;
/// Parts that a range which differs is cut into after that.
const PARTS: u32 = 8;
/// Ranges of one question.
const SPANS_MAX: usize = 512;
/// A part with no more records than this is compared record by record.
const LEAF_RECORDS: u64 = 32;
/// Deeper than this no range is cut.
const DEPTH_MAX: u32 = 64;
/// Records that are listed.
const LISTED_MAX: usize = 1_000;

/// A record that differs.
struct Difference {
    table: TableId,
    key: Bytes,
    what: &'static str,
    here: Option<Uid>,
    there: Option<Uid>,
}

/// Two sides at one position.
struct Pair {
    here: Box<dyn Session>,
    there: Box<dyn Session>,
    at: Uid,
    /// What both hold, where one of them is partial.
    held: Option<Vec<Span>>,
}

/// Compares a place with a node, lists what differs, and fails if something does.
pub(super) fn compare(global: &Global, place: &Place, against: &str, repair: bool) -> Result<(), CliError> {
    let other = Place::Node { address: against.to_owned(), tls: global.tls.clone(), database: None };
    let (here, there) = (place.open(IfAbsent::Fail)?, other.open(IfAbsent::Fail)?);
    let foreign = foreign(&*here, &*there)?;
    if let Some(theirs) = foreign.filter(|_| repair) {
        let what =
            format!("{against} has another database, {theirs}: what differs there repairs nothing here");
        return Err(
            CliError::new("foreign_database", what).hint("compare with another copy of the same database")
        );
    }
    if repair {
        check_files(&*here)?;
    }
    let names: BTreeMap<TableId, TableDef> = [here.tables()?, there.tables()?]
        .concat()
        .into_iter()
        .map(|table| (table.definition.id, table.definition))
        .collect();
    let held = held_by_both(&*here, &*there, &names)?;
    let pair = Pair::at_one_position(here, there, held)?;
    let (differences, ranges) = pair.differences().map_err(|error| unreadable(error, place, against))?;
    let headings = ["table", "key", "difference", "here", "there"].map(Heading::text).into();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for difference in differences.iter().take(LISTED_MAX) {
        let definition = names.get(&difference.table);
        let uid = |uid: Option<Uid>| uid.map_or_else(String::new, |uid| uid.to_string());
        rows.write(&[
            Cell::Text(table_name(definition, difference.table)),
            Cell::Text(key_text(definition, &difference.key)),
            Cell::Text(difference.what.to_owned()),
            Cell::Text(uid(difference.here)),
            Cell::Text(uid(difference.there)),
        ])?;
    }
    rows.finish()?;
    if differences.is_empty() {
        return Ok(());
    }
    let what = format!(
        "{} and {against} differ at {}: {} records in {ranges} ranges",
        place.argument(),
        pair.at,
        differences.len()
    );
    if repair {
        let info = pair.here.refresh(false, Some("reconcile"))?;
        return Err(CliError::new("differs", what).because(format!(
            "a {} was begun, which moves about {} bytes; compare again when the secondary is online",
            info.way, info.bytes
        )));
    }
    let hint = match foreign {
        Some(theirs) => format!("{against} has another database, {theirs}"),
        None => "on a secondary, --repair replaces what differs by what its primary has".to_owned(),
    };
    Err(CliError::new("differs", what).hint(hint))
}

/// The other side's database, if it is another one: a clone, or a restored backup. Its records may be compared, and yet nobody repairs
/// one by the other.
fn foreign(here: &dyn Session, there: &dyn Session) -> Result<Option<DatabaseId>, CliError> {
    let of = |session: &dyn Session| -> Result<_, CliError> {
        Ok(session.status()?.databases.into_iter().next().map(|database| database.database))
    };
    let ours = of(here)?;
    Ok(of(there)?.filter(|theirs| ours.is_some_and(|ours| ours != *theirs)))
}

/// Reads the files of a secondary that is to be repaired: fingerprints of ranges do not tell whether the records behind them can be read.
/// What is damaged is taken anew.
fn check_files(here: &dyn Session) -> Result<(), CliError> {
    let Some(damage) = here.verify()?.damage.into_iter().next() else { return Ok(()) };
    let info = here.refresh(false, Some("bulk"))?;
    Err(CliError::new("damaged", damage).because(format!(
        "its run files are taken anew, about {} bytes; compare again when the secondary is online",
        info.bytes
    )))
}

/// Where a side cannot read what it has, the ranges cannot be compared.
fn unreadable(error: CliError, place: &Place, against: &str) -> CliError {
    if error.code != "damaged" {
        return error;
    }
    error.hint(format!(
        "a secondary that cannot read its files takes them anew by `planaria verify --repair`, on whichever of {} and {against} it is",
        place.argument()
    ))
}

/// What both sides hold, and what the database says of itself; none if both hold everything.
fn held_by_both(
    here: &dyn Session,
    there: &dyn Session,
    tables: &BTreeMap<TableId, TableDef>,
) -> Result<Option<Vec<Span>>, CliError> {
    let portion = |session: &dyn Session| -> Result<Option<Portion>, CliError> {
        Ok(session.status()?.databases.into_iter().next().and_then(|database| database.portion))
    };
    let portion = match (portion(here)?, portion(there)?) {
        (None, None) => return Ok(None),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(ours), Some(theirs)) => ours.intersect(&theirs),
    };
    let span = |(name, keys): (&str, &KeyRange)| {
        let table = tables.values().find(|table| table.name == name)?;
        Some(Span { table: table.id, keys: keys.clone() })
    };
    let system = Span::all(TableId::SYSTEM);
    Ok(Some(std::iter::once(system).chain(portion.tables().filter_map(span)).collect()))
}

fn table_name(definition: Option<&TableDef>, id: TableId) -> String {
    match definition {
        Some(known) => known.name.clone(),
        None if id == TableId::SYSTEM => "(system)".to_owned(),
        None => format!("#{id}"),
    }
}

/// A key as people write it, or as bytes.
fn key_text(definition: Option<&TableDef>, key: &[u8]) -> String {
    let typed = definition.and_then(|definition| format_key(definition, key).ok());
    typed.map_or_else(|| format_raw(key), |values| values.join(" "))
}

impl Pair {
    /// Finds a cut that both sides can read: the lower of the two newest.
    fn at_one_position(
        here: Box<dyn Session>,
        there: Box<dyn Session>,
        held: Option<Vec<Span>>,
    ) -> Result<Self, CliError> {
        let nothing = [Span { table: TableId::SYSTEM, keys: KeyRange::ALL }];
        let ours = here.parts(None, &nothing, 1)?.0;
        let theirs = there.parts(None, &nothing, 1)?.0;
        Ok(Self { here, there, at: ours.min(theirs), held })
    }

    /// The records that differ, and in how many ranges they lie.
    fn differences(&self) -> Result<(Vec<Difference>, usize), CliError> {
        let mut open: Vec<(Span, u32)> = Vec::new();
        let mut leaves = Vec::new();
        let first = match &self.held {
            None => {
                let first = self.parts_here(&[], FIRST_PARTS)?;
                let known: BTreeSet<TableId> = first.iter().map(|(span, ..)| span.table).collect();
                let others = self.there.parts(Some(self.at), &[], 1)?.1;
                let unknown = others.iter().map(|tiling| tiling.table).filter(|table| !known.contains(table));
                leaves.extend(unknown.map(Span::all));
                first
            }
            Some(held) => {
                let mut first = Vec::new();
                // One by one: one answer tells of so many parts.
                for span in held {
                    first.extend(self.parts_here(std::slice::from_ref(span), FIRST_PARTS)?);
                }
                first
            }
        };
        self.sort(&first, 0, &mut open, &mut leaves)?;
        while !open.is_empty() {
            let batch = open.split_off(open.len().saturating_sub(SPANS_MAX));
            let depth = batch.iter().map(|(_, depth)| *depth).max().unwrap_or(0);
            let spans: Vec<Span> = batch.into_iter().map(|(span, _)| span).collect();
            let parts = self.parts_here(&spans, PARTS)?;
            self.sort(&parts, depth, &mut open, &mut leaves)?;
        }
        let mut differences = Vec::new();
        let mut ranges = 0;
        for span in leaves {
            let before = differences.len();
            self.differences_in(&span, &mut differences)?;
            ranges += usize::from(differences.len() > before);
        }
        differences.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        Ok((differences, ranges))
    }

    /// The parts of spans here, what they hold, and whether a span is one part.
    fn parts_here(&self, spans: &[Span], parts: u32) -> Result<Vec<(Span, PartSum, bool)>, CliError> {
        let tilings = self.here.parts(Some(self.at), spans, parts)?.1;
        let mut all = Vec::new();
        for (number, tiling) in tilings.iter().enumerate() {
            let keys = spans.get(number).map_or(KeyRange::ALL, |span| span.keys.clone());
            let of = tiling.of(&keys).ok_or_else(|| {
                CliError::new("protocol", "the parts of a range do not make it up")
                    .hint("check that both sides are of the same release")
            })?;
            let whole = of.len() == 1;
            all.extend(of.into_iter().map(|(span, sum)| (span, sum, whole)));
        }
        Ok(all)
    }

    /// Compares parts with the other side, and sorts those that differ into large and small ones.
    fn sort(
        &self,
        parts: &[(Span, PartSum, bool)],
        depth: u32,
        open: &mut Vec<(Span, u32)>,
        leaves: &mut Vec<Span>,
    ) -> Result<(), CliError> {
        for chunk in parts.chunks(SPANS_MAX) {
            let spans: Vec<Span> = chunk.iter().map(|(span, ..)| span.clone()).collect();
            let theirs = self.there.parts(Some(self.at), &spans, 1)?.1;
            for (number, (span, sum, whole)) in chunk.iter().enumerate() {
                let other = theirs.get(number).and_then(|tiling| tiling.sums.first());
                if other.is_some_and(|other| other.short == sum.short) {
                    continue;
                }
                let most = other.map_or(sum.count, |other| other.count.max(sum.count));
                if *whole || most <= LEAF_RECORDS || depth >= DEPTH_MAX {
                    leaves.push(span.clone());
                } else {
                    open.push((span.clone(), depth + 1));
                }
            }
        }
        Ok(())
    }

    /// Compares the records of a span.
    fn differences_in(&self, span: &Span, differences: &mut Vec<Difference>) -> Result<(), CliError> {
        let by_key = |keys: Vec<KeySum>| -> BTreeMap<Bytes, (Uid, [u8; 8])> {
            keys.into_iter().map(|(key, uid, sum)| (key, (uid, sum))).collect()
        };
        let mut rest = Some(span.clone());
        while let Some(span) = rest {
            let (ours, more_here) = self.here.keys(self.at, &span)?;
            let (theirs, more_there) = self.there.keys(self.at, &span)?;
            // What only one side told of is compared with the next answers.
            let last =
                |keys: &[KeySum], more: bool| keys.last().filter(|_| more).map(|(key, ..)| key.clone());
            let end = [last(&ours, more_here), last(&theirs, more_there)].into_iter().flatten().min();
            let (ours, mut theirs) = (by_key(ours), by_key(theirs));
            let inside = |key: &Bytes| end.as_ref().is_none_or(|end| key <= end);
            for (key, (uid, sum)) in ours.into_iter().filter(|(key, _)| inside(key)) {
                let other = theirs.remove(&key);
                let what = match other {
                    Some((_, same)) if same == sum => continue,
                    Some(_) => "differs",
                    None => "only here",
                };
                let there = other.map(|(uid, _)| uid);
                differences.push(Difference { table: span.table, key, what, here: Some(uid), there });
            }
            for (key, (uid, _)) in theirs.into_iter().filter(|(key, _)| inside(key)) {
                let (here, there) = (None, Some(uid));
                differences.push(Difference { table: span.table, key, what: "only there", here, there });
            }
            rest = end.and_then(|end| {
                let next = KeyRange::new([&end[..], &[0]].concat(), span.keys.end.clone());
                (!next.is_empty()).then_some(Span { table: span.table, keys: next })
            });
        }
        Ok(())
    }
}
