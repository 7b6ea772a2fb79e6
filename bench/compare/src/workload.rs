use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::numbers::{Numbers, Zipfian, fill_value, in_order, scattered};
use crate::store::{BATCH_RECORDS, Batch, Error, Purpose, Reader, Records, Result, Setting, Store};

/// Records of a short scan.
const SHORT_SCAN: u64 = 50;
/// Between two looks at the clock so many operations are done, where they are quick.
const STRIDE: u64 = 64;
/// Clones are taken so often; the median counts.
const CLONES: usize = 3;

/// One result: what was measured, how much, and in which unit.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Figure {
    pub(crate) workload: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
}

/// What a figure counts, and so whether more of it is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Unit {
    /// Operations a second: more is better.
    PerSecond,
    /// Seconds: less is better.
    Seconds,
    /// Bytes: less is better.
    Bytes,
}

/// Workloads that share a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Group {
    /// A load in key order, and a scan of all of it.
    Ordered,
    /// A load in random order, and everything that reads.
    Random,
    /// Commits that wait for the disk.
    Durable,
}

impl Group {
    pub(crate) const ALL: [Self; 3] = [Self::Ordered, Self::Random, Self::Durable];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Random => "random",
            Self::Durable => "durable",
        }
    }
}

/// Runs the workloads of `group` in `dir`, which is empty.
pub(crate) fn run<S: Store>(group: Group, dir: &Path, setting: &Setting) -> Result<Vec<Figure>> {
    let mut figures = match group {
        Group::Ordered => ordered::<S>(dir, setting)?,
        Group::Random => random::<S>(dir, setting)?,
        Group::Durable => durable::<S>(dir, setting)?,
    };
    if group == Group::Random {
        figures.push(bytes("peak memory, map included", peak_memory()?));
    }
    Ok(figures)
}

fn rate(workload: &str, count: u64, took: Duration) -> Figure {
    Figure { workload: workload.into(), value: count as f64 / took.as_secs_f64(), unit: Unit::PerSecond }
}

fn seconds(workload: &str, took: Duration) -> Figure {
    Figure { workload: workload.into(), value: took.as_secs_f64(), unit: Unit::Seconds }
}

fn bytes(workload: &str, bytes: u64) -> Figure {
    Figure { workload: workload.into(), value: bytes as f64, unit: Unit::Bytes }
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let begun = Instant::now();
    let done = work()?;
    Ok((begun.elapsed(), done))
}

/// Loads everything, the `n`-th record under the key `key(n)`, and makes it durable.
fn load<S: Store>(store: &S, setting: &Setting, key: impl Fn(u64) -> [u8; 16]) -> Result<Duration> {
    let (took, ()) = timed(|| {
        let mut batch = Batch::default();
        for number in 0..setting.records {
            batch.push(&key(number), |out| fill_value(out, number, setting.value_bytes));
            if batch.len() as u64 == BATCH_RECORDS || number + 1 == setting.records {
                store.write(&batch)?;
                batch.clear();
            }
        }
        store.finish_load()
    })?;
    Ok(took)
}

fn full_scan<S: Store>(store: &S, setting: &Setting) -> Result<Duration> {
    let mut reader = store.reader()?;
    let (took, (records, bytes)) = timed(|| reader.scan(&[], u64::MAX))?;
    let expected = setting.records * (16 + setting.value_bytes as u64);
    if (records, bytes) != (setting.records, expected) {
        return Err(format!("a scan found {records} records of {bytes} bytes in all").into());
    }
    Ok(took)
}

fn ordered<S: Store>(dir: &Path, setting: &Setting) -> Result<Vec<Figure>> {
    let store = S::open(&dir.join("db"), setting, Purpose::Load { ascending: true })?;
    let took = load(&store, setting, in_order)?;
    full_scan(&store, setting)?;
    let scan = full_scan(&store, setting)?;
    drop(store);
    let store = S::open(&dir.join("bulk"), setting, Purpose::Load { ascending: true })?;
    let (bulk, ()) = timed(|| store.bulk_load(&mut Records::new(setting)))?;
    full_scan(&store, setting)?;
    Ok(vec![
        rate("load in key order", setting.records, took),
        rate("bulk load in key order", setting.records, bulk),
        rate("full scan after a load in order", setting.records, scan),
    ])
}

fn random<S: Store>(dir: &Path, setting: &Setting) -> Result<Vec<Figure>> {
    let purpose = Purpose::Load { ascending: false };
    let path = dir.join("db");
    let store = S::open(&path, setting, purpose)?;
    let mut figures = vec![rate("load in random order", setting.records, load(&store, setting, scattered)?)];
    store.settle()?;
    // The first pass fills the cache.
    full_scan(&store, setting)?;
    point_reads(&store, setting, 1)?;
    figures.push(point_reads(&store, setting, 1)?);
    figures.push(point_reads(&store, setting, 2)?);
    figures.push(rate("full scan", setting.records, full_scan(&store, setting)?));
    figures.push(short_scans(&store, setting)?);
    figures.push(seconds("local clone", clone(&store, dir)?));
    drop(store);
    let (took, store) = timed(|| {
        let store = S::open(&path, setting, purpose)?;
        store.reader()?.get(&scattered(7))?.ok_or("a record is missing after opening")?;
        Ok(store)
    })?;
    figures.push(seconds("open and first read", took));
    figures.push(bytes("size on disk", disk_bytes(&path)?));
    figures.push(mix(&store, setting)?);
    Ok(figures)
}

/// Runs `work` on so many threads for the time of the setting; each call gets the thread's number and a source of
/// numbers, does [`STRIDE`] operations and answers nothing. Returns operations and time.
fn on_threads(
    setting: &Setting,
    threads: u64,
    work: impl Fn(u64, &mut dyn FnMut() -> bool) -> Result<()> + Sync,
) -> Result<(u64, Duration)> {
    let done = AtomicU64::new(0);
    let limit = Duration::from_secs_f64(setting.seconds);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (work, done) = (&work, &done);
                scope.spawn(move || {
                    let mut own = 0_u64;
                    let result = work(thread, &mut || {
                        own += 1;
                        !own.is_multiple_of(STRIDE) || begun.elapsed() < limit
                    });
                    done.fetch_add(own, Ordering::Relaxed);
                    result
                })
            })
            .collect();
        handles.into_iter().try_for_each(|handle| {
            handle.join().map_err(|_| Error::from("a thread of the workload panicked"))?
        })
    })?;
    Ok((done.load(Ordering::Relaxed), begun.elapsed()))
}

fn point_reads<S: Store>(store: &S, setting: &Setting, threads: u64) -> Result<Figure> {
    let (count, took) = on_threads(setting, threads, |thread, more| {
        let mut numbers = Numbers::new(thread + 1);
        let mut reader = store.reader()?;
        loop {
            let key = scattered(numbers.below(setting.records));
            if reader.get(&key)? != Some(setting.value_bytes) {
                return Err("a record that was loaded is not there".into());
            }
            if !more() {
                return Ok(());
            }
        }
    })?;
    Ok(rate(&format!("point reads, {threads} {}", plural(threads, "thread")), count, took))
}

fn short_scans<S: Store>(store: &S, setting: &Setting) -> Result<Figure> {
    let (count, took) = on_threads(setting, 1, |thread, more| {
        let mut numbers = Numbers::new(thread + 7);
        let mut reader = store.reader()?;
        loop {
            let key = scattered(numbers.below(setting.records));
            let (records, _) = reader.scan(&key, SHORT_SCAN)?;
            if records == 0 {
                return Err("a scan from a record that was loaded is empty".into());
            }
            if !more() {
                return Ok(());
            }
        }
    })?;
    Ok(rate("scans of 50", count, took))
}

/// Half reads, half overwrites of one record, by two threads, of keys that are popular to different degrees.
fn mix<S: Store>(store: &S, setting: &Setting) -> Result<Figure> {
    let popularity = Zipfian::new(setting.records);
    let (count, took) = on_threads(setting, 2, |thread, more| {
        let mut numbers = Numbers::new(thread + 11);
        let mut batch = Batch::default();
        loop {
            let number = popularity.draw(&mut numbers);
            let key = scattered(number);
            if numbers.below(2) == 0 {
                store.reader()?.get(&key)?.ok_or("a record that was loaded is not there")?;
            } else {
                batch.clear();
                batch.push(&key, |out| fill_value(out, number, setting.value_bytes));
                store.write(&batch)?;
            }
            if !more() {
                return Ok(());
            }
        }
    })?;
    Ok(rate("zipfian 50/50, 2 threads", count, took))
}

fn clone<S: Store>(store: &S, dir: &Path) -> Result<Duration> {
    let mut times = Vec::new();
    for number in 0..CLONES {
        let target = dir.join(format!("clone-{number}"));
        times.push(timed(|| store.clone_to(&target))?.0);
        std::fs::remove_dir_all(target)?;
    }
    times.sort_unstable();
    Ok(times[CLONES / 2])
}

fn durable<S: Store>(dir: &Path, setting: &Setting) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for writers in [1, 16] {
        let store = S::open(&dir.join(format!("db-{writers}")), setting, Purpose::Durable)?;
        let (count, took) = on_threads(setting, writers, |writer, more| {
            let mut batch = Batch::default();
            for number in 0.. {
                batch.clear();
                let number = (number << 8) + writer;
                batch.push(&scattered(number), |out| fill_value(out, number, setting.value_bytes));
                store.write(&batch)?;
                if !more() {
                    break;
                }
            }
            Ok(())
        })?;
        let name = format!("durable commits, {writers} {}", plural(writers, "writer"));
        figures.push(rate(&name, count, took));
    }
    Ok(figures)
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.into() } else { format!("{noun}s") }
}

/// What the files of a directory take, in bytes; holes take nothing.
fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { disk_bytes(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(sum)
}

/// The most memory that this process had at once, in bytes.
fn peak_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .ok_or("the system does not say how much memory was used")?;
    Ok(kib * 1024)
}
