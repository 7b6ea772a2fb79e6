//! Reading everything that backups name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, TryStreamExt};

use crate::Progress;
use crate::catalog::{AT_ONCE, Catalog};
use crate::contents::Contents;
use crate::error::{Error, Result};
use crate::manifest::Backup;
use crate::object::{Address, Part};
use crate::store::Store;

/// Something that is not as it was written.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// What is wrong: that it is missing, damaged, or of a newer format.
    pub problem: Error,
    /// The backups that need it.
    pub backups: Vec<String>,
}

/// What a verification has read.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Backups.
    pub backups: u64,
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong; nothing if all is sound.
    pub findings: Vec<Finding>,
}

/// Reads every object that the chosen backups name, each once, and checks all hashes.
///
/// # Errors
///
/// Where the store fails as a whole; what is wrong with objects is among the findings.
pub async fn verify(
    store: &Store,
    catalog: &Catalog,
    chosen: &[&Backup],
    cancelled: &AtomicBool,
    progress: impl Fn(&Progress),
) -> Result<Verified> {
    let mut verified = Verified { backups: chosen.len() as u64, ..Verified::default() };
    let is_all = chosen.len() == catalog.backups.len();
    for (object, problem) in catalog.unreadable.iter().filter(|_| is_all) {
        verified.findings.push(finding(object.clone(), problem.clone(), &[]));
    }
    let mut parts: BTreeMap<Address, (Part, Vec<String>)> = BTreeMap::new();
    for backup in chosen {
        let named: Vec<Part> = match Contents::load(store, backup).await {
            Ok(contents) => contents.parts().chain(backup.contents.parts()).collect(),
            Err(problem @ (Error::Damaged { .. } | Error::Missing { .. })) => {
                let (Error::Damaged { object, .. } | Error::Missing { object }) = &problem else { continue };
                verified.findings.push(finding(
                    object.clone(),
                    problem.clone(),
                    std::slice::from_ref(&backup.name),
                ));
                continue;
            }
            Err(error) => return Err(error),
        };
        for part in named {
            let (_, of) = parts.entry(part.address).or_insert_with(|| (part, Vec::new()));
            if of.last() != Some(&backup.name) {
                of.push(backup.name.clone());
            }
        }
    }
    let mut state = Progress { total_bytes: parts.values().map(|(part, _)| part.len).sum(), done_bytes: 0 };
    progress(&state);
    let mut reading = futures_util::stream::iter(parts.into_values())
        .map(|(part, of)| async move {
            let read = store.get(&part.address.path(), part.len).await;
            match read.and_then(|bytes| part.check(&bytes)) {
                Ok(()) => Ok((part, None)),
                Err(problem @ (Error::Damaged { .. } | Error::Missing { .. })) => {
                    let found = finding(part.address.path(), problem, &of);
                    Ok((part, Some(found)))
                }
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(AT_ONCE);
    while let Some((part, found)) = reading.try_next().await? {
        verified.objects += 1;
        verified.bytes += part.len;
        verified.findings.extend(found);
        state.done_bytes += part.len;
        progress(&state);
        if cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
    }
    verified.findings.sort_by(|left, right| left.object.cmp(&right.object));
    Ok(verified)
}

fn finding(object: String, problem: Error, backups: &[String]) -> Finding {
    Finding { object, problem, backups: backups.to_vec() }
}
