use planaria_engine::{Change, EncodedCommit, LoggedCommit, Part, RecordKind as EngineKind};
use planaria_replication::{Commit, PartSum, Record, RecordKind, Tiling};
use planaria_types::{TableId, Uid};

use crate::{Error, Result};

pub(super) fn commit_out(logged: &LoggedCommit) -> Commit {
    Commit {
        uid: logged.commit.uid(),
        predecessor: logged.commit.prev(),
        hash: logged.hash,
        bytes: logged.commit.bytes().clone(),
    }
}

/// A commit as it came, checked to be one and to be the one that its head names.
pub(super) fn commit_in(commit: &Commit) -> Result<LoggedCommit> {
    let encoded = EncodedCommit::parse(commit.bytes.clone())?;
    if encoded.uid() != commit.uid || encoded.prev() != commit.predecessor {
        return Err(Error::Protocol(format!("commit {} is not the one that its head names", commit.uid)));
    }
    Ok(LoggedCommit { commit: encoded, hash: commit.hash })
}

pub(super) fn commits_in(commits: &[Commit]) -> Result<Vec<LoggedCommit>> {
    commits.iter().map(commit_in).collect()
}

pub(super) fn record_out(change: Change) -> Record {
    let kind = match change.kind {
        EngineKind::Put => RecordKind::Put,
        EngineKind::Delete | EngineKind::RangeDelete if change.uid == Uid::ZERO => RecordKind::Absent,
        EngineKind::Delete | EngineKind::RangeDelete => RecordKind::Delete,
    };
    Record { table: change.table, key: change.key, uid: change.uid, kind, row: change.row }
}

pub(super) fn record_in(record: Record) -> Result<Change> {
    let kind = match record.kind {
        RecordKind::Put => EngineKind::Put,
        RecordKind::Delete | RecordKind::Absent => EngineKind::Delete,
        RecordKind::RangeDelete(_) | RecordKind::RangeAbsent(_) => {
            return Err(Error::Protocol("range deletes are not part of this protocol version".into()));
        }
    };
    Ok(Change { table: record.table, key: record.key, uid: record.uid, kind, row: record.row })
}

/// A tiling of a span, from the parts that the engine cut it into.
pub(super) fn tiling_out(table: TableId, parts: Vec<Part>) -> Tiling {
    let sum = |part: &Part| PartSum { count: part.fingerprint.count, short: part.fingerprint.short() };
    let sums = parts.iter().map(sum).collect();
    // The last part ends where the span ends, which is no bound between parts.
    let bounds = parts.len().saturating_sub(1);
    let firsts: Vec<_> = parts.into_iter().take(bounds).filter_map(|part| part.end).collect();
    Tiling::new(table, &firsts, sums)
}
