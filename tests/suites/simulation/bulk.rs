//! Run files taken as they lie: the transfer of a secondary, one chunk a step.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use planaria_engine::{CLONE_CHUNK_BYTES, CloneRecord, CloneRole, CloneTarget, Database};
use planaria_net::replica::executor::bulk::{self, Places, Range, Terms};

use crate::node::{DIR, Process};
use crate::world::{Checked, World};

/// A transfer under way.
pub(crate) struct Transfer {
    terms: Terms,
    /// The node that the files come from.
    pub(crate) source: usize,
    /// The connection that it has, once the source has pinned its files.
    pub(crate) connection: Option<u64>,
    target: Option<CloneTarget>,
    ranges: VecDeque<Range>,
}

impl Transfer {
    pub(crate) fn new(terms: Terms, source: usize) -> Self {
        Self { terms, source, connection: None, target: None, ranges: VecDeque::new() }
    }
}

impl World {
    /// The next part of a transfer, if the node has one.
    pub(crate) fn transfer(&mut self, node: usize) -> Checked {
        let Some(mut transfer) = self.take_transfer(node) else { return Ok(()) };
        let cut = self.faults && self.random.once_in(40);
        let source = transfer.source;
        let leads = matches!(self.nodes[source].process, Some(Process::Primary(_)));
        let gone = cut || !leads || !self.reaches(node, source);
        let step = match (&transfer.connection, transfer.ranges.front().copied()) {
            _ if gone => Err("the source is gone".to_owned()),
            (None, _) => self.begin_transfer(node, &mut transfer),
            (Some(number), Some(range)) => self.fetch_chunk(*number, range, &mut transfer),
            (Some(number), None) => {
                let number = *number;
                let finished = self.finish_transfer(node, transfer);
                self.end_transfer(source, Some(number));
                return match finished {
                    Ok(checked) => checked,
                    Err(error) => {
                        self.fail_transfer(node, &error);
                        Ok(())
                    }
                };
            }
        };
        match step {
            Ok(()) => {
                if let Some(Process::Secondary(following)) = &mut self.nodes[node].process {
                    following.transfer = Some(transfer);
                }
                Ok(())
            }
            Err(error) => {
                self.end_transfer(source, transfer.connection);
                self.fail_transfer(node, &error);
                Ok(())
            }
        }
    }

    fn take_transfer(&mut self, node: usize) -> Option<Transfer> {
        match &mut self.nodes[node].process {
            Some(Process::Secondary(following)) => following.transfer.take(),
            _ => None,
        }
    }

    fn begin_transfer(&mut self, node: usize, transfer: &mut Transfer) -> Result<(), String> {
        let places = Places::of(Path::new(DIR));
        places.prepare(&self.nodes[node].faulty).map_err(|error| error.to_string())?;
        let Some(Process::Primary(leading)) = &mut self.nodes[transfer.source].process else {
            return Err("nobody answers".into());
        };
        let pin = leading.db.pin_files().map_err(|error| format!("the source: {error}"))?;
        let list = pin.list().clone();
        transfer.terms.check(&list).map_err(|error| error.to_string())?;
        let number = self.next_connection;
        self.next_connection += 1;
        leading.pins.insert(number, pin);
        transfer.connection = Some(number);
        let target = CloneTarget::open(&places.next, list, self.nodes[node].options(true))
            .map_err(|error| error.to_string())?;
        self.coverage.bulk_resumed += u64::from(target.resumed_bytes() > 0);
        transfer.ranges = bulk::ranges(&target).into();
        let (left, files) = (transfer.ranges.len(), target.list().files.len());
        self.note(format_args!("node {node} has a list of {files} files, {left} to fetch"));
        transfer.target = Some(target);
        Ok(())
    }

    fn fetch_chunk(&mut self, number: u64, range: Range, transfer: &mut Transfer) -> Result<(), String> {
        let Some(Process::Primary(leading)) = &self.nodes[transfer.source].process else {
            return Err("the source is gone".into());
        };
        let pin = leading.pins.get(&number).ok_or("the source let go of its files")?;
        let len = range.length.min(CLONE_CHUNK_BYTES);
        let bytes = bulk::read(pin, range.kind, range.number, range.offset, len as usize)
            .map_err(|error| format!("the source: {error}"))?;
        let target = transfer.target.as_mut().ok_or("no target")?;
        target.write(range.chunk_at(range.offset), &bytes).map_err(|error| error.to_string())?;
        self.coverage.bulk_chunks += 1;
        match transfer.ranges.front_mut() {
            Some(front) if front.length > len => {
                front.offset += len;
                front.length -= len;
            }
            _ => drop(transfer.ranges.pop_front()),
        }
        Ok(())
    }

    /// Puts the complete copy in the place of the old one and begins anew with it.
    fn finish_transfer(&mut self, node: usize, transfer: Transfer) -> Result<Checked, String> {
        let source = transfer.source;
        let target = transfer.target.ok_or("no target")?;
        self.nodes[node].must_have = transfer.terms.at_least;
        // Somewhere between the sync of the first file and the first read of the new copy.
        self.doom(node, 40);
        target.finish(CloneRole::Secondary).map_err(|error| error.to_string())?;
        let places = Places::of(Path::new(DIR));
        let os = Arc::new(self.nodes[node].faulty.clone());
        if let Some(db) = self.nodes[node].database() {
            // Where that is not written, an operator says it.
            let _ = places.name_successor(db);
            db.close();
        }
        self.doom(node, 5);
        let swapped = places.swap(&*os).map_err(|error| error.to_string());
        let opened = swapped.and_then(|()| {
            Database::open_with(DIR, self.nodes[node].options(false)).map_err(|error| error.to_string())
        });
        self.cut_all_of(node);
        let db = match opened {
            Ok(db) => db,
            Err(error) => {
                // The driver stops for good; whoever runs the node starts it again.
                self.note(format_args!("node {node} stops: {error}"));
                let checked = self.check_refusal(node, &error);
                self.nodes[node].end();
                return Ok(checked);
            }
        };
        // What stays behind is garbage.
        let _ = places.clean(&*os);
        self.coverage.bulk_installed += 1;
        let position = db.position();
        self.note(format_args!("node {node} is taken anew at {position:?}"));
        self.nodes[node].end();
        Ok(self.became_secondary(node, db, source))
    }

    /// Has a node die now and then within the next calls: where there is much to go wrong.
    pub(crate) fn doom(&mut self, node: usize, calls: u64) {
        if self.faults && self.random.once_in(2) {
            let call = 1 + self.random.below(calls);
            let state = &mut self.nodes[node];
            state.disk.crash_at(state.disk.mutations() + call);
            state.doomed_for = 5;
        }
    }

    fn end_transfer(&mut self, source: usize, connection: Option<u64>) {
        let instance = self.nodes[source].database().map(Database::instance);
        let Some(Process::Primary(leading)) = &mut self.nodes[source].process else { return };
        let Some(pin) = connection.and_then(|number| leading.pins.remove(&number)) else { return };
        let record = CloneRecord {
            name: "remote".into(),
            target: "secondary".into(),
            role: None,
            source: instance.unwrap_or_default(),
            cut: pin.list().position.uid,
            bytes: pin.list().bytes(),
            created_ms: leading.db.now_millis(),
        };
        if let Err(error) = leading.db.record_clone(&record) {
            self.failed_action(source, &error.to_string());
        }
    }

    fn fail_transfer(&mut self, node: usize, error: &str) {
        let now = self.millis();
        self.coverage.bulk_broken += 1;
        self.note(format_args!("node {node} cannot go on with run files: {error}"));
        if let Some(Process::Secondary(following)) = &mut self.nodes[node].process {
            following.copy.failed(error, &mut following.machine, now);
        }
    }
}
