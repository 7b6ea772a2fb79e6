use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CloneRole;
use crate::error::Result;
use crate::os::Os;
use crate::sealed::SealedFile;
use crate::sync::Arc;

/// The file within a clone's directory.
const ABOUT: &str = "ABOUT";
const FORMAT: SealedFile = SealedFile { magic: *b"PLNRCLON", version: 1, bytes_max: 64 << 10 };

/// What a clone was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum ClonePurpose {
    /// A database of its own.
    #[default]
    Detached,
    /// A secondary that follows the primary.
    Standby,
    /// A copy to take clones from.
    Backup,
}

impl ClonePurpose {
    /// What it is to the store.
    pub fn role(self) -> CloneRole {
        match self {
            Self::Detached => CloneRole::Detached,
            Self::Standby | Self::Backup => CloneRole::Secondary,
        }
    }
}

/// What a clone says of itself, wherever it is carried to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloneAbout {
    /// What it is called.
    pub name: String,
    /// What it was made for, or what it has become since.
    pub purpose: ClonePurpose,
    /// Where it was taken from, for people.
    pub source: String,
    /// When it was complete, in milliseconds since 1970.
    pub made_ms: u64,
    /// When its life ends, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

impl CloneAbout {
    /// What the clone in `dir` says of itself; nothing if it was never told.
    ///
    /// # Errors
    ///
    /// `Damaged` or `Foreign` if the file is not what was written.
    pub fn read(os: &Arc<dyn Os>, dir: &Path) -> Result<Option<Self>> {
        FORMAT.read(os, &dir.join(ABOUT))
    }

    /// Has the clone in `dir` say this of itself, durably.
    ///
    /// # Errors
    ///
    /// `Io` and `NoSpace`.
    pub fn write(&self, os: &Arc<dyn Os>, dir: &Path) -> Result<()> {
        FORMAT.write(os, &dir.join(ABOUT), self)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::os::{MemOs, OpenMode};

    #[test]
    fn it_says_what_it_was_told_in_the_bytes_of_version_1() {
        let os: Arc<dyn Os> = Arc::new(MemOs::new(1));
        let dir = Path::new("/clone");
        os.create_dir_all(dir).unwrap();
        assert_eq!(CloneAbout::read(&os, dir).unwrap(), None);
        let about = CloneAbout {
            name: "birds".into(),
            purpose: ClonePurpose::Backup,
            source: "10.0.0.1:4747".into(),
            made_ms: 1_000,
            expires_ms: Some(2_000),
        };
        about.write(&os, dir).unwrap();
        assert_eq!(CloneAbout::read(&os, dir).unwrap(), Some(about.clone()));

        let golden = include_bytes!("../../golden/clone-about-1");
        assert_eq!(FORMAT.encode(&about).unwrap(), golden);
        // A changed bit is noticed, wherever it is.
        for at in 0..golden.len() {
            let mut changed = golden.to_vec();
            changed[at] ^= 1;
            assert!(FORMAT.decode::<CloneAbout>(dir, &changed).is_err(), "byte {at}");
        }
        let file = os.open(&dir.join(ABOUT), OpenMode::Write).unwrap();
        file.set_len(10).unwrap();
        assert_eq!(CloneAbout::read(&os, dir).unwrap_err().code(), "damaged");
    }
}
