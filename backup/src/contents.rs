//! The list of a backup's files: with it everything is fetched and checked.

use planaria_engine::{CloneFile, FileList, LogSegment};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::Backup;
use crate::object::{Part, parts_of};
use crate::store::Store;

/// The longest list, in bytes: a million files.
const CONTENTS_BYTES_MAX: u64 = 1 << 30;

/// What a backup consists of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// The files of the copy.
    pub(crate) list: FileList,
    /// The log segments that are kept, those of the copy included.
    pub(crate) log: Vec<LogSegment>,
}

impl Contents {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        postcard::to_stdvec(self)
            .map_err(|error| Error::Invalid(format!("a list of files cannot be encoded: {error}")))
    }

    pub(crate) fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        let damaged = |what: &str| Error::Damaged { object: object.to_owned(), what: what.to_owned() };
        let contents: Self = postcard::from_bytes(bytes).map_err(|_| damaged("it cannot be decoded"))?;
        if !contents.files().all(is_sound) {
            return Err(damaged("a file in it has another length than its hashes"));
        }
        Ok(contents)
    }

    /// The list that a backup names, checked.
    pub(crate) async fn load(store: &Store, backup: &Backup) -> Result<Self> {
        let object = Backup::path(&backup.name);
        if backup.contents.len > CONTENTS_BYTES_MAX {
            let what = format!("its list of files would have {} bytes", backup.contents.len);
            return Err(Error::Damaged { object, what });
        }
        let mut bytes = Vec::with_capacity(backup.contents.len as usize);
        for part in backup.contents.parts() {
            let found = store.get(&part.address.path(), part.len).await?;
            part.check(&found)?;
            bytes.extend_from_slice(&found);
        }
        Self::decode(&object, &bytes)
    }

    /// Its files, each once.
    pub(crate) fn files(&self) -> impl Iterator<Item = &CloneFile> {
        let listed = |segment: &&LogSegment| {
            let file = &segment.file;
            !self.list.files.iter().any(|own| own.kind == file.kind && own.number == file.number)
        };
        self.list.files.iter().chain(self.log.iter().filter(listed).map(|segment| &segment.file))
    }

    /// The objects of its files.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> {
        self.files().flat_map(parts_of)
    }
}

fn is_sound(file: &CloneFile) -> bool {
    file.len.div_ceil(planaria_engine::CLONE_CHUNK_BYTES) == file.chunks.len() as u64
}
