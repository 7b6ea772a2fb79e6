//! The files and names of the in-memory system, and which of both are durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::content::Content;
use super::{CrashStyle, Dice};
use crate::os::DirEntry;

/// A file or a directory.
pub(super) type NodeId = u64;

const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Directory(Directory),
}

#[derive(Clone, Default, Debug)]
struct FileNode {
    content: Content,
    /// Live names.
    names: u64,
    /// Open handles.
    opens: u64,
}

#[derive(Clone, Default, Debug)]
struct Directory {
    live: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
    /// What was done since the last sync of the directory, in order.
    pending: Vec<NameChange>,
}

/// One operation on the names of a directory: all of it is durable or nothing.
#[derive(Clone, Debug)]
struct NameChange {
    /// The place in the order of all name operations.
    order: u64,
    sets: Vec<(String, Option<NodeId>)>,
    /// For a name taken away by a rename to another directory: lost unless the name given there is kept.
    only_with: Option<NodeId>,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    next_order: u64,
    pub(super) capacity: Option<u64>,
}

impl Disk {
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]);
        Self { nodes, next_node: ROOT + 1, next_order: 0, capacity: None }
    }

    /// Bytes of all files that have a name or are open.
    pub(super) fn used(&self) -> u64 {
        let files = self.nodes.values().filter_map(|node| match node {
            Node::File(file) if file.names > 0 || file.opens > 0 => Some(file.content.live().len() as u64),
            _ => None,
        });
        files.sum()
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut at = ROOT;
        for name in names(path)? {
            at = *self.directory(at)?.live.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    pub(super) fn open(&mut self, path: &Path) -> io::Result<NodeId> {
        let node = self.find(path)?;
        self.file_mut(node)?.opens += 1;
        Ok(node)
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<NodeId> {
        let (parent, name) = self.parent(path)?;
        if self.directory(parent)?.live.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.add(Node::File(FileNode { names: 1, opens: 1, ..FileNode::default() }));
        self.change(parent, vec![(name, Some(node))], None)?;
        Ok(node)
    }

    pub(super) fn close(&mut self, node: NodeId) {
        if let Ok(file) = self.file_mut(node) {
            file.opens = file.opens.saturating_sub(1);
        }
    }

    pub(super) fn content(&self, node: NodeId) -> io::Result<&Content> {
        match self.nodes.get(&node) {
            Some(Node::File(file)) => Ok(&file.content),
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn content_mut(&mut self, node: NodeId) -> io::Result<&mut Content> {
        Ok(&mut self.file_mut(node)?.content)
    }

    pub(super) fn links(&self, node: NodeId) -> u64 {
        if let Some(Node::File(file)) = self.nodes.get(&node) { file.names } else { 0 }
    }

    /// Whether a file may grow to `len` bytes.
    pub(super) fn room_for(&self, node: NodeId, len: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else {
            return Ok(());
        };
        let grown = len.saturating_sub(self.content(node)?.live().len() as u64);
        if grown > 0 && self.used().saturating_add(grown) > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path)? {
            at = if let Some(&child) = self.directory(at)?.live.get(&name) {
                self.directory(child)?;
                child
            } else {
                let child = self.add(Node::Directory(Directory::default()));
                self.change(at, vec![(name, Some(child))], None)?;
                child
            };
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let target = self.directory(to_dir)?.live.get(&to_name).copied();
        if target == Some(node) {
            return Ok(());
        }
        if let Some(target) = target {
            self.replaceable(node, target)?;
        }
        if from_dir == to_dir {
            return self.change(from_dir, vec![(from_name, None), (to_name, Some(node))], None);
        }
        self.change(to_dir, vec![(to_name, Some(node))], None)?;
        // Both halves bear one number, so that the second can be bound to the first.
        self.next_order -= 1;
        self.change(from_dir, vec![(from_name, None)], Some(to_dir))
    }

    pub(super) fn exchange(&mut self, one: &Path, other: &Path) -> io::Result<()> {
        let nodes = (self.find(one)?, self.find(other)?);
        let (dir, name) = self.parent(one)?;
        let (other_dir, other_name) = self.parent(other)?;
        if dir != other_dir {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.change(dir, vec![(name, Some(nodes.1)), (other_name, Some(nodes.0))], None)
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        self.file_mut(node)?;
        let (parent, name) = self.parent(to)?;
        if self.directory(parent)?.live.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Ok(file) = self.file_mut(node) {
            file.names += 1;
        }
        self.change(parent, vec![(name, Some(node))], None)
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path)?;
        self.file_mut(node)?;
        let (parent, name) = self.parent(path)?;
        self.change(parent, vec![(name, None)], None)
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path)?;
        let (parent, name) = self.parent(path)?;
        self.empty(node)?;
        self.change(parent, vec![(name, None)], None)
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let directory = self.directory(self.find(path)?)?;
        let entries = directory.live.iter().map(|(name, node)| {
            let content = self.content(*node).ok();
            let len = content.map_or(0, |content| content.live().len() as u64);
            DirEntry { name: name.clone(), is_dir: content.is_none(), len }
        });
        Ok(entries.collect())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path)?;
        let directory = self.directory_mut(node)?;
        directory.durable = directory.live.clone();
        directory.pending.clear();
        self.forget_unreachable();
        Ok(())
    }

    /// The disk as a crash leaves it; no file is open on it.
    pub(super) fn crash(&self, style: CrashStyle, dice: &mut Dice) -> Self {
        let mut after = self.clone();
        let names = match style {
            CrashStyle::ProcessKill => None,
            CrashStyle::PowerCutClean => Some(BTreeSet::new()),
            CrashStyle::PowerCutTorn => Some(self.surviving_changes(dice)),
        };
        for (id, node) in &mut after.nodes {
            match node {
                Node::File(file) => match style {
                    CrashStyle::ProcessKill => {}
                    CrashStyle::PowerCutClean => file.content = file.content.durable(),
                    CrashStyle::PowerCutTorn => file.content = file.content.torn(dice),
                },
                Node::Directory(directory) => {
                    if let Some(survive) = &names {
                        directory.cut(*id, survive);
                    }
                }
            }
        }
        after.recount();
        after.forget_unreachable();
        after
    }

    /// Which unsynced name operations reached the disk, as (directory, order).
    fn surviving_changes(&self, dice: &mut Dice) -> BTreeSet<(NodeId, u64)> {
        let way = dice.below(3);
        let journal_end = dice.below(self.next_order + 1);
        let mut kept = BTreeSet::new();
        for (id, node) in &self.nodes {
            let Node::Directory(directory) = node else {
                continue;
            };
            let prefix = dice.below(directory.pending.len() as u64 + 1);
            for (index, change) in directory.pending.iter().enumerate() {
                let keep = match way {
                    // One journal for all directories, cut somewhere.
                    0 => change.order < journal_end,
                    // A journal for each directory.
                    1 => (index as u64) < prefix,
                    // No order at all.
                    _ => dice.below(2) == 0,
                };
                if keep {
                    kept.insert((*id, change.order));
                }
            }
        }
        self.bind_renames(&mut kept);
        kept
    }

    /// A file moved between directories is in one of them at least.
    fn bind_renames(&self, kept: &mut BTreeSet<(NodeId, u64)>) {
        for (id, node) in &self.nodes {
            let Node::Directory(directory) = node else {
                continue;
            };
            for change in &directory.pending {
                let Some(target) = change.only_with else { continue };
                let Ok(target_dir) = self.directory(target) else {
                    continue;
                };
                let unsynced = target_dir.pending.iter().any(|other| other.order == change.order);
                if unsynced && !kept.contains(&(target, change.order)) {
                    kept.remove(&(*id, change.order));
                }
            }
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        id
    }

    /// Applies a change to the live names, keeps it for a crash, and counts the names of files.
    fn change(
        &mut self,
        directory: NodeId,
        sets: Vec<(String, Option<NodeId>)>,
        only_with: Option<NodeId>,
    ) -> io::Result<()> {
        let order = self.next_order;
        self.next_order += 1;
        let target = self.directory_mut(directory)?;
        for (name, node) in &sets {
            target.set_live(name, *node);
        }
        target.pending.push(NameChange { order, sets, only_with });
        self.recount_names();
        Ok(())
    }

    fn replaceable(&self, node: NodeId, target: NodeId) -> io::Result<()> {
        match (self.directory(node).is_ok(), self.directory(target)) {
            (false, Ok(_)) => Err(io::ErrorKind::IsADirectory.into()),
            (true, Err(_)) => Err(io::ErrorKind::NotADirectory.into()),
            (true, Ok(directory)) if !directory.live.is_empty() => {
                Err(io::ErrorKind::DirectoryNotEmpty.into())
            }
            _ => Ok(()),
        }
    }

    /// Removes the names of a directory, one by one: a crash may catch it half done.
    fn empty(&mut self, node: NodeId) -> io::Result<()> {
        let children: Vec<_> = self.directory(node)?.live.clone().into_iter().collect();
        for (name, child) in children {
            if self.directory(child).is_ok() {
                self.empty(child)?;
            }
            self.change(node, vec![(name, None)], None)?;
        }
        Ok(())
    }

    fn parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = ROOT;
        for part in names {
            at = *self.directory(at)?.live.get(&part).ok_or(io::ErrorKind::NotFound)?;
        }
        self.directory(at)?;
        Ok((at, name))
    }

    fn directory(&self, node: NodeId) -> io::Result<&Directory> {
        match self.nodes.get(&node) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn directory_mut(&mut self, node: NodeId) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file_mut(&mut self, node: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn recount(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.opens = 0;
            }
        }
        self.recount_names();
    }

    /// Counts the names of each file that a walk from the root finds.
    fn recount_names(&mut self) {
        let mut counts: BTreeMap<NodeId, u64> = BTreeMap::new();
        let mut walk = vec![ROOT];
        while let Some(at) = walk.pop() {
            let Ok(directory) = self.directory(at) else {
                continue;
            };
            for child in directory.live.values() {
                *counts.entry(*child).or_default() += 1;
                walk.push(*child);
            }
        }
        for (id, node) in &mut self.nodes {
            if let Node::File(file) = node {
                file.names = counts.get(id).copied().unwrap_or_default();
            }
        }
    }

    /// Drops what no name, durable or not, and no handle leads to.
    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::new();
        let mut walk = vec![ROOT];
        let open = self.nodes.iter().filter(|(_, node)| matches!(node, Node::File(file) if file.opens > 0));
        walk.extend(open.map(|(id, _)| *id));
        while let Some(at) = walk.pop() {
            if !reached.insert(at) {
                continue;
            }
            let Ok(directory) = self.directory(at) else {
                continue;
            };
            walk.extend(directory.live.values().chain(directory.durable.values()));
            let pending = directory.pending.iter().flat_map(|change| &change.sets);
            walk.extend(pending.filter_map(|(_, node)| *node));
        }
        self.nodes.retain(|id, _| reached.contains(id));
    }
}

impl Directory {
    fn set_live(&mut self, name: &str, node: Option<NodeId>) {
        match node {
            Some(node) => self.live.insert(name.to_owned(), node),
            None => self.live.remove(name),
        };
    }

    /// Takes the names back to the durable ones and those whose change survives.
    fn cut(&mut self, id: NodeId, survive: &BTreeSet<(NodeId, u64)>) {
        self.live = self.durable.clone();
        for change in std::mem::take(&mut self.pending) {
            if survive.contains(&(id, change.order)) {
                for (name, node) in &change.sets {
                    self.set_live(name, *node);
                }
            }
        }
        self.durable = self.live.clone();
    }
}

/// The names on the way to `path`; every path begins at the root.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?.to_owned());
            }
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}
