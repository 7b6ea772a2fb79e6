use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Room taken from the allocator at a time, in bytes: as much as is there already, within these limits.
const CHUNK_BYTES_MIN: usize = 4 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Memory that is handed out in order and given back all at once.
///
/// What was handed out never moves and stays valid until the arena is dropped.
#[derive(Debug, Default)]
pub(super) struct Arena {
    chunks: Vec<(NonNull<u8>, Layout)>,
    next: usize,
    end: usize,
    allocated: usize,
}

// SAFETY: the arena owns its chunks alone; handing them to another thread hands over everything.
unsafe impl Send for Arena {}

impl Arena {
    /// Takes `layout.size()` bytes, aligned as asked; alignments above 16 are not supported.
    pub(super) fn take(&mut self, layout: Layout) -> NonNull<u8> {
        assert!(layout.align() <= 16 && layout.size() > 0, "an arena hands out aligned, non-empty room");
        let start = self.next.next_multiple_of(layout.align());
        if start + layout.size() > self.end || self.chunks.is_empty() {
            return self.take_from_new_chunk(layout);
        }
        self.next = start + layout.size();
        let (chunk, chunk_layout) = self.chunks[self.chunks.len() - 1];
        debug_assert!(self.next <= chunk_layout.size());
        // SAFETY: start + size lies within the last chunk, as `end` is its size.
        unsafe { chunk.add(start) }
    }

    fn take_from_new_chunk(&mut self, layout: Layout) -> NonNull<u8> {
        let bytes = self.allocated.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(layout.size());
        let chunk_layout = Layout::from_size_align(bytes, 16).unwrap_or(layout);
        // SAFETY: the size is not zero.
        let Some(chunk) = NonNull::new(unsafe { alloc(chunk_layout) }) else {
            handle_alloc_error(chunk_layout);
        };
        self.chunks.push((chunk, chunk_layout));
        self.allocated += bytes;
        self.next = layout.size();
        self.end = bytes;
        chunk
    }

    /// Bytes taken from the allocator.
    pub(super) fn allocated(&self) -> usize {
        self.allocated
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for (chunk, layout) in self.chunks.drain(..) {
            // SAFETY: each chunk came from `alloc` with this layout and is freed once.
            unsafe { dealloc(chunk.as_ptr(), layout) };
        }
    }
}
