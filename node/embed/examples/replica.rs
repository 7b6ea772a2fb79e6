//! A copy of a node's database in this process: reads are local, writes go to the node.

use planaria::Database;
use planaria::replica::{ReplicaError, ReplicaOf};

fn main() -> Result<(), ReplicaError> {
    let replica = Database::replica_of("127.0.0.1:4747").open("birds-here")?;
    let seen = replica.table("seen")?;
    let written = seen.insert(&["pond".into(), "heron".into()])?; // on the primary's disk when it returns
    replica.wait_for(written, std::time::Duration::from_secs(5))?; // and on this one's
    for row in seen.rows(&[])? {
        println!("{:?}", row?);
    }
    Ok(())
}
