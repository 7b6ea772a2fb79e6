use planaria_engine::{Column, ColumnType, Schema, Value};

use super::{Filter, is_like, pieces};

fn schema() -> Schema {
    Schema::builder()
        .column(Column::new("id", ColumnType::Int64))
        .column(Column::new("name", ColumnType::Text).nullable())
        .column(Column::new("mass", ColumnType::Float64).nullable())
        .column(Column::new("seen", ColumnType::Date).nullable())
        .column(Column::new("is_rare", ColumnType::Bool).nullable())
        .column(Column::new("other", ColumnType::Int64).nullable())
        .key(["id"])
        .build()
        .unwrap()
}

fn row(id: i64, name: Option<&str>, mass: Option<f64>, rare: Option<bool>) -> Vec<Value> {
    vec![
        Value::Int(id),
        name.map_or(Value::Null, |name| Value::Text(name.into())),
        mass.map_or(Value::Null, Value::Float),
        Value::Date(15_706),
        rare.map_or(Value::Null, Value::Bool),
        Value::Int(3),
    ]
}

#[test]
fn rows_are_told_apart_as_sql_does() {
    let full = row(7, Some("grey heron"), Some(1.5), Some(true));
    let empty = row(-2, None, None, None);
    for (text, wanted) in [
        ("id = 7", (true, false)),
        ("id <> 7", (false, true)),
        ("-2 = id", (false, true)),
        ("5 < id", (true, false)),
        ("id >= 7 and id <= 7", (true, false)),
        ("id between -3 and 0", (false, true)),
        ("id not between -3 and 0", (true, false)),
        ("id in (1, 7)", (true, false)),
        ("id not in (1, 7)", (false, true)),
        ("id not in (1, null)", (false, false)),
        ("name like 'grey%'", (true, false)),
        ("name not like 'grey%'", (false, false)),
        ("name is null", (false, true)),
        ("name is not null", (true, false)),
        ("mass > 1.25", (true, false)),
        ("not mass > 1.25", (false, false)),
        ("mass > 1 or id < 0", (true, true)),
        ("(mass > 1 or id < 0) and not (id = 7)", (false, true)),
        ("seen = date '2013-01-01'", (true, true)),
        ("seen < '2012-12-31'", (false, false)),
        ("is_rare", (true, false)),
        ("not is_rare", (false, false)),
        ("is_rare = true", (true, false)),
        ("other < id", (true, false)),
        ("name = null", (false, false)),
        ("true", (true, true)),
        ("null", (false, false)),
    ] {
        let filter = Filter::parse(&schema(), text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((filter.admits(&full), filter.admits(&empty)), wanted, "{text}");
    }
}

#[test]
fn what_cannot_be_a_condition_is_refused_with_a_reason() {
    for text in [
        "",
        "id =",
        "id = 7; drop table birds",
        "weight > 1",
        "id = 'seven'",
        "id = 1.5",
        "name",
        "5",
        "1 = 1",
        "id + 1 = 2",
        "id like '7%'",
        "other = name",
        "exists (select 1)",
        "name = (select 1)",
        "id in (other)",
        "lower(name) = 'x'",
    ] {
        let error = Filter::parse(&schema(), text).expect_err(text);
        assert!(!error.is_empty(), "{text}");
    }
    let deep = format!("{}true{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(Filter::parse(&schema(), &deep).is_err());
    assert!(Filter::parse(&schema(), &vec!["id = 1"; 5_000].join(" or ")).is_err());
    Filter::parse(&schema(), &vec!["id = 1"; 300].join(" or ")).unwrap();
    let many: Vec<String> = (0..100_000).map(|number| number.to_string()).collect();
    Filter::parse(&schema(), &format!("id in ({})", many.join(", "))).unwrap();
}

#[test]
fn patterns_match_as_like_does() {
    for (text, pattern, wanted) in [
        ("", "", true),
        ("", "%", true),
        ("a", "", false),
        ("heron", "heron", true),
        ("heron", "h%n", true),
        ("heron", "h%r", false),
        ("heron", "_eron", true),
        ("heron", "______", false),
        ("mississippi", "%iss%ip%", true),
        ("mississippi", "%iss%iss%iss%", false),
        ("H\u{f6}hle", "H_hle", true),
    ] {
        assert_eq!(is_like(text, &pieces(pattern)), wanted, "{text:?} like {pattern:?}");
    }
}
