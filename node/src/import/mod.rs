//! Reading tables from CSV and NDJSON: records with their lines, guesses of types, rows of values.
//!
//! Nothing here knows the store; [`crate::load`] brings them there. [`RecordReader`] yields records or errors and goes on after a bad record, so that
//! whoever drives it decides whether to stop or to skip.

mod csv;
mod ndjson;
mod reader;
mod record;
mod sniff;
mod source;
mod typing;

pub(crate) use reader::{InputFormat, ReaderOptions, RecordReader, SAMPLE_RECORDS_DEFAULT};
pub(crate) use record::{Field, Record, RecordError};
pub(crate) use sniff::sniff;
pub(crate) use source::Source;
pub(crate) use typing::{RowParser, TypeChoice, schema_from};
