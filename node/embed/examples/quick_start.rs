//! A database inside this process. It makes the directory `birds` where it is run.

use planaria::{Column, ColumnType, Database, Schema};

fn main() -> Result<(), planaria::Error> {
    let db = Database::open("birds")?;
    let place = Column::new("place", ColumnType::Text);
    let bird = Column::new("bird", ColumnType::Text);
    let schema = Schema::builder().column(place).column(bird).key(["place"]).build()?;
    let seen = db.table("seen").or_else(|_| db.create_table("seen", schema))?;
    seen.insert(&["pond".into(), "heron".into()])?; // on the disk when it returns
    for row in seen.rows(&[])? {
        println!("{:?}", row?);
    }
    Ok(())
}
