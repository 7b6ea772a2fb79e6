use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

use crate::output::CliError;

/// The first bytes of a gzip file (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// At least so many bytes are read at a time.
const READ_BYTES: usize = 128 << 10;

/// Bytes to import, decompressed, with a window on those not yet used.
pub(crate) struct Source {
    reader: Box<dyn Read + Send>,
    /// Bytes taken from the file itself, compressed as they may be.
    consumed: Arc<AtomicU64>,
    total: Option<u64>,
    bytes: Vec<u8>,
    start: usize,
    at_end: bool,
}

impl Source {
    /// Opens a file, or stdin for `-`; gzip is recognised by its first bytes.
    ///
    /// Fails with the code `input` if it cannot be opened or read.
    pub(crate) fn open(path: &str) -> Result<Self, CliError> {
        let failed = |error: io::Error| {
            CliError::new("input", format!("cannot read {path:?}: {error}"))
                .hint("name a CSV or NDJSON file, gzipped or not, or - for stdin")
        };
        if path == "-" {
            return Self::new(io::stdin(), None).map_err(failed);
        }
        let file = File::open(Path::new(path)).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Self::new(file, metadata.is_file().then_some(metadata.len())).map_err(failed)
    }

    /// Reads from anywhere; `total` is the length in bytes if it is known.
    pub(crate) fn new(reader: impl Read + Send + 'static, total: Option<u64>) -> io::Result<Self> {
        let consumed = Arc::new(AtomicU64::new(0));
        let mut counting = Counting { reader, consumed: Arc::clone(&consumed) };
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        Read::take(&mut counting, GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
        let is_gzip = magic == GZIP_MAGIC;
        let whole = Cursor::new(magic).chain(counting);
        let reader: Box<dyn Read + Send> = if is_gzip {
            Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(READ_BYTES, whole)))
        } else {
            Box::new(whole)
        };
        Ok(Self { reader, consumed, total, bytes: Vec::new(), start: 0, at_end: false })
    }

    /// Bytes taken from the file so far, as it is compressed: what a progress bar shows.
    pub(crate) fn consumed_bytes(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// The length of the file in bytes, if it is one.
    pub(crate) fn total_bytes(&self) -> Option<u64> {
        self.total
    }

    /// What has been read and not used.
    pub(super) fn window(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Whether nothing comes after the window.
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// Takes `count` bytes off the front of the window.
    pub(super) fn advance(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
    }

    /// Makes the window longer, at least twofold unless the input ends: whoever looks at it again from its start does
    /// so a logarithmic number of times.
    pub(super) fn extend(&mut self) -> io::Result<()> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let wanted = self.bytes.len().max(READ_BYTES);
        let got = Read::take(&mut self.reader, wanted as u64).read_to_end(&mut self.bytes)?;
        self.at_end = got < wanted;
        Ok(())
    }
}

/// Counts what is read.
struct Counting<R> {
    reader: R,
    consumed: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buf)?;
        self.consumed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::Source;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn all(bytes: Vec<u8>) -> std::io::Result<String> {
        let mut source = Source::new(std::io::Cursor::new(bytes), None)?;
        while !source.is_at_end() {
            source.extend()?;
        }
        Ok(String::from_utf8(source.window().to_vec()).unwrap())
    }

    #[test]
    fn gzip_is_recognised_in_all_its_members() {
        let text = "x".repeat(300_000);
        assert_eq!(all(text.clone().into_bytes()).unwrap(), text);
        assert_eq!(all([gzip(&text), gzip("tail")].concat()).unwrap(), format!("{text}tail"));
        for short in ["", "a", "ab"] {
            assert_eq!(all(short.into()).unwrap(), short);
        }
    }

    #[test]
    fn a_cut_file_is_an_error_not_an_end() {
        let whole = gzip(&"some text ".repeat(1_000));
        assert!(all(whole[..whole.len() - 9].to_vec()).is_err());
    }

    #[test]
    fn progress_is_counted_in_compressed_bytes() {
        let whole = gzip(&"some text ".repeat(100_000));
        let len = whole.len() as u64;
        let mut source = Source::new(std::io::Cursor::new(whole), Some(len)).unwrap();
        while !source.is_at_end() {
            source.extend().unwrap();
            assert!(source.consumed_bytes() <= len);
        }
        assert_eq!((source.consumed_bytes(), source.total_bytes()), (len, Some(len)));
        assert_eq!(source.window().len(), 1_000_000);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Source::open("no/such/file.csv").err().unwrap();
        assert_eq!(error.code, "input");
        assert!(error.what.contains("no/such/file.csv"));
        assert!(Source::open("/").is_err());
    }
}
