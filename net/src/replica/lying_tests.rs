//! Sources that do not keep to what they announced, over real sockets: the target refuses each with words that name the lie, keeps nothing
//! of it, and takes the rest from a source that keeps its word.

use std::sync::atomic::{AtomicU64, Ordering};

use planaria_engine::{Batch, CLONE_CHUNK_BYTES, Database, Durability, FilePin};
use tokio::task::JoinSet;

use super::super::secondary::open_session;
use super::super::tests::{Cluster, equal, options};
use super::super::{decode, encode};
use super::*;
use crate::quic::session::FileSender;
use crate::quic::{AcceptLimits, Endpoint, Peer};
use crate::wire::limits::FILE_CHUNK_BYTES_MAX;
use crate::wire::message::{Call, Response};
use crate::wire::replica::{FileChunk, FileRequest};
use crate::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};
use crate::wire::{Frame, FrameKind};

/// What a source does instead of what it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    /// Bytes of files are others than the list promises.
    WrongBytes,
    /// A file ends before all that was asked for.
    Less,
    /// Bytes go on behind what was asked for, for as long as somebody takes them.
    Endless,
    /// Bytes are said to be of another file.
    AnotherFile,
    /// Bytes are said to lie elsewhere.
    AnotherPlace,
    /// More bytes are announced at once than a chunk has.
    HugeChunk,
    /// Chunks are cut in two.
    HalfChunks,
    /// Frames come that have no place there.
    AnotherFrame,
    /// Nothing comes.
    Silence,
    /// The list is no list.
    Nonsense,
    /// The list has a file that is longer than any.
    LongFile,
    /// The list does not name all runs.
    MissingFile,
    /// The list never ends.
    EndlessList,
    /// In place of the list comes a request.
    Request,
    /// The list cannot be had.
    Refusal,
}

struct Liar {
    pin: Arc<FilePin>,
    lie: Lie,
    /// Bytes that somebody has taken of endless ones.
    taken: Arc<AtomicU64>,
}

impl Handler for Liar {
    fn call(&self, _: &Peer, _: Call, _: &mut Exchange) -> std::result::Result<Response, RemoteError> {
        Ok(Response::Done)
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        let (pin, lie, taken) = (Arc::clone(&self.pin), self.lie, Arc::clone(&self.taken));
        Box::pin(async move {
            // The other side ends it.
            let _ = tell(&session, &pin, lie, &taken).await;
            session.closed().await;
        })
    }
}

impl Liar {
    /// Listens with a lie about a database.
    fn listen(cluster: &Cluster, db: &Database, lie: Lie) -> (Server, Arc<AtomicU64>) {
        let taken = Arc::default();
        let liar = Self { pin: Arc::new(db.pin_files().unwrap()), lie, taken: Arc::clone(&taken) };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = cluster.runtime.block_on(async {
            let (transport, limits) = (Transport::default(), AcceptLimits::default());
            let endpoint = Endpoint::server(address, &cluster.credentials, &transport, limits).unwrap();
            serve(endpoint, Arc::new(liar), ServeLimits::default())
        });
        (server, taken)
    }
}

/// One session of a liar.
async fn tell(session: &ReplicaSession, pin: &Arc<FilePin>, lie: Lie, taken: &AtomicU64) -> Result<()> {
    session.receive().await?;
    match lie {
        Lie::Request => {
            let request = FileRequest { lease: 0, file: FileId(1), offset: 0, length: 1 };
            session.fetch(request).await?;
            return Ok(());
        }
        Lie::Refusal => return refuse(session, RemoteError::new("tired", "not today")).await,
        _ => {}
    }
    let mut list = session.open_bulk(bytes::Bytes::new()).await?;
    if lie == Lie::EndlessList {
        loop {
            list.send(vec![0; LIST_PART_BYTES].into()).await?;
            taken.fetch_add(LIST_PART_BYTES as u64, Ordering::Relaxed);
        }
    }
    let mut told = pin.list().clone();
    match lie {
        Lie::LongFile => told.files[0].len = u64::MAX,
        Lie::MissingFile => drop(told.files.remove(0)),
        _ => {}
    }
    let told = if lie == Lie::Nonsense { vec![0xff; 1_000].into() } else { encode(&told)? };
    list.send(told).await?;
    list.finish().await?;
    let mut sending = JoinSet::new();
    loop {
        let Opened::File(request, sender) = session.accept().await? else { return Ok(()) };
        let (kind, number) = file_of(request.file);
        let chunk = bulk::read(
            pin,
            kind,
            number,
            request.offset,
            request.length.min(u64::from(FILE_CHUNK_BYTES_MAX)) as usize,
        )?;
        match lie {
            Lie::Endless => endless(request, sender, chunk, taken).await?,
            Lie::WrongBytes | Lie::HalfChunks => {
                sending.spawn(send_all(request, sender, Arc::clone(pin), lie));
            }
            _ => drop(sending.spawn(send(request, sender, chunk, lie))),
        }
    }
}

/// Goes on behind the end.
async fn endless(
    request: FileRequest,
    mut sender: FileSender,
    chunk: bytes::Bytes,
    taken: &AtomicU64,
) -> Result<()> {
    let length = chunk.len() as u32;
    let mut offset = request.offset;
    loop {
        let head = FileChunk { file: request.file, offset, length };
        sender.raw().write_with(head.frame(), chunk.clone()).await?;
        taken.fetch_add(u64::from(length), Ordering::Relaxed);
        offset += u64::from(length);
    }
}

/// Sends all that is asked for, each chunk changed or cut in two.
async fn send_all(request: FileRequest, mut sender: FileSender, pin: Arc<FilePin>, lie: Lie) -> Result<()> {
    let (kind, number) = file_of(request.file);
    while sender.remaining() > 0 {
        let offset = request.end()? - sender.remaining();
        let length = sender.remaining().min(CLONE_CHUNK_BYTES) as usize;
        let chunk = bulk::read(&pin, kind, number, offset, length)?;
        if lie == Lie::HalfChunks {
            sender.send(chunk.slice(..length / 2)).await?;
            sender.send(chunk.slice(length / 2..)).await?;
        } else {
            let mut wrong = chunk.to_vec();
            wrong[length / 2] ^= 1;
            sender.send(wrong.into()).await?;
        }
    }
    sender.finish().await
}

/// Sends the first chunk of what is asked for, in a way that is wrong.
async fn send(request: FileRequest, mut sender: FileSender, chunk: bytes::Bytes, lie: Lie) -> Result<()> {
    let right = FileChunk { file: request.file, offset: request.offset, length: chunk.len() as u32 };
    let raw = sender.raw();
    match lie {
        Lie::Less => raw.write(Frame::new(FrameKind::BulkEnd, bytes::Bytes::new())).await?,
        Lie::AnotherFile => {
            let head = FileChunk { file: FileId(request.file.0 + 1), ..right };
            raw.write_with(head.frame(), chunk).await?;
        }
        Lie::AnotherPlace => {
            let head = FileChunk { offset: right.offset + CLONE_CHUNK_BYTES, ..right };
            raw.write_with(head.frame(), chunk).await?;
        }
        Lie::HugeChunk => raw.write_with(FileChunk { length: u32::MAX, ..right }.frame(), chunk).await?,
        Lie::AnotherFrame => raw.write(Frame::new(FrameKind::Bulk, chunk)).await?,
        _ => std::future::pending().await,
    }
    raw.finish();
    // What was sent is to arrive.
    raw.stopped().await;
    Ok(())
}

/// A database whose files have several chunks.
fn fill(db: &Database) {
    let (table, mut batch) = (db.create_raw_table("t").unwrap(), Batch::new());
    for number in 0..3_000_u64 {
        let word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let row: Vec<u8> =
            (0..125_u64).flat_map(|turn| (word ^ (turn * turn)).wrapping_mul(word).to_le_bytes()).collect();
        batch.put(table.id(), number.to_be_bytes(), row);
    }
    db.write(batch, Durability::Synced).unwrap();
    db.flush().unwrap();
}

#[test]
fn a_source_that_lies_is_refused_by_what_it_did_and_another_one_has_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    fill(&db);
    let target = dir.path().join("copy");
    let take = |address, silence_max| {
        let taking = Taking { silence_max, ..Taking::new(&target, CloneRole::Detached, &options()) };
        let transport = Transport::default();
        cluster.runtime.block_on(take_clone(address, &cluster.credentials, &transport, &taking, |_| {}))
    };
    for (lie, words) in [
        (Lie::WrongBytes, "other bytes than it promised"),
        (Lie::Less, "the end of a file"),
        (Lie::Endless, "were not asked for"),
        (Lie::AnotherFile, "were not asked for"),
        (Lie::AnotherPlace, "were not asked for"),
        (Lie::HugeChunk, "more than 1 MiB"),
        (Lie::HalfChunks, "other bytes than it promised"),
        (Lie::AnotherFrame, "bytes of a file"),
        (Lie::Silence, "sent nothing of a file"),
        (Lie::Nonsense, "cannot be read"),
        (Lie::LongFile, "makes no sense"),
        (Lie::MissingFile, "makes no sense"),
        (Lie::Request, "asked for a file"),
        (Lie::Refusal, "not today"),
    ] {
        let (server, taken) = Liar::listen(&cluster, &db, lie);
        let patience = if lie == Lie::Silence { Duration::from_millis(50) } else { SILENCE_MAX };
        let error = take(server.local_address(), patience).unwrap_err();
        assert!(error.to_string().contains(words), "{lie:?}: {error}");
        assert!(!target.exists(), "{lie:?}");
        // What is not taken is not sent: the windows bound it.
        let bound = u64::from(Transport::default().window_bytes) * 2 + db.pin_files().unwrap().list().bytes();
        assert!(taken.load(Ordering::Relaxed) < bound, "{lie:?}");
        cluster.runtime.block_on(server.shutdown(Duration::from_millis(100)));
    }
    let done = take(cluster.address, SILENCE_MAX).unwrap();
    assert!(done.resumed_bytes < done.total_bytes, "{done:?}");
    let copy = Database::open_with(&target, options()).unwrap();
    copy.verify().unwrap();
    equal(&copy, &db);
}

#[test]
fn a_list_that_never_ends_is_given_up_at_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    fill(&db);
    let (server, taken) = Liar::listen(&cluster, &db, Lie::EndlessList);
    let limit = 3 << 20;
    let refused = cluster.runtime.block_on(async {
        let (address, transport) = (server.local_address(), Transport::default());
        let (_endpoint, session) =
            open_session(address, &cluster.credentials, &transport, &Opening::Clone).await.unwrap();
        receive_encoded(&session, limit).await.unwrap_err()
    });
    assert!(refused.to_string().contains("too long"), "{refused}");
    assert!(taken.load(Ordering::Relaxed) < limit as u64 + 2 * u64::from(Transport::default().window_bytes));
    cluster.runtime.block_on(server.shutdown(Duration::from_millis(100)));
}

#[test]
fn only_a_clone_that_was_taken_whole_is_noted_by_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    fill(&db);
    // One that hears the list and goes away.
    cluster.runtime.block_on(async {
        let transport = Transport::default();
        let (_endpoint, session) =
            open_session(cluster.address, &cluster.credentials, &transport, &Opening::Clone).await.unwrap();
        let list: FileList = receive_list(&session).await.unwrap();
        assert!(decode::<FileList>(&encode(&list).unwrap()).unwrap() == list);
        session.connection().farewell(CloseCode::Refused, "it does not fit").await;
    });
    let target = dir.path().join("copy");
    let done = cluster.runtime.block_on(clone_from(
        cluster.address,
        &cluster.credentials,
        &Transport::default(),
        &target,
        CloneRole::Detached,
        &options(),
        |_| {},
    ));
    done.unwrap();
    for _ in 0..30_000 {
        if !db.clones().unwrap().is_empty() && cluster.primary.going_out().is_empty() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let noted = db.clones().unwrap();
    assert_eq!(noted.len(), 1, "{noted:?}");
}
