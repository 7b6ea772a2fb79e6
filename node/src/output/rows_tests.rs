use planaria_engine::Value;

use super::{Format, Heading, RowWriter, TABLE_ROWS_HELD, Target};

fn written(target: Target, null_text: &str, rows: &[Vec<Value>]) -> String {
    let headings = vec![Heading::text("origin"), Heading::number("temp")];
    let mut writer = RowWriter::new(Vec::new(), target, headings, null_text).unwrap();
    for row in rows {
        writer.write(row).unwrap();
    }
    let (count, out) = writer.finish().unwrap();
    assert_eq!(count, rows.len() as u64);
    String::from_utf8(out).unwrap()
}

fn piped(format: Format) -> Target {
    Target { format, terminal_width: None }
}

fn weather() -> Vec<Vec<Value>> {
    vec![
        vec!["EWR".into(), Value::Float(39.02)],
        vec!["Laguardia".into(), Value::Null],
        vec!["a \"b\", c".into(), Value::Float(-4.0)],
    ]
}

#[test]
fn json_is_one_object_a_line() {
    assert_eq!(
        written(piped(Format::Json), "", &weather()),
        "{\"origin\":\"EWR\",\"temp\":39.02}\n{\"origin\":\"Laguardia\",\"temp\":null}\n{\"origin\":\"a \\\"b\\\", c\",\"temp\":-4.0}\n"
    );
}

#[test]
fn csv_tells_an_empty_text_from_no_value() {
    assert_eq!(
        written(piped(Format::Csv), "NA", &weather()),
        "origin,temp\nEWR,39.02\nLaguardia,NA\n\"a \"\"b\"\", c\",-4\n"
    );
    let rows = [vec!["".into(), Value::Null], vec!["NA".into(), Value::Null]];
    assert_eq!(written(piped(Format::Csv), "", &rows), "origin,temp\n\"\",\nNA,\n");
    assert_eq!(written(piped(Format::Csv), "NA", &rows), "origin,temp\n,NA\n\"NA\",NA\n");
}

#[test]
fn a_piped_table_is_plain_and_aligned() {
    assert_eq!(
        written(piped(Format::Table), "", &weather()),
        "origin      temp\nEWR        39.02\nLaguardia   null\na \"b\", c      -4\n"
    );
    assert_eq!(written(piped(Format::Table), "", &[]), "origin  temp\n");
}

#[test]
fn a_table_on_a_terminal_fits_its_width() {
    let rows = [vec![Value::Text("word ".repeat(30)), Value::Float(1.0)]];
    let shown = written(Target { format: Format::Table, terminal_width: Some(40) }, "", &rows);
    assert!(shown.lines().count() > 2, "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 40), "{shown}");
}

#[test]
fn data_cannot_steer_the_terminal_or_break_a_line() {
    let shown = written(piped(Format::Table), "", &[vec!["\u{1b}[31m\nx".into(), Value::Null]]);
    assert_eq!(shown.lines().count(), 2);
    assert!(shown.contains("\\u{1b}[31m\\nx"), "{shown}");
}

#[test]
fn a_long_table_goes_on_with_the_widths_of_its_first_rows() {
    for terminal_width in [None, Some(60)] {
        let mut rows = vec![vec![Value::from("EWR"), Value::Float(39.02)]; TABLE_ROWS_HELD + 5];
        rows[3][0] = "Laguardia".into();
        let shown = written(Target { format: Format::Table, terminal_width }, "", &rows);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), rows.len() + 1);
        assert_eq!(lines.iter().filter(|line| line.starts_with("origin")).count(), 1);
        assert_eq!(lines[1], lines[TABLE_ROWS_HELD + 3]);
        rows[TABLE_ROWS_HELD + 1][0] = "a name that is far too long for the column".into();
        let shown = written(Target { format: Format::Table, terminal_width: None }, "", &rows);
        assert_eq!(shown.lines().count(), rows.len() + 1);
        assert!(shown.contains("a name that is far too long for the column"));
    }
}
