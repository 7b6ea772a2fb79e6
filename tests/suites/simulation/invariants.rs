//! What must hold after every step.

use planaria_engine::Database;
use planaria_types::{EpochOrder, Fingerprint, KeyRange, TableId, Uid};

use crate::leading::Leading;
use crate::node::{Following, Process};
use crate::oracle::Content;
use crate::workload::TABLES;
use crate::world::{Checked, NODES, World};

fn tables() -> impl Iterator<Item = TableId> {
    (0..=TABLES.len() as u32).map(TableId)
}

/// All that a copy shows, or why it cannot be read.
fn compare(db: &Database, at: Uid, expected: &Content) -> Result<(), Result<String, planaria_engine::Error>> {
    let snapshot = db.snapshot();
    if snapshot.uid() != at {
        return Err(Ok(format!("the cut moved from {at} to {}", snapshot.uid())));
    }
    for table in tables() {
        let mut expected =
            expected.range((table, bytes::Bytes::new())..).take_while(|((of, _), _)| *of == table);
        for record in snapshot.scan(table, KeyRange::ALL) {
            let (key, row) = record.map_err(Err)?;
            match expected.next() {
                Some(((_, wanted), (_, value))) if *wanted == key && *value == row => {}
                other => {
                    let wanted = other.map(|((_, key), (uid, row))| (key.clone(), *uid, row.len()));
                    let what = format!("{table} shows {key:?} with {} bytes, which is {wanted:?}", row.len());
                    return Err(Ok(what));
                }
            }
        }
        if let Some(((_, key), (uid, _))) = expected.next() {
            return Err(Ok(format!("{table} lacks {key:?} of {uid}")));
        }
    }
    Ok(())
}

impl World {
    /// Holds what a node shows and says against the oracle.
    pub(crate) fn check(&mut self, node: usize) -> Checked {
        match &self.nodes[node].process {
            None => Ok(()),
            Some(Process::Primary(leading)) => {
                let db = leading.db.clone();
                if !self.moves {
                    self.check_marks(node)?;
                }
                self.check_content(node, &db)
            }
            Some(Process::Secondary(following)) => {
                let db = following.copy.database().clone();
                self.check_secondary(node)?;
                self.check_content(node, &db)
            }
        }
    }

    fn check_content(&mut self, node: usize, db: &Database) -> Checked {
        let visible = db.visible();
        let position = db.history().position_of(visible);
        let Some(expected) = self.oracle.content(position) else {
            return Err(format!("R1/R11: node {node} shows {position:?}, which nobody made"));
        };
        self.coverage.contents_compared += 1;
        match compare(db, visible, &expected) {
            Ok(()) => {}
            Err(Ok(what)) => {
                return Err(format!("R1/R4/R15/R16/R21/E3: node {node} at {position:?}: {what}"));
            }
            Err(Err(error)) => return self.check_refusal(node, &error.to_string()),
        }
        self.check_one_key(node, db, &expected)
    }

    /// A point read, which goes by filters and hash indexes.
    fn check_one_key(&mut self, node: usize, db: &Database, expected: &Content) -> Checked {
        let number = self.random.number();
        let table = TableId(1 + (number % TABLES.len() as u64) as u32);
        let key = bytes::Bytes::from(vec![b'a' + ((number >> 8) % 16) as u8, b'k']);
        match db.snapshot().find(table, &key) {
            Ok(found) if found.as_ref() == expected.get(&(table, key.clone())) => Ok(()),
            Ok(found) => {
                let found = found.map(|(uid, row)| (uid, row.len()));
                Err(format!("E4: node {node} finds {found:?} for {key:?} of {table}"))
            }
            Err(error) => self.check_refusal(node, &error.to_string()),
        }
    }

    fn check_secondary(&mut self, node: usize) -> Checked {
        let Some(Process::Secondary(Following { copy, .. })) = &self.nodes[node].process else {
            return Ok(());
        };
        let db = copy.database();
        let (visible, durable, promised, end) = (db.visible(), db.durable(), db.promised(), db.log_end().0);
        let position = db.history().position_of(end);
        if self.oracle.content(position).is_none() {
            return Err(format!("R11: node {node} holds {position:?}, which nobody made"));
        }
        let shown = db.history().position_of(visible);
        if !self.oracle.is_durable(shown) {
            return Err(format!("R4: node {node} shows {shown:?}, which no primary had durable"));
        }
        let state = &mut self.nodes[node];
        if visible < state.shown {
            return Err(format!("R4: the cut of node {node} falls from {} to {visible}", state.shown));
        }
        if durable < state.acknowledged {
            return Err(format!("R6: node {node} acknowledged {}, durable is {durable}", state.acknowledged));
        }
        if promised.order(&state.promised) == EpochOrder::Older {
            return Err(format!(
                "R9: the promise of node {node} falls from {} to {promised}",
                state.promised
            ));
        }
        state.promised = promised;
        state.shown = visible;
        Ok(())
    }

    /// No delete mark goes that a registered secondary needs, unless a cap says so.
    fn check_marks(&mut self, node: usize) -> Checked {
        let Some(Process::Primary(Leading { db, group, .. })) = &self.nodes[node].process else {
            return Ok(());
        };
        let floor = db.mark_floor();
        for (instance, member) in group.members() {
            let told = self.told.entry(*instance).or_default();
            *told = member.durable.max(*told);
        }
        // An empty copy has nothing that a mark could delete.
        let registered = db.registrations().unwrap_or_default().into_iter().filter_map(|registered| {
            let told = self.told.get(&registered.instance).copied().unwrap_or_default();
            Some(told.max(registered.durable)).filter(|uid| *uid > Uid::ZERO)
        });
        let registered = registered.min();
        let state = &mut self.nodes[node];
        if floor < state.mark_floor {
            return Err(format!("E15: the mark floor falls from {} to {floor}", state.mark_floor));
        }
        let raised = floor > state.mark_floor;
        state.mark_floor = floor;
        self.coverage.marks_dropped += u64::from(raised);
        match registered {
            Some(lowest) if raised && !self.capped && floor > lowest => {
                Err(format!("R13: marks up to {floor} are dropped, a secondary is at {lowest}"))
            }
            _ => Ok(()),
        }
    }

    /// All copies hold the same, by every measure, and every file is what the manifest says.
    pub(crate) fn check_equal(&self) -> Checked {
        let mut first: Option<Vec<Fingerprint>> = None;
        for node in 0..NODES {
            let db = self.nodes[node].database().ok_or("a node is down after all settled")?;
            let failed = |error: planaria_engine::Error| format!("node {node} after all settled: {error}");
            db.verify().map_err(failed)?;
            let prints: Result<Vec<_>, _> =
                tables().skip(1).map(|table| db.snapshot().fingerprint(table, KeyRange::ALL)).collect();
            let prints = prints.map_err(failed)?;
            if first.get_or_insert_with(|| prints.clone()) != &prints {
                return Err(format!("R16/R20: node {node} has other fingerprints than the others"));
            }
        }
        Ok(())
    }
}
