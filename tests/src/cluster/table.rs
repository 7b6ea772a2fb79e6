use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use super::{Random, Site};

/// A CSV file of sightings, the same for the same numbers: an id, a place, a count and a remark a row.
#[derive(Clone, Debug)]
pub struct TableFile {
    /// The file.
    pub path: PathBuf,
    /// The table that it is imported into.
    pub table: String,
    /// The columns of its key.
    pub key: String,
    /// Its rows.
    pub rows: u64,
}

impl TableFile {
    /// Writes a file of `rows` rows. `remark` gives the remark of a row, or none where the row is left out.
    pub fn write(site: &Site, name: &str, rows: u64, remark: impl Fn(u64) -> Option<String>) -> Self {
        let path = site.path(name);
        let mut out = BufWriter::new(File::create(&path).expect("a new file"));
        writeln!(out, "id,place,birds,remark").expect("room for a file");
        let mut random = Random::new(1);
        let mut written = 0;
        for id in 0..rows {
            let (place, birds) = (random.below(10_000), random.below(1_000));
            if let Some(remark) = remark(id) {
                writeln!(out, "{id},place-{place:05},{birds},{remark}").expect("room for a file");
                written += 1;
            }
        }
        out.flush().expect("room for a file");
        Self { path, table: "sightings".to_owned(), key: "id".to_owned(), rows: written }
    }

    /// A file with a remark of some length in each row.
    pub fn sightings(site: &Site, rows: u64) -> Self {
        Self::sightings_in(site, "sightings.csv", rows)
    }

    /// The same in a file of that name: fewer rows are the first of more.
    pub fn sightings_in(site: &Site, name: &str, rows: u64) -> Self {
        Self::write(site, name, rows, |id| Some(format!("seen {:016x}", Random::new(id).number())))
    }

    /// The large table of flights of the Bureau of Transportation Statistics, if `PLANARIA_FLIGHTS` names its file;
    /// sightings otherwise.
    pub fn large(site: &Site, rows: u64) -> Self {
        let Some(path) = std::env::var_os("PLANARIA_FLIGHTS") else { return Self::sightings(site, rows) };
        Self {
            path: path.into(),
            table: "flights".to_owned(),
            key: "year,month,day,carrier,flight,origin".to_owned(),
            rows: 336_776,
        }
    }

    /// The same file, to be imported into another table.
    #[must_use]
    pub fn into_table(&self, table: &str) -> Self {
        Self { table: table.to_owned(), ..self.clone() }
    }

    /// The command that imports it.
    pub fn import(&self) -> Vec<String> {
        let path = self.path.display().to_string();
        ["import", &path, "--table", &self.table, "--key", &self.key, "--null", "NA"]
            .map(str::to_owned)
            .to_vec()
    }
}
