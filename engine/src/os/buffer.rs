use std::ops::Deref;

/// Files that are opened [`OpenMode::WriteDirect`] take bytes whose place in memory, offset and length are multiples of this, in bytes:
/// what every disk of today can do.
///
/// [`OpenMode::WriteDirect`]: super::OpenMode::WriteDirect
pub const DIRECT_ALIGN: usize = 4 << 10;

/// Memory that is filled again and again, and begins where a disk can take it from directly.
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// An empty buffer for at most `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let bytes = vec![0; capacity + DIRECT_ALIGN];
        let start = bytes.as_ptr().align_offset(DIRECT_ALIGN).min(DIRECT_ALIGN);
        Self { bytes, start, len: 0 }
    }

    /// Forgets its contents.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends as much of `bytes` as there is room for; returns how much that is.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let room = self.bytes.get_mut(self.start + self.len..).unwrap_or_default();
        let count = bytes.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..count), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        self.len += count;
        count
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..self.start + self.len).unwrap_or_default()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{AlignedBuffer, DIRECT_ALIGN};

    #[test]
    fn it_begins_where_a_disk_can_take_it_from_and_takes_no_more_than_it_holds() {
        let mut buffer = AlignedBuffer::new(10_000);
        assert!(buffer.is_empty());
        assert_eq!(buffer.fill(&[1; 6_000]), 6_000);
        assert_eq!(buffer.as_ptr().align_offset(DIRECT_ALIGN), 0);
        assert!(buffer.fill(&[2; 10_000]) >= 4_000);
        assert_eq!((buffer[5_999], buffer[6_000]), (1, 2));
        buffer.clear();
        assert_eq!(buffer.fill(&[3; 5]), 5);
        assert_eq!(&buffer[..], [3; 5]);
    }
}
