//! A node: a disk that outlives its processes, and the process that runs on it, if one does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::os::{CrashStyle, FaultOs, MemOs, Os};
use planaria_engine::{Database, Error, Options};
use planaria_net::replica::executor::FollowingCopy;
use planaria_net::replica::settle;
use planaria_replication::secondary::Replica;
use planaria_replication::{Millis, Options as Protocol};
use planaria_types::{Epoch, History, InstanceId, Uid};

use crate::bulk::Transfer;
use crate::leading::Leading;

/// Where the database of a node lies.
pub(crate) const DIR: &str = "/data/db";

/// What runs on a node.
#[expect(clippy::large_enum_variant, reason = "three nodes")]
pub(crate) enum Process {
    Primary(Leading),
    Secondary(Following),
}

/// A secondary's process.
pub(crate) struct Following {
    pub(crate) copy: FollowingCopy,
    pub(crate) machine: Replica,
    /// The node that it follows.
    pub(crate) primary: usize,
    pub(crate) connection: Option<u64>,
    pub(crate) transfer: Option<Transfer>,
}

pub(crate) struct Node {
    pub(crate) disk: MemOs,
    pub(crate) faulty: FaultOs,
    pub(crate) process: Option<Process>,
    /// The limits of its store.
    pub(crate) limits: Options,
    /// Something was made to fail since the process began, so that its calls may fail.
    pub(crate) hurt: bool,
    /// Something is made to fail still.
    pub(crate) failing: bool,
    /// Steps until a death that did not come is called off.
    pub(crate) doomed_for: u64,
    /// The step at which a process that stands still goes on.
    pub(crate) paused_until: u64,
    /// The directory was made durable once, so that it must be found.
    pub(crate) made: bool,
    /// The copy that its process had open last as a secondary.
    pub(crate) instance: Option<InstanceId>,
    /// What it acknowledged to its primary.
    pub(crate) acknowledged: Uid,
    /// What it last said in a hello to be durable, which counts as well until it turns out to be of another history.
    pub(crate) greeted: Uid,
    /// The history that it had when it said so.
    pub(crate) history: History,
    /// What it had acknowledged when its disk was lost, and of what history: whoever was told of that counts on it still, and may.
    pub(crate) buried: (Uid, History),
    /// What run files that are about to take its place must have at least.
    pub(crate) must_have: Uid,
    /// The newest epoch that it promised to follow.
    pub(crate) promised: Epoch,
    /// What its readers saw last, in this process.
    pub(crate) shown: Uid,
    /// The mark floor that was seen last.
    pub(crate) mark_floor: Uid,
}

impl Node {
    pub(crate) fn new(seed: u64, limits: Options) -> Self {
        let disk = empty_disk(seed);
        let faulty = FaultOs::new(Arc::new(disk.clone()));
        Self {
            disk,
            faulty,
            process: None,
            limits,
            hurt: false,
            failing: false,
            doomed_for: 0,
            paused_until: 0,
            made: false,
            instance: None,
            acknowledged: Uid::ZERO,
            greeted: Uid::ZERO,
            history: History::default(),
            buried: (Uid::ZERO, History::default()),
            must_have: Uid::ZERO,
            promised: Epoch::NONE,
            shown: Uid::ZERO,
            mark_floor: Uid::ZERO,
        }
    }

    /// The options to open its directory with.
    pub(crate) fn options(&self, create: bool) -> Options {
        Options { create, os: Arc::new(self.faulty.clone()), ..self.limits.clone() }
    }

    pub(crate) fn database(&self) -> Option<&Database> {
        match self.process.as_ref()? {
            Process::Primary(leading) => Some(&leading.db),
            Process::Secondary(following) => Some(following.copy.database()),
        }
    }

    /// Opens the directory as a start of the node does; `None` if there is none yet, which only a new node may find.
    pub(crate) fn open(&self, settles: bool) -> Result<Option<Database>, Error> {
        let dir = Path::new(DIR);
        if settles && let Err(error) = settle(dir, &self.faulty) {
            return Err(Error::Invalid(format!("the exchange of a copy cannot be mended: {error}")));
        }
        match Database::open_with(dir, self.options(false)) {
            Ok(db) => Ok(Some(db)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends the process. What it had open is closed in good order if the disk still lives.
    pub(crate) fn end(&mut self) {
        self.process = None;
        self.shown = Uid::ZERO;
    }

    /// The disk as a death of the process or of the machine leaves it; whoever has the old one open writes to nowhere.
    pub(crate) fn lose(&mut self, style: CrashStyle, seed: u64) {
        // Dead for whom the old process still closes.
        self.disk.crash_at(0);
        self.end();
        self.put_disk(self.disk.crash(style, seed));
    }

    /// Another disk, with nothing on it.
    pub(crate) fn wipe(&mut self, seed: u64) {
        let now = self.disk.now_millis();
        self.disk.crash_at(0);
        self.end();
        self.put_disk(empty_disk(seed));
        self.disk.set_now_millis(now);
        self.made = false;
        self.buried = (self.acknowledged.max(self.greeted), std::mem::take(&mut self.history));
        self.must_have = Uid::ZERO;
        self.acknowledged = Uid::ZERO;
        self.greeted = Uid::ZERO;
        self.promised = Epoch::NONE;
        self.mark_floor = Uid::ZERO;
    }

    fn put_disk(&mut self, disk: MemOs) {
        self.disk = disk;
        self.faulty = FaultOs::new(Arc::new(self.disk.clone()));
        self.disk.set_capacity(None);
        self.hurt = false;
        self.failing = false;
        self.doomed_for = 0;
    }

    /// Takes back what was made to fail. What has failed already may have poisoned the store.
    pub(crate) fn heal(&mut self) {
        self.faulty.clear();
        self.disk.set_capacity(None);
        self.disk.crash_at(u64::MAX);
        self.failing = false;
        self.doomed_for = 0;
    }

    /// A secondary's process over an open database.
    pub(crate) fn follow(
        &mut self,
        db: Database,
        name: String,
        primary: usize,
        protocol: &Protocol,
        now: Millis,
    ) {
        let copy = FollowingCopy::new(db);
        let machine = copy.machine(name, protocol.clone(), now);
        let following = Following { copy, machine, primary, connection: None, transfer: None };
        self.process = Some(Process::Secondary(following));
    }
}

fn empty_disk(seed: u64) -> MemOs {
    let disk = MemOs::new(seed);
    // Time passes when the schedule says so.
    disk.set_clock_step(Duration::ZERO);
    disk.create_dir_all(&PathBuf::from("/data")).expect("an empty disk takes a directory");
    disk.sync_dir(Path::new("/")).expect("an empty disk can be synced");
    disk
}
