use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use planaria_backup::{
    AsOf, Backup, Catalog, Created, Error, Pinned, Progress, Source, Store, Wish, create, delete, plan,
    prune, restore, verify,
};
use planaria_engine::os::{Os, Posix};
use planaria_engine::{CloneRole, Database, FileKind, FileList, LogSegment, Options};
use planaria_net::quic::TlsStore;
use planaria_net::replica::RemotePin;
use planaria_types::{InstanceId, Uid};
use tokio::runtime::Runtime;

use super::progress::ByteBar;
use super::serve::runtime;
use super::{print, stdout, target};
use crate::cli::{
    BackupCommand, BackupCreateArgs, CloneFor, Global, NamedArgs, PruneArgs, RestoreArgs, StoreArgs,
    VerifyBackupsArgs, time_of, time_text,
};
use crate::interrupt::on_interrupt;
use crate::output::{Cell, CliError, Heading, Report, RowWriter};
use crate::session::{IfAbsent, Place};
use crate::stopwatch::Stopwatch;

/// `planaria backup`.
pub(super) fn run(global: &Global, command: &BackupCommand) -> Result<(), CliError> {
    let runtime = runtime()?;
    match command {
        BackupCommand::Create(arguments) => make(global, &runtime, arguments),
        BackupCommand::List(arguments) => list(global, &runtime, arguments),
        BackupCommand::Show(arguments) => show(global, &runtime, arguments),
        BackupCommand::Verify(arguments) => check(global, &runtime, arguments),
        BackupCommand::Restore(arguments) => bring_back(global, &runtime, arguments),
        BackupCommand::Delete(arguments) => {
            let (store, catalog) = open(&runtime, &arguments.store)?;
            runtime.block_on(delete(&store, catalog.find(&arguments.name)?))?;
            print(global, &Report::new().with("deleted", arguments.name.clone()))
        }
        BackupCommand::Prune(arguments) => thin_out(global, &runtime, arguments),
    }
}

/// Opens a store and reads its manifests.
fn open(runtime: &Runtime, arguments: &StoreArgs) -> Result<(Store, Catalog), CliError> {
    let store = arguments.place.open(&arguments.access.access()?, false)?;
    let catalog = runtime.block_on(Catalog::load(&store))?;
    Ok((store, catalog))
}

fn make(global: &Global, runtime: &Runtime, arguments: &BackupCreateArgs) -> Result<(), CliError> {
    let stopwatch = Stopwatch::start();
    let place = arguments.place.place(global)?.settled()?;
    let cancelled = on_interrupt()?;
    let wish = |taken_ms| Wish {
        name: arguments.name.clone(),
        id: u128::from(Posix.random_u64()) << 64 | u128::from(Posix.random_u64()),
        taken_ms,
        software: concat!("planaria ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let open = || -> Result<(Store, Catalog), CliError> {
        let store = arguments.to.open(&arguments.access.access()?, true)?;
        let catalog = runtime.block_on(Catalog::load(&store))?;
        Ok((store, catalog))
    };
    let (created, since) = match &place {
        Place::Directory(path) => {
            let database = Database::open_with(path, Options { create: false, ..Options::default() })?;
            let (store, catalog) = open()?;
            let since = since(&catalog, database.instance());
            // Told before the cut: what the backup says of the time after its last commit must hold.
            let wish = wish(Posix.now_millis());
            let source = Pinned::new(database.pin_archive(since)?);
            (send(runtime, &store, &catalog, &source, &wish, &cancelled)?, since)
        }
        Place::Node { tls, .. } | Place::Cluster { tls, .. } => {
            let address = place.address()?;
            let instance = instance_of(&place)?;
            let (store, catalog) = open()?;
            let since = since(&catalog, instance);
            let tls_store = TlsStore::choose(tls.as_deref(), None)?;
            let credentials = if tls.is_some() { tls_store.load()? } else { tls_store.load_or_create()? };
            let wish = wish(Posix.now_millis());
            let pin = RemotePin::open(address, &credentials, &global.transport, since);
            let pin = runtime.block_on(pin)?;
            let source = NodeSource(pin);
            let sent = send(runtime, &store, &catalog, &source, &wish, &cancelled);
            runtime.block_on(source.0.close());
            (sent?, since)
        }
    };
    print(global, &told(&created, since, &stopwatch))
}

/// The copy that a node serves.
fn instance_of(place: &Place) -> Result<InstanceId, CliError> {
    let status = place.open(IfAbsent::Fail)?.status()?;
    let first = status.databases.first();
    first
        .map(|database| database.instance)
        .ok_or_else(|| CliError::new("not_found", "the node has no database"))
}

/// The end of the newest backup of a copy: the log is wanted from there on.
fn since(catalog: &Catalog, instance: InstanceId) -> Option<Uid> {
    catalog.newest_of(instance).map(|backup| backup.position.uid)
}

fn send(
    runtime: &Runtime,
    store: &Store,
    catalog: &Catalog,
    source: &impl Source,
    wish: &Wish,
    cancelled: &Arc<AtomicBool>,
) -> Result<Created, CliError> {
    let bar = ByteBar::new("backing up");
    let created =
        runtime.block_on(create(store, catalog, source, wish, cancelled, |progress| shown(&bar, progress)));
    bar.finish();
    Ok(created?)
}

fn shown(bar: &ByteBar, progress: &Progress) {
    bar.show(progress.done_bytes, progress.total_bytes);
}

fn told(created: &Created, since: Option<Uid>, stopwatch: &Stopwatch) -> Report {
    let Created { backup, objects, sent_objects } = created;
    let reaches = since.is_some_and(|since| replays_from(backup, since));
    described(backup)
        .with("objects", Cell::Count(*objects))
        .with("sent_objects", Cell::Count(*sent_objects))
        .with("log_since_last", Cell::Bool(reaches))
        .with("seconds", Cell::Duration(stopwatch.elapsed()))
}

/// Whether a backup keeps the log from that commit to its own.
fn replays_from(backup: &Backup, since: Uid) -> bool {
    backup.position.uid == since
        || backup.log.iter().any(|segment| segment.above == since && segment.upto > since)
}

fn described(backup: &Backup) -> Report {
    Report::new()
        .with("backup", backup.name.clone())
        .with("updated", time_of(backup.position.uid))
        .with("uid", backup.position.uid.to_string())
        .with("epoch", backup.position.epoch.to_string())
        .with("taken", time_text(backup.taken_ms))
        .with("database", backup.database.to_string())
        .with("source", backup.instance.to_string())
        .with("files", Cell::Count(backup.files))
        .with("bytes", Cell::Bytes(backup.bytes))
        .with("sent_bytes", Cell::Bytes(backup.sent_bytes))
}

fn list(global: &Global, runtime: &Runtime, arguments: &StoreArgs) -> Result<(), CliError> {
    let (_, catalog) = open(runtime, arguments)?;
    let headings = ["name", "updated", "uid", "taken"].map(Heading::text).into_iter();
    let headings = headings.chain(["files", "bytes", "sent_bytes"].map(Heading::number));
    let headings = headings.chain(["log_from", "source", "database"].map(Heading::text)).collect();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for backup in &catalog.backups {
        rows.write(&[
            backup.name.clone().into(),
            time_of(backup.position.uid).into(),
            backup.position.uid.to_string().into(),
            time_text(backup.taken_ms).into(),
            Cell::Count(backup.files),
            Cell::Bytes(backup.bytes),
            Cell::Bytes(backup.sent_bytes),
            backup.log.first().map_or(Cell::None, |segment| time_of(segment.above).into()),
            backup.instance.to_string().into(),
            backup.database.to_string().into(),
        ])?;
    }
    rows.finish()?;
    match catalog.unreadable.into_iter().next() {
        Some((_, error)) => Err(error.into()),
        None => Ok(()),
    }
}

fn show(global: &Global, runtime: &Runtime, arguments: &NamedArgs) -> Result<(), CliError> {
    let (_, catalog) = open(runtime, &arguments.store)?;
    let backup = catalog.find(&arguments.name)?;
    let lineage = backup.lineage.as_ref();
    let report = described(backup)
        .with("id", format!("{:032x}", backup.id))
        .with("software", backup.software.clone())
        .with("cloned_from", lineage.map_or(Cell::None, |lineage| lineage.instance.to_string().into()))
        .with("cloned_at", lineage.map_or(Cell::None, |lineage| lineage.position.uid.to_string().into()))
        .with("log_segments", Cell::Count(backup.log.len() as u64))
        .with("log_from", backup.log.first().map_or(Cell::None, |segment| segment.above.to_string().into()));
    print(global, &report)
}

fn check(global: &Global, runtime: &Runtime, arguments: &VerifyBackupsArgs) -> Result<(), CliError> {
    let stopwatch = Stopwatch::start();
    let (store, catalog) = open(runtime, &arguments.store)?;
    let chosen: Vec<&Backup> = match &arguments.name {
        Some(name) => vec![catalog.find(name)?],
        None => catalog.backups.iter().collect(),
    };
    let (cancelled, bar) = (on_interrupt()?, ByteBar::new("verifying"));
    let verified =
        runtime.block_on(verify(&store, &catalog, &chosen, &cancelled, |progress| shown(&bar, progress)));
    bar.finish();
    let verified = verified?;
    let damage = verified.findings.iter().map(|finding| {
        let needed = if finding.backups.is_empty() {
            String::new()
        } else {
            format!(", needed by {}", finding.backups.join(", "))
        };
        format!("{}{needed}", finding.problem)
    });
    let report = Report::new()
        .with("sound", Cell::Bool(verified.findings.is_empty()))
        .with("backups", Cell::Count(verified.backups))
        .with("objects", Cell::Count(verified.objects))
        .with("bytes", Cell::Bytes(verified.bytes))
        .with("damage", Cell::List(damage.collect()))
        .with("seconds", Cell::Duration(stopwatch.elapsed()));
    print(global, &report)?;
    match verified.findings.into_iter().next() {
        Some(finding) => Err(finding.problem.into()),
        None => Ok(()),
    }
}

fn bring_back(global: &Global, runtime: &Runtime, arguments: &RestoreArgs) -> Result<(), CliError> {
    let stopwatch = Stopwatch::start();
    let (store, catalog) = open(runtime, &arguments.store)?;
    let (name, target) = arguments.name_and_target();
    let backups = catalog.of_one_database(&store, name)?;
    let plan = plan(&backups, name, arguments.as_of.unwrap_or(AsOf::Backup))?;
    let role = match arguments.role {
        CloneFor::Detached => CloneRole::Detached,
        CloneFor::Standby | CloneFor::Backup => CloneRole::Secondary,
    };
    let (cancelled, bar) = (on_interrupt()?, ByteBar::new("restoring"));
    let (options, progress) = (Options::default(), |progress: &Progress| shown(&bar, progress));
    let restored = runtime.block_on(restore(&store, &plan, &target, role, &options, &cancelled, progress));
    bar.finish();
    let restored = restored?;
    let report = Report::new()
        .with("restored", restored.path.display().to_string())
        .with("backup", plan.base.name.clone())
        .with("replayed_segments", Cell::Count(plan.log.len() as u64))
        .with("updated", time_of(restored.position.uid))
        .with("uid", restored.position.uid.to_string())
        .with("files", Cell::Count(restored.files))
        .with("bytes", Cell::Bytes(restored.bytes))
        .with("resumed_bytes", Cell::Bytes(restored.resumed_bytes))
        .with("seconds", Cell::Duration(stopwatch.elapsed()));
    print(global, &report)
}

fn thin_out(global: &Global, runtime: &Runtime, arguments: &PruneArgs) -> Result<(), CliError> {
    let (store, _) = open(runtime, &arguments.store)?;
    let pruned = runtime.block_on(prune(&store, &arguments.kept(), arguments.grace, arguments.dry_run))?;
    let report = Report::new()
        .with("removed", Cell::List(pruned.backups))
        .with("kept", Cell::Count(pruned.kept))
        .with("objects", Cell::Count(pruned.objects))
        .with("bytes", Cell::Bytes(pruned.bytes))
        .with("waiting_objects", Cell::Count(pruned.waiting_objects))
        .with("dry_run", Cell::Bool(arguments.dry_run));
    print(global, &report)
}

/// A cut of a node: what is read of it goes to the store, and is kept nowhere here.
struct NodeSource(RemotePin);

impl Source for NodeSource {
    fn list(&self) -> &FileList {
        self.0.list()
    }

    fn log(&self) -> &[LogSegment] {
        self.0.log()
    }

    async fn read(&self, kind: FileKind, number: u64, offset: u64, len: u64) -> Result<Bytes, Error> {
        let read = self.0.read(kind, number, offset, len).await;
        read.map_err(|error| Error::Source { code: error.code().to_owned(), what: error.to_string() })
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let told = match &error {
            Error::Place { .. } => Self::usage(error.to_string()),
            _ => Self::new(error.code().to_owned(), error.to_string()),
        };
        let why = match &error {
            Error::OutsideKept { below, above, .. } => {
                let told = |uid: &Option<Uid>| {
                    uid.map_or("none".to_owned(), |uid| format!("{} (UID {uid})", time_of(uid)))
                };
                Some(format!("the nearest state before it is {}, after it {}", told(below), told(above)))
            }
            _ => error.why(),
        };
        let told = why.map_or(told.clone(), |why| told.because(why));
        error.hint().map_or(told.clone(), |hint| told.hint(hint))
    }
}
