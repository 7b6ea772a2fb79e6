/// The longest key, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 64 * 1024 - 1;
/// The longest row, in bytes.
pub(crate) const MAX_ROW_BYTES: usize = crate::commit::MAX_ROW_BYTES;
/// The largest block before compression, in bytes: one record of the greatest size and what surrounds it.
pub(crate) const MAX_BLOCK_BYTES: usize = MAX_ROW_BYTES + (1 << 20);

/// How the data blocks of a run are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Codec {
    /// Not at all: the blocks of a mapped file are read in place.
    #[default]
    None = 0,
    /// LZ4, block format. A block that does not shrink by an eighth stays as it is.
    Lz4 = 1,
}

impl Codec {
    /// The codec that `byte` stands for in a block's trailer. 2 is reserved for zstd.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            _ => None,
        }
    }
}

/// How a run is laid out. No option changes what a reader answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunOptions {
    /// The compression of data blocks.
    pub(crate) codec: Codec,
    /// The size that a data block does not exceed before compression, unless one record alone does; in bytes, from
    /// 256 to 16 MiB.
    pub(crate) block_bytes: usize,
    /// After how many entries a key is stored in full; at least 1.
    pub(crate) restart_interval: u8,
    /// Filter bits for each distinct key; 0 leaves the filter out.
    pub(crate) bits_per_key: u8,
    /// Whether the index holds a fingerprint of each block, and the meta data that of the run.
    pub(crate) fingerprints: bool,
    /// Whether all records are of one commit that has no UID yet. They are added at UID zero, and there are no
    /// fingerprints: those cover UIDs.
    pub(crate) one_commit: bool,
}

impl RunOptions {
    /// The options with each value moved into its range.
    pub(crate) fn clamped(mut self) -> Self {
        self.block_bytes = self.block_bytes.clamp(256, 16 << 20);
        self.restart_interval = self.restart_interval.max(1);
        self.fingerprints &= !self.one_commit;
        self
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            codec: Codec::None,
            block_bytes: 8 << 10,
            restart_interval: 16,
            bits_per_key: 10,
            fingerprints: false,
            one_commit: false,
        }
    }
}
