//! From which backup a state is restored, and which part of the log is replayed on it. A pure function of the manifests.

use std::collections::HashMap;

use planaria_types::{InstanceId, Uid};

use crate::error::{Error, Result};
use crate::manifest::{Backup, Segment};

/// Which state is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AsOf {
    /// That of the backup, or of the newest one.
    #[default]
    Backup,
    /// That behind a commit.
    Commit(Uid),
    /// The newest at a time, in milliseconds since 1970.
    Time(u64),
}

/// How a state is put together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan<'a> {
    /// The backup whose files are taken.
    pub base: &'a Backup,
    /// The log that is replayed on them: segments, and who has them. Empty if the backup has the state.
    pub log: Vec<(&'a Backup, Segment)>,
    /// Commits above are left out.
    pub upto: Uid,
}

/// The last UID that can have been drawn at a time.
fn last_of(millis: u64) -> Uid {
    Uid::from_millis(millis.saturating_add(1)).prev()
}

impl AsOf {
    fn wanted(self) -> Option<Uid> {
        match self {
            Self::Backup => None,
            Self::Commit(uid) => Some(uid),
            Self::Time(millis) => Some(last_of(millis)),
        }
    }
}

/// Plans the restoring of a state of one database from its backups, `named` being the one that was asked for, if one was.
///
/// Of the backups at or before the wanted state the newest is taken from which the log reaches it. A backup tells of times
/// after its last commit, too, up to the moment at which it was taken: nothing was committed then.
///
/// # Errors
///
/// `OutsideKept` with the nearest states on both sides.
pub fn plan<'a>(backups: &[&'a Backup], named: Option<&str>, as_of: AsOf) -> Result<Plan<'a>> {
    let Some(wanted) = as_of.wanted() else {
        let chosen = match named {
            Some(name) => backups.iter().find(|backup| backup.name == name),
            None => backups.iter().max_by_key(|backup| (backup.position.uid, backup.taken_ms)),
        };
        let unknown = || Error::UnknownBackup { name: named.unwrap_or_default().to_owned() };
        let base = *chosen.ok_or_else(unknown)?;
        return Ok(Plan { base, log: Vec::new(), upto: base.position.uid });
    };
    let logs = Logs::of(backups);
    let mut before: Vec<&Backup> =
        backups.iter().filter(|backup| backup.position.uid <= wanted).copied().collect();
    before.sort_by_key(|backup| std::cmp::Reverse((backup.position.uid, backup.taken_ms)));
    let mut below = None;
    for base in before {
        let chain = logs.after(base);
        let needed: Vec<_> =
            chain.iter().take_while(|(_, segment)| segment.above < wanted).copied().collect();
        let end = needed.last().map_or(base.position.uid, |(_, segment)| segment.upto);
        if wanted <= end.max(logs.quiet_until(base.instance, end)) {
            return Ok(Plan { base, log: needed, upto: wanted });
        }
        below = below.max(Some(end));
    }
    let above = backups.iter().map(|backup| backup.position.uid).filter(|uid| *uid > wanted).min();
    Err(Error::OutsideKept { wanted, below, above })
}

/// How far the log leads from each of these backups of one database: every state from its own up to there is one that [`plan`] gives.
pub(crate) fn reaches(backups: &[&Backup]) -> Vec<Uid> {
    let logs = Logs::of(backups);
    let mut ends = HashMap::new();
    let reach = |backup: &&Backup| {
        let end = logs.end_after(backup, &mut ends);
        end.max(logs.quiet_until(backup.instance, end))
    };
    backups.iter().map(reach).collect()
}

/// A place in the log of a copy: behind the segment of that number, and behind that commit.
type Behind = (InstanceId, u64, Uid);

/// The log segments that all backups keep together.
struct Logs<'a> {
    /// By the copy, the number of the segment before and the commit that they go on from.
    following: HashMap<Behind, (&'a Backup, Segment)>,
    /// Up to when nothing was committed behind a cut.
    quiet: HashMap<(InstanceId, Uid), Uid>,
}

impl<'a> Logs<'a> {
    fn of(backups: &[&'a Backup]) -> Self {
        let mut logs = Self { following: HashMap::new(), quiet: HashMap::new() };
        for backup in backups {
            for segment in &backup.log {
                let key = (backup.instance, segment.previous, segment.above);
                logs.following.insert(key, (*backup, *segment));
            }
            let quiet = logs.quiet.entry((backup.instance, backup.position.uid)).or_default();
            *quiet = last_of(backup.taken_ms).max(*quiet);
        }
        logs
    }

    /// The segments behind a backup, as far as they follow one another.
    fn after(&self, base: &Backup) -> Vec<(&'a Backup, Segment)> {
        let (mut number, mut uid) = (base.last_segment, base.position.uid);
        let mut chain = Vec::new();
        while let Some((backup, segment)) = self.following.get(&(base.instance, number, uid)) {
            // Numbers rise in every log; a manifest that says otherwise ends the chain, not the program.
            if segment.number <= number || segment.upto < uid {
                break;
            }
            (number, uid) = (segment.number, segment.upto);
            chain.push((*backup, *segment));
        }
        chain
    }

    /// Where the log behind a backup ends. What was found on the way is kept in `ends`: it is gone once, from wherever one begins.
    fn end_after(&self, base: &Backup, ends: &mut HashMap<Behind, Uid>) -> Uid {
        let mut passed = Vec::new();
        let mut behind = (base.instance, base.last_segment, base.position.uid);
        let end = loop {
            if let Some(end) = ends.get(&behind) {
                break *end;
            }
            passed.push(behind);
            let (instance, number, uid) = behind;
            match self.following.get(&behind) {
                Some((_, segment)) if segment.number > number && segment.upto >= uid => {
                    behind = (instance, segment.number, segment.upto);
                }
                _ => break uid,
            }
        };
        ends.extend(passed.into_iter().map(|behind| (behind, end)));
        end
    }

    fn quiet_until(&self, instance: InstanceId, end: Uid) -> Uid {
        self.quiet.get(&(instance, end)).copied().unwrap_or(end)
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
