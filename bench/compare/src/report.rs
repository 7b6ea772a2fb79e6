use std::collections::BTreeMap;

use crate::workload::{Figure, Unit};

/// What was measured in all rounds: for each workload, for each store, one value a round.
#[derive(Default)]
pub(crate) struct Report {
    /// In the order in which they were first met.
    rows: Vec<Row>,
}

struct Row {
    workload: String,
    unit: Unit,
    values: BTreeMap<String, Vec<f64>>,
}

impl Row {
    fn median(&self, store: &str) -> Option<f64> {
        let mut values = self.values.get(store)?.clone();
        values.sort_by(f64::total_cmp);
        values.get((values.len() - 1) / 2).copied()
    }

    fn best(&self) -> Option<f64> {
        let medians = self.values.keys().filter_map(|store| self.median(store));
        match self.unit {
            Unit::PerSecond => medians.max_by(f64::total_cmp),
            Unit::Seconds | Unit::Bytes => medians.min_by(f64::total_cmp),
        }
    }

    /// How many times worse than the best a store is; 1 for the best.
    fn ratio(&self, store: &str) -> Option<f64> {
        let (own, best) = (self.median(store)?, self.best()?);
        Some(if self.unit == Unit::PerSecond { best / own } else { own / best })
    }
}

impl Report {
    pub(crate) fn add(&mut self, store: &str, figures: Vec<Figure>) {
        for Figure { workload, value, unit } in figures {
            let at = self.rows.iter().position(|row| row.workload == workload).unwrap_or_else(|| {
                self.rows.push(Row { workload, unit, values: BTreeMap::new() });
                self.rows.len() - 1
            });
            self.rows[at].values.entry(store.into()).or_default().push(value);
        }
    }

    /// A table in Markdown: medians, and in brackets how many times worse than the best.
    pub(crate) fn table(&self, stores: &[&str]) -> String {
        let mut lines = vec![
            format!("| workload | {} |", stores.join(" | ")),
            format!("|---|{}", "---|".repeat(stores.len())),
        ];
        for row in &self.rows {
            let cells: Vec<_> = stores.iter().map(|store| cell(row, store)).collect();
            lines.push(format!("| {} | {} |", row.workload, cells.join(" | ")));
        }
        lines.join("\n")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|row| {
            let stores = row.values.iter().map(|(store, values)| {
                let entry = serde_json::json!({
                    "median": row.median(store),
                    "times_worse_than_best": row.ratio(store),
                    "values": values,
                });
                (store.clone(), entry)
            });
            serde_json::json!({
                "workload": row.workload,
                "unit": row.unit,
                "stores": serde_json::Value::Object(stores.collect()),
            })
        });
        serde_json::Value::Array(rows.collect())
    }
}

fn cell(row: &Row, store: &str) -> String {
    match (row.median(store), row.ratio(store)) {
        (Some(value), Some(ratio)) if ratio <= 1.0 => format!("**{}**", human(value, row.unit)),
        (Some(value), Some(ratio)) => format!("{} ({ratio:.2})", human(value, row.unit)),
        _ => "–".into(),
    }
}

fn human(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
        Unit::PerSecond if value >= 1e4 => format!("{:.0} k/s", value / 1e3),
        Unit::PerSecond => format!("{:.1} k/s", value / 1e3),
        Unit::Seconds if value < 1.0 => format!("{:.2} ms", value * 1e3),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Bytes => format!("{:.0} MB", value / 1e6),
    }
}
