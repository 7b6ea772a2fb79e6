//! What must hold of arbitrary bytes that a store gives.

use planaria_engine::{Database, Options};

use crate::contents::Contents;
use crate::error::Result;
use crate::manifest::{Backup, sample};
use crate::plan::{AsOf, plan};

/// A manifest, or a list of files: refused, or the same after being encoded again, and safe to plan with.
pub fn backup(bytes: &[u8]) {
    if let Ok(backup) = Backup::decode("it", bytes) {
        let again = backup.encode().and_then(|bytes| Backup::decode("again", &bytes));
        assert_eq!(again.ok().as_ref(), Some(&backup));
        let commits = backup.log.iter().map(|segment| AsOf::Commit(segment.upto));
        for as_of in [AsOf::Backup, AsOf::Time(backup.taken_ms)].into_iter().chain(commits) {
            if let Ok(plan) = plan(&[&backup], None, as_of) {
                assert!(plan.base.position.uid <= plan.upto || as_of == AsOf::Backup);
            }
        }
    }
    if let Ok(contents) = Contents::decode("it", bytes) {
        let again = contents.encode().and_then(|bytes| Contents::decode("again", &bytes));
        assert_eq!(again.ok().as_ref(), Some(&contents));
        for part in contents.parts() {
            assert!(part.len <= crate::object::PART_BYTES);
        }
        // Whatever the segments say, they are put together or refused.
        let _ = contents.list.continued(&contents.log, &contents.list);
    }
}

/// Sound inputs to begin from.
pub fn samples() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let os = planaria_engine::os::MemOs::new(1);
    let options = Options { background: false, os: std::sync::Arc::new(os), ..Options::default() };
    let options = Options { log_segment_bytes: 64 << 10, log_bytes_max: 64 << 10, ..options };
    let db = Database::open_with("/db", options)?;
    db.create_raw_table("t")?.put("key", "row")?;
    let pin = db.pin_files()?;
    let contents = Contents { list: pin.list().clone(), log: pin.log().to_vec() };
    Ok(vec![("backup", sample().encode()?), ("backup", contents.encode()?)])
}
