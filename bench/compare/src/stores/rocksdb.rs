#![expect(unsafe_code, reason = "RocksDB is called through its C interface")]

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

use crate::store::{Batch, Error, Purpose, Reader, Records, Result, Setting, Store};

/// Any of the library's objects, which are known by their addresses alone.
type Object = *mut c_void;
type Message = *mut *mut c_char;

// The declarations are those of `rocksdb/c.h`.
#[link(name = "rocksdb")]
unsafe extern "C" {
    fn rocksdb_options_create() -> Object;
    fn rocksdb_options_set_create_if_missing(options: Object, value: c_uchar);
    fn rocksdb_options_increase_parallelism(options: Object, threads: c_int);
    fn rocksdb_options_set_bytes_per_sync(options: Object, bytes: u64);
    fn rocksdb_options_set_level_compaction_dynamic_level_bytes(options: Object, value: c_uchar);
    fn rocksdb_options_set_compression(options: Object, kind: c_int);
    fn rocksdb_options_set_block_based_table_factory(options: Object, table: Object);
    fn rocksdb_block_based_options_create() -> Object;
    fn rocksdb_block_based_options_set_block_size(options: Object, bytes: usize);
    fn rocksdb_block_based_options_set_block_cache(options: Object, cache: Object);
    fn rocksdb_block_based_options_set_filter_policy(options: Object, policy: Object);
    fn rocksdb_filterpolicy_create_bloom_full(bits_per_key: f64) -> Object;
    fn rocksdb_cache_create_lru(bytes: usize) -> Object;
    fn rocksdb_open(options: Object, name: *const c_char, error: Message) -> Object;
    fn rocksdb_close(db: Object);
    fn rocksdb_writeoptions_create() -> Object;
    fn rocksdb_writeoptions_set_sync(options: Object, value: c_uchar);
    fn rocksdb_writebatch_create() -> Object;
    fn rocksdb_writebatch_put(
        batch: Object,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        value_len: usize,
    );
    fn rocksdb_writebatch_destroy(batch: Object);
    fn rocksdb_write(db: Object, options: Object, batch: Object, error: Message);
    fn rocksdb_flushoptions_create() -> Object;
    fn rocksdb_flush(db: Object, options: Object, error: Message);
    fn rocksdb_compact_range(
        db: Object,
        start: *const c_char,
        start_len: usize,
        end: *const c_char,
        end_len: usize,
    );
    fn rocksdb_readoptions_create() -> Object;
    fn rocksdb_get_pinned(
        db: Object,
        options: Object,
        key: *const c_char,
        key_len: usize,
        error: Message,
    ) -> Object;
    fn rocksdb_pinnableslice_value(slice: Object, len: *mut usize) -> *const c_char;
    fn rocksdb_pinnableslice_destroy(slice: Object);
    fn rocksdb_create_iterator(db: Object, options: Object) -> Object;
    fn rocksdb_iter_destroy(iterator: Object);
    fn rocksdb_iter_seek(iterator: Object, key: *const c_char, key_len: usize);
    fn rocksdb_iter_valid(iterator: Object) -> c_uchar;
    fn rocksdb_iter_next(iterator: Object);
    fn rocksdb_iter_key(iterator: Object, len: *mut usize) -> *const c_char;
    fn rocksdb_iter_value(iterator: Object, len: *mut usize) -> *const c_char;
    fn rocksdb_iter_get_error(iterator: Object, error: Message);
    fn rocksdb_envoptions_create() -> Object;
    fn rocksdb_sstfilewriter_create(env: Object, options: Object) -> Object;
    fn rocksdb_sstfilewriter_open(writer: Object, name: *const c_char, error: Message);
    fn rocksdb_sstfilewriter_put(
        writer: Object,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        value_len: usize,
        error: Message,
    );
    fn rocksdb_sstfilewriter_finish(writer: Object, error: Message);
    fn rocksdb_sstfilewriter_destroy(writer: Object);
    fn rocksdb_ingestexternalfileoptions_create() -> Object;
    fn rocksdb_ingestexternalfileoptions_set_move_files(options: Object, value: c_uchar);
    fn rocksdb_ingest_external_file(
        db: Object,
        files: *const *const c_char,
        count: usize,
        options: Object,
        error: Message,
    );
    fn rocksdb_checkpoint_object_create(db: Object, error: Message) -> Object;
    fn rocksdb_checkpoint_create(
        checkpoint: Object,
        dir: *const c_char,
        log_bytes_for_flush: u64,
        error: Message,
    );
    fn rocksdb_checkpoint_object_destroy(checkpoint: Object);
    fn rocksdb_free(place: *mut c_void);
}

/// LZ4, as `rocksdb/c.h` numbers it.
const LZ4: c_int = 4;

/// RocksDB, as its wiki advises ("Setup Options and Basic Tuning"): a filter of ten bits a key, blocks of 16 KiB, levels
/// sized from the last one, LZ4.
pub(crate) struct RocksDb {
    db: Object,
    dir: PathBuf,
    options: Object,
    read: Object,
    write: Object,
}

// SAFETY: the library says that a database may be used by any threads at once; the options are only read.
unsafe impl Send for RocksDb {}
// SAFETY: as above.
unsafe impl Sync for RocksDb {}

/// Reads at the newest state.
pub(crate) struct View<'a>(&'a RocksDb);

/// Calls the library and takes its error, if there is one.
fn checked<T>(call: impl FnOnce(Message) -> T) -> Result<T> {
    let mut message: *mut c_char = null_mut();
    let answer = call(&raw mut message);
    if message.is_null() {
        return Ok(answer);
    }
    // SAFETY: an error is a text that ends with a zero and belongs to whoever called.
    let error = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        rocksdb_free(message.cast());
        text
    };
    Err(Error::from(error))
}

fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

impl Store for RocksDb {
    type Reader<'a> = View<'a>;

    fn open(dir: &Path, setting: &Setting, purpose: Purpose) -> Result<Self> {
        let name = c_path(dir)?;
        let cache_bytes = usize::try_from(setting.cache_bytes)?;
        let threads = std::thread::available_parallelism()?.get() as c_int;
        // SAFETY: every object is made by the library and handed to it once; the options live as long as the process.
        unsafe {
            let table = rocksdb_block_based_options_create();
            rocksdb_block_based_options_set_block_size(table, 16 << 10);
            rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru(cache_bytes));
            rocksdb_block_based_options_set_filter_policy(
                table,
                rocksdb_filterpolicy_create_bloom_full(10.0),
            );
            let options = rocksdb_options_create();
            rocksdb_options_set_create_if_missing(options, 1);
            rocksdb_options_increase_parallelism(options, threads);
            rocksdb_options_set_bytes_per_sync(options, 1 << 20);
            rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
            rocksdb_options_set_compression(options, LZ4);
            rocksdb_options_set_block_based_table_factory(options, table);
            let write = rocksdb_writeoptions_create();
            rocksdb_writeoptions_set_sync(write, c_uchar::from(purpose == Purpose::Durable));
            let db = checked(|error| rocksdb_open(options, name.as_ptr(), error))?;
            Ok(Self { db, dir: dir.into(), options, read: rocksdb_readoptions_create(), write })
        }
    }

    fn write(&self, batch: &Batch) -> Result<()> {
        // SAFETY: keys and values are read during the calls; the batch is destroyed once.
        unsafe {
            let commit = rocksdb_writebatch_create();
            for (key, value) in batch.records() {
                let (key_at, value_at) = (key.as_ptr().cast(), value.as_ptr().cast());
                rocksdb_writebatch_put(commit, key_at, key.len(), value_at, value.len());
            }
            let written = checked(|error| rocksdb_write(self.db, self.write, commit, error));
            rocksdb_writebatch_destroy(commit);
            written
        }
    }

    fn finish_load(&self) -> Result<()> {
        // SAFETY: both objects are the library's; the flush waits by default.
        checked(|error| unsafe { rocksdb_flush(self.db, rocksdb_flushoptions_create(), error) })
    }

    fn settle(&self) -> Result<()> {
        // SAFETY: two nulls mean everything.
        unsafe { rocksdb_compact_range(self.db, null(), 0, null(), 0) };
        Ok(())
    }

    /// One file beside the database, which is then moved into it.
    fn bulk_load(&self, records: &mut Records) -> Result<()> {
        let file = c_path(&self.dir.join("bulk.sst"))?;
        // SAFETY: keys and values are read during the calls; the writer is destroyed once, the options live on.
        unsafe {
            let writer = rocksdb_sstfilewriter_create(rocksdb_envoptions_create(), self.options);
            checked(|error| rocksdb_sstfilewriter_open(writer, file.as_ptr(), error))?;
            while let Some((key, value)) = records.next() {
                let (key_at, value_at) = (key.as_ptr().cast(), value.as_ptr().cast());
                checked(|error| {
                    rocksdb_sstfilewriter_put(writer, key_at, key.len(), value_at, value.len(), error);
                })?;
            }
            checked(|error| rocksdb_sstfilewriter_finish(writer, error))?;
            rocksdb_sstfilewriter_destroy(writer);
            let how = rocksdb_ingestexternalfileoptions_create();
            rocksdb_ingestexternalfileoptions_set_move_files(how, 1);
            let files = [file.as_ptr()];
            checked(|error| rocksdb_ingest_external_file(self.db, files.as_ptr(), files.len(), how, error))
        }
    }

    fn reader(&self) -> Result<View<'_>> {
        Ok(View(self))
    }

    fn clone_to(&self, dir: &Path) -> Result<()> {
        let dir = c_path(dir)?;
        // SAFETY: the checkpoint is made by the library and destroyed once.
        unsafe {
            let checkpoint = checked(|error| rocksdb_checkpoint_object_create(self.db, error))?;
            let made = checked(|error| rocksdb_checkpoint_create(checkpoint, dir.as_ptr(), 0, error));
            rocksdb_checkpoint_object_destroy(checkpoint);
            made
        }
    }
}

impl Reader for View<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        // SAFETY: the key is read during the call; the slice is null or destroyed once, behind its last use.
        unsafe {
            let (db, read, at) = (self.0.db, self.0.read, key.as_ptr().cast());
            let slice = checked(|error| rocksdb_get_pinned(db, read, at, key.len(), error))?;
            if slice.is_null() {
                return Ok(None);
            }
            let mut len = 0;
            rocksdb_pinnableslice_value(slice, &raw mut len);
            rocksdb_pinnableslice_destroy(slice);
            Ok(Some(len))
        }
    }

    fn scan(&mut self, from: &[u8], limit: u64) -> Result<(u64, u64)> {
        let (mut records, mut bytes) = (0, 0);
        // SAFETY: the iterator is the library's, asked only while it is valid, and destroyed once.
        unsafe {
            let iterator = rocksdb_create_iterator(self.0.db, self.0.read);
            rocksdb_iter_seek(iterator, from.as_ptr().cast(), from.len());
            while records < limit && rocksdb_iter_valid(iterator) != 0 {
                let (mut key_len, mut value_len) = (0, 0);
                rocksdb_iter_key(iterator, &raw mut key_len);
                rocksdb_iter_value(iterator, &raw mut value_len);
                records += 1;
                bytes += (key_len + value_len) as u64;
                rocksdb_iter_next(iterator);
            }
            let failed = checked(|error| rocksdb_iter_get_error(iterator, error));
            rocksdb_iter_destroy(iterator);
            failed?;
        }
        Ok((records, bytes))
    }
}

impl Drop for RocksDb {
    fn drop(&mut self) {
        // SAFETY: the database was opened and is closed once, after its last reader.
        unsafe { rocksdb_close(self.db) };
    }
}
