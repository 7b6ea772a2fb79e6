use std::cell::RefCell;
use std::io::Cursor;
use std::sync::atomic::AtomicBool;

use planaria_engine::{Column, ColumnType, Schema};

use super::{Load, Tally};
use crate::cli::OnDuplicate;
use crate::import::{ReaderOptions, RecordReader, Source};
use crate::load::{ParseOptions, RowEncoder};
use crate::output::CliError;
use crate::session::testing::on_both;
use crate::session::{Session, TableSummary};

fn birds(session: &dyn Session) -> TableSummary {
    let schema = Schema::builder()
        .column(Column::new("id", ColumnType::Int64))
        .column(Column::new("bird", ColumnType::Text).nullable())
        .key(["id"])
        .build()
        .unwrap();
    session.create_table("birds", Some(schema)).unwrap()
}

struct Way {
    batch_rows: usize,
    skips_errors: bool,
    on_duplicate: OnDuplicate,
}

const PLAIN: Way = Way { batch_rows: 2, skips_errors: false, on_duplicate: OnDuplicate::Stop };

fn import(
    session: &dyn Session,
    table: &TableSummary,
    text: &str,
    way: &Way,
) -> (Tally, Result<(), CliError>) {
    let source = Source::new(Cursor::new(text.to_owned()), None).unwrap();
    let reader = RecordReader::new(source, &ReaderOptions::default()).unwrap();
    let encoder = RowEncoder::new(&table.definition, reader.columns()).unwrap();
    let load = Load {
        session,
        table,
        parse: ParseOptions { batch_rows: way.batch_rows, skips_errors: way.skips_errors },
        on_duplicate: way.on_duplicate,
        interrupted: &AtomicBool::new(false),
        watch: &mut |_, _| {},
    };
    load.run(reader, encoder)
}

fn counts(tally: &Tally) -> [u64; 5] {
    [tally.rows, tally.replaced, tally.unchanged, tally.duplicates, tally.skipped]
}

fn rows(session: &dyn Session) -> u64 {
    session.digests(&["birds".to_owned()]).unwrap()[0].1.count
}

fn bird(session: &dyn Session, table: &TableSummary, id: &str) -> String {
    let key = crate::key_text::parse_key(&table.definition, &[id.to_owned()]).unwrap();
    let row = session.get(table, &key).unwrap().unwrap();
    crate::row_view::RowView::new(&table.definition).values(&key, &row).unwrap()[1].to_string()
}

#[test]
fn an_import_that_is_run_again_finds_everything_there() {
    on_both(|session| {
        let table = birds(session);
        let text = "id,bird\n1,heron\n2,\n3,wren\n4,owl\n5,jay\n";
        let (tally, outcome) = import(session, &table, text, &PLAIN);
        outcome.unwrap();
        assert_eq!(counts(&tally), [5, 0, 0, 0, 0]);
        let (tally, outcome) = import(session, &table, text, &PLAIN);
        outcome.unwrap();
        assert_eq!(counts(&tally), [0, 0, 5, 0, 0]);
        assert_eq!(rows(session), 5);
    });
}

#[test]
fn a_bad_record_stops_the_import_behind_the_rows_before_it() {
    on_both(|session| {
        let table = birds(session);
        let (tally, outcome) =
            import(session, &table, "id,bird\n1,heron\n2,owl\n3,wren\nx,jay\n5,crow\n", &PLAIN);
        let error = outcome.unwrap_err();
        assert_eq!((error.code.as_ref(), counts(&tally)), ("schema", [3, 0, 0, 0, 0]));
        assert!(error.what.starts_with("line 5:"), "{error}");
        assert_eq!(error.why.as_deref(), Some("3 rows before it are imported and stay"));
        assert!(error.hint.unwrap().contains("run the same import again"));
        assert_eq!(rows(session), 3);
        let mended = "id,bird\n1,heron\n2,owl\n3,wren\n4,jay\n5,crow\n";
        let (tally, outcome) = import(session, &table, mended, &PLAIN);
        outcome.unwrap();
        assert_eq!(counts(&tally), [2, 0, 3, 0, 0]);
    });
}

#[test]
fn bad_records_are_skipped_on_request() {
    on_both(|session| {
        let table = birds(session);
        let way = Way { skips_errors: true, ..PLAIN };
        let (tally, outcome) = import(session, &table, "id,bird\n1,heron\n2,a,b\nx,y\n,z\n5,crow\n", &way);
        outcome.unwrap();
        assert_eq!(counts(&tally), [2, 0, 0, 0, 3]);
    });
}

#[test]
fn a_duplicate_names_both_of_its_lines() {
    on_both(|session| {
        let table = birds(session);
        for batch_rows in [1, 2, 100] {
            let way = Way { batch_rows, ..PLAIN };
            let (_, outcome) = import(session, &table, "id,bird\n1,heron\n2,owl\n1,wren\n3,jay\n", &way);
            let error = outcome.unwrap_err();
            assert_eq!(error.code, "duplicate_key");
            assert_eq!(error.what, "line 4: the key id=1 is that of line 2, with other contents");
            assert_eq!(rows(session), 2, "what stands before it stays");
        }
        let (_, outcome) = import(session, &table, "id,bird\n9,kite\n1,wren\n", &PLAIN);
        let error = outcome.unwrap_err();
        assert!(error.what.contains("line 3: the key id=1 is in the table already"), "{error}");
    });
}

#[test]
fn duplicates_replace_or_are_left_out_on_request() {
    let text = "id,bird\n1,heron\n2,owl\n1,wren\n1,wren\n1,jay\n3,kite\n";
    for batch_rows in [1, 2, 3, 100] {
        on_both(|session| {
            let table = birds(session);
            let way = Way { batch_rows, on_duplicate: OnDuplicate::Skip, ..PLAIN };
            let (tally, outcome) = import(session, &table, text, &way);
            outcome.unwrap();
            assert_eq!(counts(&tally), [3, 0, 0, 3, 0]);
            assert_eq!(bird(session, &table, "1"), "heron");
            let way = Way { on_duplicate: OnDuplicate::Replace, ..way };
            let (tally, outcome) = import(session, &table, text, &way);
            outcome.unwrap();
            assert_eq!(counts(&tally), [0, 2, 4, 0, 0]);
            assert_eq!(bird(session, &table, "1"), "jay");
        });
    }
}

#[test]
fn an_interrupted_import_says_how_to_go_on() {
    on_both(|session| {
        let table = birds(session);
        let text: String = (0..100).fold("id,bird\n".to_owned(), |text, id| text + &format!("{id},heron\n"));
        let source = Source::new(Cursor::new(text.clone()), None).unwrap();
        let reader = RecordReader::new(source, &ReaderOptions::default()).unwrap();
        let encoder = RowEncoder::new(&table.definition, reader.columns()).unwrap();
        let interrupted = AtomicBool::new(false);
        let seen = RefCell::new(0);
        let load = Load {
            session,
            table: &table,
            parse: ParseOptions { batch_rows: 10, skips_errors: false },
            on_duplicate: OnDuplicate::Stop,
            interrupted: &interrupted,
            watch: &mut |tally, _| {
                *seen.borrow_mut() = tally.rows;
                interrupted.store(tally.rows == 30, std::sync::atomic::Ordering::Relaxed);
            },
        };
        let (tally, outcome) = load.run(reader, encoder);
        let error = outcome.unwrap_err();
        assert_eq!((error.code.as_ref(), tally.rows, rows(session)), ("interrupted", 30, 30));
        assert!(error.why.unwrap().contains("30 rows"));
        let (tally, outcome) = import(session, &table, &text, &PLAIN);
        outcome.unwrap();
        assert_eq!(counts(&tally), [70, 0, 30, 0, 0]);
    });
}

#[test]
fn a_raw_table_takes_keys_and_rows() {
    on_both(|session| {
        let table = session.create_table("birds", None).unwrap();
        let (tally, outcome) = import(session, &table, "row,key\n0xcafe,a\n,0x00ff\n", &PLAIN);
        outcome.unwrap();
        assert_eq!(counts(&tally), [2, 0, 0, 0, 0]);
        assert_eq!(session.get(&table, b"a").unwrap().unwrap(), &[0xca, 0xfe][..]);
        assert_eq!(session.get(&table, &[0, 0xff]).unwrap().unwrap(), &b""[..]);
        assert!(RowEncoder::new(&table.definition, &["key".to_owned()]).is_err());
    });
}
