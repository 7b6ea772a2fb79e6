//! A skip list with one writer and any number of readers that never wait.
//!
//! Pugh, "Skip Lists", 1990; the arrangement (arena, one writer, publication by a release store from the bottom level
//! up) is `LevelDB`'s. Nodes are never removed and never move, so a reader needs no protection but the arena's life.

use std::alloc::Layout;
use std::cmp::Ordering as Order;
use std::ptr;

use planaria_types::Uid;

use super::arena::Arena;
use crate::cursor::RecordKind;
use crate::key_order::head;
use crate::sync::{self, AtomicPtr, AtomicUsize, Mutex, Ordering};

const HEIGHT_MAX: usize = 12;
/// One node in four reaches the next level.
const BRANCHING_BITS: u32 = 2;

/// The fixed part of a node. The links, the key and the row follow in memory.
#[repr(C)]
struct Node {
    uid: Uid,
    /// The head of the key: most comparisons need no more, and no other cache line.
    head: u64,
    key_len: u32,
    row_len: u32,
    height: u8,
    kind: RecordKind,
}

type Link = AtomicPtr<Node>;

const LINKS_OFFSET: usize = size_of::<Node>().next_multiple_of(align_of::<Link>());

impl Node {
    /// The link of `level`.
    ///
    /// # Safety
    ///
    /// `node` points to a node of this list and `level` is below its height.
    unsafe fn link<'a>(node: *const Self, level: usize) -> &'a Link {
        // SAFETY: `height` links lie behind the fixed part, written before the node was published.
        unsafe { &*node.byte_add(LINKS_OFFSET).cast::<Link>().add(level) }
    }

    /// The key and, behind it, the row.
    ///
    /// # Safety
    ///
    /// `node` points to a published node, not the head, whose arena outlives `'a`.
    unsafe fn bytes<'a>(node: *const Self) -> (&'a [u8], &'a [u8]) {
        // SAFETY: both lie behind the links, were written before the node was published and never change.
        unsafe {
            let start =
                node.byte_add(LINKS_OFFSET + usize::from((*node).height) * size_of::<Link>()).cast::<u8>();
            let key_len = (*node).key_len as usize;
            (
                std::slice::from_raw_parts(start, key_len),
                std::slice::from_raw_parts(start.add(key_len), (*node).row_len as usize),
            )
        }
    }

    /// Where the node stands to `sought`: by key, ascending, then by UID, descending.
    ///
    /// # Safety
    ///
    /// As for [`Node::bytes`].
    #[inline]
    unsafe fn order(node: *const Self, sought: &Sought<'_>) -> Order {
        // SAFETY: the caller's promise.
        unsafe {
            (*node)
                .head
                .cmp(&sought.head)
                .then_with(|| Self::bytes(node).0.cmp(sought.key))
                .then_with(|| sought.uid.cmp(&(*node).uid))
        }
    }
}

/// A place in the order of the versions.
struct Sought<'a> {
    key: &'a [u8],
    head: u64,
    uid: Uid,
}

impl<'a> Sought<'a> {
    fn new(key: &'a [u8], uid: Uid) -> Self {
        Self { key, head: head(key, 0), uid }
    }
}

/// What only the writer touches.
struct Writer {
    arena: Arena,
    height: usize,
    random: u64,
    /// The last node inserted and, for every level, the last node at or before it.
    last: *const Node,
    before: [*const Node; HEIGHT_MAX],
}

/// A sorted set of record versions.
pub(super) struct SkipList {
    head: *const Node,
    writer: Mutex<Writer>,
    bytes: AtomicUsize,
}

// SAFETY: nodes are shared as immutable memory with atomic links; everything else of the writer's is behind its lock.
unsafe impl Send for SkipList {}
// SAFETY: as above.
unsafe impl Sync for SkipList {}

/// A node of a list, or the end.
#[derive(Clone, Copy)]
pub(super) struct Entry(*const Node);

// SAFETY: an entry is a shared reference to immutable memory with atomic links; whoever keeps one keeps the list.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl SkipList {
    pub(super) fn new() -> Self {
        let mut arena = Arena::default();
        let head = new_node(&mut arena, HEIGHT_MAX, &[], Uid::ZERO, RecordKind::Put, &[]);
        let writer = Writer {
            arena,
            height: 1,
            random: 0x9e37_79b9_7f4a_7c15,
            last: ptr::null(),
            before: [head; HEIGHT_MAX],
        };
        Self { head, writer: Mutex::new(writer), bytes: AtomicUsize::new(0) }
    }

    /// Bytes taken, in whole chunks.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Inserts one version. A version with the same key and UID must not be there.
    pub(super) fn insert(&self, key: &[u8], uid: Uid, kind: RecordKind, row: &[u8]) {
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        self.find_before(writer, &Sought::new(key, uid));
        let height = writer.draw_height();
        writer.height = writer.height.max(height);
        let node = new_node(&mut writer.arena, height, key, uid, kind, row);
        for level in 0..height {
            // SAFETY: `before[level]` is the head or a node of at least this height; `node` has `height` links.
            unsafe {
                let link = Node::link(writer.before[level], level);
                Node::link(node, level).store(link.load(Ordering::Relaxed), Ordering::Relaxed);
                link.store(node.cast_mut(), Ordering::Release);
            }
            writer.before[level] = node;
        }
        writer.last = node;
        self.bytes.store(writer.arena.allocated(), Ordering::Relaxed);
    }

    /// Finds, for every level, the last node before `sought`. What comes in order, as the records of a commit do, costs
    /// only as many levels as it lies apart: where the next node of a level is not before `sought`, the path of the last
    /// insertion holds from there up.
    fn find_before(&self, writer: &mut Writer, sought: &Sought<'_>) {
        // SAFETY: the closure gets published nodes only.
        let is_before = |node: *const Node| unsafe { Node::order(node, sought) == Order::Less };
        let (mut node, mut level) = (self.head, writer.height);
        if !writer.last.is_null() && is_before(writer.last) {
            level = 0;
            while level < writer.height {
                // SAFETY: `before[level]` is the head or a node of at least this height.
                let next = unsafe { Node::link(writer.before[level], level) }.load(Ordering::Relaxed);
                if next.is_null() || !is_before(next) {
                    break;
                }
                // It lies behind the path on every level below.
                node = next;
                level += 1;
            }
        }
        for level in (0..level).rev() {
            node = Self::last_before(node, level, is_before);
            writer.before[level] = node;
        }
    }

    /// Walks right on `level` from `node` for as long as `is_before` holds of the next one.
    fn last_before(
        mut node: *const Node,
        level: usize,
        is_before: impl Fn(*const Node) -> bool,
    ) -> *const Node {
        loop {
            // SAFETY: `node` is the head or was reached on this level or above, so it has a link here.
            let next = unsafe { Node::link(node, level) }.load(Ordering::Acquire);
            if let Some(below) = level.checked_sub(1).filter(|_| sync::HAS_CACHE) {
                // Half of the steps go down: what comes next there is fetched while `next` is compared.
                // SAFETY: as above.
                prefetch(unsafe { Node::link(node, below) }.load(Ordering::Relaxed));
            }
            if next.is_null() || !is_before(next) {
                return node;
            }
            node = next;
        }
    }

    /// The last node of which `is_before` holds, which must hold of a prefix of the list; the head if of none.
    fn search(&self, is_before: impl Fn(*const Node) -> bool) -> *const Node {
        let mut node = self.head;
        for level in (0..HEIGHT_MAX).rev() {
            node = Self::last_before(node, level, &is_before);
        }
        node
    }

    fn entry_unless_head(&self, node: *const Node) -> Entry {
        Entry(if ptr::eq(node, self.head) { ptr::null() } else { node })
    }

    pub(super) fn first(&self) -> Entry {
        // SAFETY: the head has links on every level.
        Entry(unsafe { Node::link(self.head, 0) }.load(Ordering::Acquire))
    }

    pub(super) fn last(&self) -> Entry {
        self.entry_unless_head(self.search(|_| true))
    }

    /// The first version at or after (key, uid).
    pub(super) fn seek(&self, key: &[u8], uid: Uid) -> Entry {
        let sought = Sought::new(key, uid);
        // SAFETY: the closure gets published nodes only.
        let before = self.search(|node| unsafe { Node::order(node, &sought) == Order::Less });
        // SAFETY: `before` is the head or a published node.
        Entry(unsafe { Node::link(before, 0) }.load(Ordering::Acquire))
    }

    /// About `most` of `versions` versions, each as likely as any other: the nodes of a level that has so few of them.
    pub(super) fn sample(&self, versions: usize, most: usize) -> Vec<Entry> {
        let (mut level, mut expected) = (0, versions);
        while expected > most && level + 1 < HEIGHT_MAX {
            expected >>= BRANCHING_BITS;
            level += 1;
        }
        let mut node = self.head.cast_mut();
        let next = std::iter::from_fn(|| {
            // SAFETY: `node` is the head or was reached on this level, so it has a link here.
            node = unsafe { Node::link(node, level) }.load(Ordering::Acquire);
            (!node.is_null()).then_some(Entry(node))
        });
        // Chance may have given the level more than its part.
        next.take(most.saturating_mul(2)).collect()
    }

    /// The last version before every version of `key`.
    pub(super) fn seek_before(&self, key: &[u8]) -> Entry {
        // SAFETY: the closure gets published nodes only.
        self.entry_unless_head(self.search(|node| unsafe { Node::bytes(node).0 < key }))
    }

    #[expect(clippy::unused_self, reason = "the list is what keeps the entry in memory")]
    pub(super) fn next(&self, entry: Entry) -> Entry {
        if entry.is_end() {
            return entry;
        }
        // SAFETY: a non-null entry is a published node.
        Entry(unsafe { Node::link(entry.0, 0) }.load(Ordering::Acquire))
    }

    pub(super) fn prev(&self, entry: Entry) -> Entry {
        if entry.is_end() {
            return entry;
        }
        let sought = Sought::new(entry.key(), entry.uid());
        // SAFETY: the closure gets published nodes only.
        self.entry_unless_head(self.search(|node| unsafe { Node::order(node, &sought) == Order::Less }))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Entry {
    pub(super) const END: Self = Self(ptr::null());

    pub(super) fn is_end(self) -> bool {
        self.0.is_null()
    }

    /// The key; valid for as long as the list lives, which the caller sees to.
    pub(super) fn key<'a>(self) -> &'a [u8] {
        assert!(!self.is_end(), "the end of a list has no key");
        // SAFETY: a non-null entry is a published node.
        unsafe { Node::bytes(self.0).0 }
    }

    pub(super) fn row<'a>(self) -> &'a [u8] {
        assert!(!self.is_end(), "the end of a list has no row");
        // SAFETY: a non-null entry is a published node.
        unsafe { Node::bytes(self.0).1 }
    }

    pub(super) fn uid(self) -> Uid {
        assert!(!self.is_end(), "the end of a list has no UID");
        // SAFETY: a non-null entry is a published node.
        unsafe { (*self.0).uid }
    }

    pub(super) fn kind(self) -> RecordKind {
        assert!(!self.is_end(), "the end of a list has no kind");
        // SAFETY: a non-null entry is a published node.
        unsafe { (*self.0).kind }
    }
}

/// Has the beginning of a node brought into the cache, where that can be asked for. Any address will do.
#[inline]
fn prefetch(node: *const Node) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(node.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = node;
}

impl Writer {
    fn draw_height(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let zeros = (self.random >> 8).trailing_zeros();
        (1 + (zeros / BRANCHING_BITS) as usize).min(HEIGHT_MAX)
    }
}

/// Writes a node, not yet linked, into the arena.
#[expect(clippy::cast_ptr_alignment, reason = "the arena hands out room aligned for both")]
fn new_node(
    arena: &mut Arena,
    height: usize,
    key: &[u8],
    uid: Uid,
    kind: RecordKind,
    row: &[u8],
) -> *const Node {
    let bytes_offset = LINKS_OFFSET + height * size_of::<Link>();
    let size = bytes_offset + key.len() + row.len();
    let align = align_of::<Node>().max(align_of::<Link>());
    let layout = Layout::from_size_align(size, align).unwrap_or_else(|_| Layout::new::<Node>());
    assert_eq!(layout.size(), size, "keys and rows are limited before they get here");
    let place = arena.take(layout).as_ptr();
    let (key_len, row_len) = (key.len() as u32, row.len() as u32);
    let fixed = Node { uid, head: head(key, 0), key_len, row_len, height: height as u8, kind };
    // SAFETY: `place` has room for the fixed part, `height` links, key and row, aligned for the first two, and nobody
    // else knows it yet.
    unsafe {
        place.cast::<Node>().write(fixed);
        for level in 0..height {
            place.add(LINKS_OFFSET).cast::<Link>().add(level).write(Link::new(ptr::null_mut()));
        }
        ptr::copy_nonoverlapping(key.as_ptr(), place.add(bytes_offset), key.len());
        ptr::copy_nonoverlapping(row.as_ptr(), place.add(bytes_offset + key.len()), row.len());
    }
    place.cast::<Node>()
}
