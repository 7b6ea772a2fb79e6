use planaria_types::{FragmentId, KeyRange, Uid};

use super::{Plan, Tier, plan};
use crate::error::{Error, Result};
use crate::read::{Direction, Merge, Source};
use crate::store::{NewRun, Retain, RunRefParts, Store};
use crate::sync::Arc;
use crate::version::{Fragment, RunRef, StoreVersion};

/// A merge of references of one fragment: inputs, and the interval that the outputs own.
struct Job {
    fragment: Arc<Fragment>,
    upper: Vec<RunRef>,
    bottom: Vec<RunRef>,
    above: Uid,
    upto: Uid,
}

impl Store {
    /// Merges until no fragment needs it.
    pub(crate) fn compact_until_settled(&self) -> Result<()> {
        while !self.work().is_closing() {
            let _one_at_a_time = self.work().compacting();
            let version = self.pin().0;
            let barrier = self.floors.lock().preserved_for_all();
            let due = version.fragments().iter().find_map(|fragment| {
                let tiers = tiers(fragment);
                let shape: Vec<_> = tiers.iter().map(|tier| measure(tier)).collect();
                let bottom_bytes = fragment.bottom.iter().map(RunRef::bytes).sum();
                let plan = plan(&shape, bottom_bytes, barrier)?;
                Some(job(fragment, &tiers, plan))
            });
            let Some(job) = due else { return Ok(()) };
            self.run_job(&job)?;
        }
        Ok(())
    }

    /// Merges everything of every fragment into its bottom.
    pub(crate) fn compact_all(&self) -> Result<()> {
        self.write_out()?;
        let _one_at_a_time = self.work().compacting();
        let ids: Vec<_> = self.pin().0.fragments().iter().map(|fragment| fragment.id).collect();
        for id in ids {
            let version = self.pin().0;
            let Some(fragment) = version.fragments().iter().find(|fragment| fragment.id == id) else {
                continue;
            };
            let tiers = tiers(fragment);
            let retain = self.retain();
            let is_due = |reference| needs_rewriting(reference) || holds_what_may_go(reference, &retain);
            if !tiers.is_empty() || fragment.bottom.iter().any(is_due) {
                let mut job = job(fragment, &tiers, Plan { from: 0, to: tiers.len(), into_bottom: true });
                job.bottom.clone_from(&fragment.bottom);
                job.upto = fragment.references().map(|reference| reference.upto).max().unwrap_or(job.upto);
                self.run_job(&job)?;
            }
        }
        Ok(())
    }

    fn run_job(&self, job: &Job) -> Result<()> {
        let mut retain = self.retain();
        let outputs = self.merge(job, &mut retain)?;
        let installed = self.install(
            &outputs,
            |version, new| merged_version(version, job, new),
            |group| self.raise_floors(group, &retain),
        );
        match installed {
            // The fragment was split or rewound meanwhile; what it has become is planned anew.
            Err(Error::Invalid(_)) if !has_inputs(&self.pin().0, job) => Ok(()),
            other => other,
        }
    }

    /// Streams the inputs into new files, with memory for one block of each input.
    fn merge(&self, job: &Job, retain: &mut Retain) -> Result<Vec<NewRun>> {
        let mut outputs = Vec::new();
        let merged = self.merge_into(job, retain, &mut outputs);
        if let Err(error) = merged {
            self.discard(&outputs);
            return Err(error);
        }
        Ok(outputs)
    }

    fn merge_into(&self, job: &Job, retain: &mut Retain, outputs: &mut Vec<NewRun>) -> Result<()> {
        let into_bottom = job.above == Uid::ZERO;
        let sources = Source::of_merge(&job.upper, &job.bottom);
        let mut merge = Merge::new(sources, job.fragment.range.clone(), Direction::Forward)?;
        let mut writer = None;
        let mut key = Vec::new();
        let mut successor = None;
        while let Some(current) = merge.key() {
            if successor.is_none() || current != key.as_slice() {
                key.clear();
                key.extend_from_slice(current);
                successor = None;
                let full = writer.take_if(|writer: &mut crate::store::NewRunWriter| {
                    writer.bytes() >= self.options.run_file_bytes
                });
                if let Some(full) = full {
                    outputs.extend(full.finish()?);
                    if self.work().is_closing() {
                        return Err(Error::Closed);
                    }
                }
            }
            let (uid, kind) = (merge.uid(), merge.kind());
            if successor != Some(uid) && retain.keeps(uid, kind, successor, into_bottom) {
                let writer = match &mut writer {
                    Some(writer) => writer,
                    None => writer.insert(self.new_run(into_bottom)?),
                };
                writer.add(&key, uid, kind, merge.row_ref())?;
            }
            successor = Some(uid);
            merge.advance()?;
        }
        if let Some(writer) = writer {
            outputs.extend(writer.finish()?);
        }
        Ok(())
    }
}

/// The references above the bottom, grouped by their interval, newest first.
fn tiers(fragment: &Fragment) -> Vec<Vec<RunRef>> {
    let mut tiers: Vec<Vec<RunRef>> = Vec::new();
    for reference in &fragment.upper {
        match tiers.last_mut() {
            Some(tier)
                if tier
                    .iter()
                    .all(|other| (other.above, other.upto) == (reference.above, reference.upto)) =>
            {
                tier.push(reference.clone());
            }
            _ => tiers.push(vec![reference.clone()]),
        }
    }
    tiers
}

fn measure(tier: &[RunRef]) -> Tier {
    Tier {
        bytes: tier.iter().map(RunRef::bytes).sum(),
        upto: tier.first().map_or(Uid::ZERO, |reference| reference.upto),
    }
}

fn job(fragment: &Arc<Fragment>, tiers: &[Vec<RunRef>], mut plan: Plan) -> Job {
    let upper: Vec<_> = tiers.get(plan.from..plan.to).unwrap_or_default().concat();
    let upto = upper.iter().map(|reference| reference.upto).max().unwrap_or(Uid::ZERO);
    let lowest = upper.iter().map(|reference| reference.above).min().unwrap_or(Uid::ZERO);
    // An output may reach from the first key of all inputs to the last, over gaps between them.
    let hull = hull(&upper);
    let beneath =
        fragment.bottom.iter().filter(|own| hull.as_ref().is_some_and(|hull| hull.overlaps(&own.keys)));
    let bottom: Vec<_> = beneath.cloned().collect();
    if !plan.into_bottom && bottom.iter().any(|reference| reference.upto > lowest) {
        // In a gap lies something newer than the oldest input: the output would own what that owns.
        return self::job(fragment, tiers, Plan { into_bottom: true, to: tiers.len(), ..plan });
    }
    let bottom = if plan.into_bottom { bottom } else { Vec::new() };
    let above = if plan.into_bottom { Uid::ZERO } else { lowest };
    let upto = bottom.iter().map(|reference| reference.upto).fold(upto, Uid::max);
    let above_job = tiers.get(..plan.from).unwrap_or_default().concat();
    if above_job.iter().any(|newer| newer.above < upto) {
        // A bottom reference reaches into the interval of a tier that would stay above: take that one along.
        plan.from = 0;
        return self::job(fragment, tiers, plan);
    }
    Job { fragment: Arc::clone(fragment), upper, bottom, above, upto }
}

/// The keys from the first to the last of all references.
fn hull(references: &[RunRef]) -> Option<KeyRange> {
    let start = references.iter().map(|reference| &reference.keys.start).min()?;
    let ends = references.iter().map(|reference| reference.keys.end.as_ref());
    // No end at all is above every other.
    let end = ends.max_by(|a, b| match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    })?;
    Some(KeyRange::new(start.clone(), end.cloned()))
}

/// Whether a merge of the reference alone would change something: it is clipped.
fn needs_rewriting(reference: &RunRef) -> bool {
    let meta = reference.run.meta();
    !reference.keys.covers(&KeyRange::inclusive(&meta.smallest_key, &meta.largest_key))
        || reference.upto < meta.largest_uid
}

/// Whether a bottom reference may hold marks or shadowed versions that were kept for a copy which no longer needs them.
fn holds_what_may_go(reference: &RunRef, retain: &Retain) -> bool {
    let meta = reference.run.meta();
    let has_marks = meta.records > meta.puts;
    // Where no row is shadowed, as many were summed up as there are.
    let has_shadowed = meta.fingerprint.is_some_and(|fingerprint| meta.puts > fingerprint.count);
    has_marks && meta.smallest_uid <= retain.marks || has_shadowed && meta.smallest_uid <= retain.versions
}

fn find(version: &StoreVersion, id: FragmentId, range: &KeyRange) -> Option<Arc<Fragment>> {
    version.fragments().iter().find(|fragment| fragment.id == id && fragment.range == *range).cloned()
}

fn is_input(job: &Job, reference: &RunRef) -> bool {
    job.upper.iter().chain(&job.bottom).any(|input| input.record() == reference.record())
}

/// Whether all that a job merges is still there.
fn has_inputs(version: &StoreVersion, job: &Job) -> bool {
    find(version, job.fragment.id, &job.fragment.range).is_some_and(|fragment| {
        let inputs = fragment.references().filter(|reference| is_input(job, reference)).count();
        inputs == job.upper.len() + job.bottom.len()
    })
}

/// The parts of `keys` outside of `taken`, which lie in order and do not overlap.
fn around(keys: &KeyRange, taken: &[KeyRange]) -> Vec<KeyRange> {
    let mut parts = Vec::new();
    let mut rest = Some(keys.clone());
    for gap in taken {
        let Some(left) = rest.take_if(|rest| rest.overlaps(gap)) else { continue };
        let before = KeyRange::new(left.start, Some(gap.start.clone()));
        parts.extend(Some(before).filter(|before| !before.is_empty()));
        let behind = gap.end.clone().map(|end| KeyRange::new(end, left.end));
        rest = behind.filter(|behind| !behind.is_empty());
    }
    parts.extend(rest);
    parts
}

/// `version` with the inputs of a job replaced by its outputs.
fn merged_version(version: &StoreVersion, job: &Job, new: &[RunRefParts]) -> Result<StoreVersion> {
    let Some(fragment) = find(version, job.fragment.id, &job.fragment.range) else {
        return Err(Error::Invalid("the fragment of a merge is gone".into()));
    };
    if !has_inputs(version, job) {
        return Err(Error::Invalid("an input of a merge is gone".into()));
    }
    let kept = fragment.references().filter(|reference| !is_input(job, reference));
    let mut references: Vec<_> = kept.cloned().collect();
    // What came to the bottom meanwhile overlapped nothing: it lies between the inputs, where no output has a record.
    let is_new = |own: &&RunRef| {
        own.is_bottom() && job.fragment.references().all(|before| before.record() != own.record())
    };
    let taken: Vec<_> = references.iter().filter(is_new).map(|own| own.keys.clone()).collect();
    for parts in new {
        let placed = around(&parts.keys, &taken);
        references.extend(placed.into_iter().map(|keys| parts.reference(keys, job.above, job.upto)));
    }
    let mut next = Fragment::clone(&fragment);
    next.set_references(references)?;
    Ok(version.replace(&[next.id], vec![Arc::new(next)]))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use planaria_types::KeyRange;

    use super::around;

    #[test]
    fn what_lies_around_others_leaves_their_keys_to_them() {
        let range = |start: &str, end: &str| KeyRange::new(start, Some(end.into()));
        let cases = [
            (vec![], vec![range("c", "q")]),
            (vec![range("a", "b"), range("q", "z")], vec![range("c", "q")]),
            (vec![range("f", "h")], vec![range("c", "f"), range("h", "q")]),
            (vec![range("a", "d"), range("e", "f"), range("p", "z")], vec![range("d", "e"), range("f", "p")]),
            (vec![range("c", "d"), range("f", "q")], vec![range("d", "f")]),
            (vec![range("a", "z")], vec![]),
            (vec![KeyRange::new("d", None)], vec![range("c", "d")]),
        ];
        for (taken, expected) in cases {
            assert_eq!(around(&range("c", "q"), &taken), expected, "around {taken:?}");
        }
    }
}
