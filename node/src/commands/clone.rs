use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use planaria_engine::os::{Os, Posix};
use planaria_engine::{CloneAbout, ClonePlace, ClonePurpose, Options};
use planaria_net::quic::TlsStore;
use planaria_net::replica::{CloneProgress, CloneStage, Pace};
use planaria_net::wire::message::{CloneAction, CloneInfo, CloneRole, CloneSpec, CloneTake, Shape};

use super::progress::ByteBar;
use super::serve::runtime;
use super::{print, stdout, target};
use crate::cli::{
    CloneCommand, CloneCreateArgs, CloneDeleteArgs, CloneFor, CloneLifeArgs, CloneNameArgs, Global, PlaceArgs,
};
use crate::clones::{
    Audience, CloneJob, Speed, Taker, check_name, check_preserved, left_ms, leftovers, preserve,
};
use crate::output::{Cell, CliError, Format, Heading, Report, RowWriter};
use crate::session::{IfAbsent, Place, RemoteSession, resolve};
use crate::stopwatch::Stopwatch;

/// How far apart the lines lie that tell programs how far a clone has come, in milliseconds.
const BETWEEN_LINES_MS: u64 = 500;

/// `planaria clone`.
pub(super) fn run(global: &Global, command: &CloneCommand) -> Result<(), CliError> {
    match command {
        CloneCommand::Create(arguments) => create(global, arguments),
        CloneCommand::List(arguments) => list(global, arguments),
        CloneCommand::Show(name) => show(global, name),
        CloneCommand::Wait(name) => wait(global, name),
        CloneCommand::Cancel(name) => act(global, name, CloneAction::Cancel),
        CloneCommand::Promote(name) => act(global, name, CloneAction::Promote),
        CloneCommand::Expire(CloneLifeArgs { name, after: None }) => act(global, name, CloneAction::Expire),
        CloneCommand::Expire(CloneLifeArgs { name, after: Some(life) }) => {
            act(global, name, CloneAction::Live(life.0))
        }
        CloneCommand::Delete(CloneDeleteArgs { name, old: false }) => act(global, name, CloneAction::Delete),
        CloneCommand::Delete(CloneDeleteArgs { name, old: true }) => {
            act(global, name, CloneAction::DeleteOld)
        }
        CloneCommand::Rollback(name) => act(global, name, CloneAction::Rollback),
        CloneCommand::Rate { name, rate } => act(global, name, CloneAction::Rate(rate.0)),
    }
}

/// `planaria clone create`.
fn create(global: &Global, arguments: &CloneCreateArgs) -> Result<(), CliError> {
    if !arguments.preserve.is_empty() && arguments.role != CloneFor::Detached {
        return Err(CliError::usage("a standby or a backup has the rows of its primary and no others")
            .hint("leave --preserve out, or the role"));
    }
    if arguments.role != CloneFor::Detached && !arguments.shape.shape().is_whole() {
        return Err(CliError::usage("a secondary holds what its primary holds")
            .hint("take a detached clone; or `planaria serve --only` holds chosen tables"));
    }
    if arguments.lazy && !arguments.shape.shape().is_whole() {
        return Err(CliError::usage("what a clone is not to have is left out before its first byte is sent")
            .hint("leave --lazy out: such a clone is made at the source, and read when it is complete"));
    }
    let missing: Vec<&Path> =
        arguments.target.ancestors().skip(1).take_while(|above| is_missing(above)).collect();
    create_from(global, arguments, arguments.place.place(global)?.settled()?).inspect_err(|_| {
        // What was made for it goes with it, if nothing else has come there.
        missing.iter().take_while(|above| std::fs::remove_dir(above).is_ok()).for_each(drop);
    })
}

fn is_missing(dir: &Path) -> bool {
    !dir.as_os_str().is_empty() && !Posix.exists(dir)
}

/// Has a clone made of what lies at a place, in the way that it can be.
fn create_from(global: &Global, arguments: &CloneCreateArgs, place: Place) -> Result<(), CliError> {
    match place {
        Place::Node { address, tls, .. } if !arguments.from.is_empty() => {
            have_taken(global, &address, tls.as_deref(), arguments)
        }
        Place::Directory(_) if !arguments.from.is_empty() => {
            Err(CliError::usage("--from is for a node that takes a clone").hint("name the node with --node"))
        }
        Place::Node { address, tls, .. } if !arguments.on_node => {
            fetch(global, &address, tls.as_deref(), arguments)
        }
        place => link(global, &place, arguments),
    }
}

/// Makes a clone on the disk of its source.
fn link(global: &Global, place: &Place, arguments: &CloneCreateArgs) -> Result<(), CliError> {
    let stopwatch = Stopwatch::start();
    if arguments.role != CloneFor::Detached {
        return Err(CliError::usage("a clone on the same disk is a database of its own")
            .hint("for a secondary use `planaria serve NEW --replica-of ADDR`"));
    }
    if arguments.rate.is_some() || arguments.connections.is_some() {
        return Err(CliError::usage("a clone on the same disk moves nothing over a network")
            .hint("leave --rate and --connections out"));
    }
    let is_here = matches!(place, Place::Directory(_));
    name_of(arguments)?;
    if !is_here && (arguments.replace || arguments.ttl.is_some() || arguments.name.is_some()) {
        return Err(CliError::usage("a clone on the node's own disk is made at once, and is listed nowhere")
            .hint("have the node take it from itself: --from with its own address"));
    }
    let session = place.open(IfAbsent::Fail)?;
    let own = ClonePlace::new(&arguments.target, Arc::new(Posix));
    let replaces = arguments.replace && own.is_there();
    let made = if replaces {
        own.abandon()?;
        check_preserved(&arguments.target, &arguments.preserve, &Options::default())?;
        own.next()
    } else {
        arguments.target.clone()
    };
    let clone = session.clone_locally(&made, arguments.shape.shape())?;
    if replaces {
        if let Err(error) = preserve(&arguments.target, &made, &arguments.preserve, &Options::default()) {
            own.abandon()?;
            return Err(error.into());
        }
        own.install()?;
    }
    let ttl_s = arguments.ttl.and_then(|life| life.0);
    if is_here && (ttl_s.is_some() || arguments.name.is_some()) {
        let made_ms = Posix.now_millis();
        own.set_about(&CloneAbout {
            name: name_of(arguments)?,
            purpose: ClonePurpose::Detached,
            source: place.argument(),
            made_ms,
            expires_ms: ttl_s.map(|ttl_s| made_ms.saturating_add(ttl_s.saturating_mul(1_000))),
        })?;
    }
    let shown = if replaces { arguments.target.display().to_string() } else { clone.target };
    let report = Report::new()
        .with("clone", shown)
        .with("kind", "local")
        .with("cut", clone.cut.map(|cut| cut.to_string()).unwrap_or_default())
        .with("bytes", Cell::Bytes(clone.done_bytes))
        .with("seconds", Cell::Duration(stopwatch.elapsed()));
    print(global, &report)
}

/// Has a node take a clone of another node's database, and does not wait for it.
fn have_taken(
    global: &Global,
    address: &str,
    tls: Option<&Path>,
    arguments: &CloneCreateArgs,
) -> Result<(), CliError> {
    let sources = arguments.from.iter().map(|source| resolve(source)).collect::<Result<_, _>>()?;
    let Shape { as_of, leave_out, filters, masks } = arguments.shape.shape();
    let take = CloneTake {
        spec: CloneSpec {
            as_of,
            leave_out,
            filters,
            masks,
            name: name_of(arguments)?,
            role: match arguments.role {
                CloneFor::Detached => CloneRole::Detached,
                CloneFor::Standby => CloneRole::Standby,
                CloneFor::Backup => CloneRole::Backup,
            },
            rate_bytes_per_s: arguments.rate.and_then(|rate| rate.0),
            ttl_s: arguments.ttl.and_then(|life| life.0),
            preserve: arguments.preserve.clone(),
            hydrating: arguments.lazy,
            ..CloneSpec::default()
        },
        sources,
        dir: Some(arguments.target.display().to_string()),
        replace: arguments.replace,
        patience_s: None,
    };
    let info = RemoteSession::connect(address, tls)?.clone_take(take)?;
    print(global, &report_of(&info))
}

/// What a clone is called: as somebody says, or as its directory.
fn name_of(arguments: &CloneCreateArgs) -> Result<String, CliError> {
    let of_dir = || arguments.target.file_name().map(|name| name.display().to_string()).unwrap_or_default();
    let Some(name) = &arguments.name else { return Ok(of_dir()) };
    check_name(name).map_err(|error| CliError::usage(error.what).hint("give another one with --name"))?;
    Ok(name.clone())
}

/// Takes a clone of a node's database into a directory of this machine.
fn fetch(
    global: &Global,
    address: &str,
    tls: Option<&Path>,
    arguments: &CloneCreateArgs,
) -> Result<(), CliError> {
    let stopwatch = Stopwatch::start();
    let store = TlsStore::choose(tls, None)?;
    let credentials = if tls.is_some() { store.load()? } else { store.load_or_create()? };
    let job = CloneJob {
        name: name_of(arguments)?,
        dir: arguments.target.clone(),
        sources: vec![resolve(address)?],
        purpose: match arguments.role {
            CloneFor::Detached => ClonePurpose::Detached,
            CloneFor::Standby => ClonePurpose::Standby,
            CloneFor::Backup => ClonePurpose::Backup,
        },
        rate_bytes_per_s: arguments.rate.and_then(|rate| rate.0),
        ttl_s: arguments.ttl.and_then(|life| life.0),
        replace: arguments.replace,
        preserve: arguments.preserve.clone(),
        // Whoever sits before the command sees that the source is away, and calls again.
        patience_s: 0,
        shape: arguments.shape.shape(),
        lazy: false,
    };
    let engine = Options::default();
    if !job.replace && engine.os.exists(&job.dir) {
        return Err(planaria_engine::Error::Exists { path: job.dir }.into());
    }
    let created_ms = engine.os.now_millis();
    let runtime = runtime()?;
    let mut transport = global.transport.clone();
    if let Some(connections) = arguments.connections {
        transport.clone_connections = connections;
    }
    let taker = Taker { credentials, transport, engine, runtime: runtime.handle().clone() };
    let shown = Arc::new(Shown::new(&job.name, global.output == Format::Json));
    let taken = taker.take(&job, created_ms, &Arc::new(Pace::new(job.rate_bytes_per_s)), &shown);
    shown.bar.finish();
    taken?;
    let told = shown.told.lock();
    let cloned = &told.progress;
    let report = Report::new()
        .with("clone", job.dir.display().to_string())
        .with("kind", "remote")
        .with("files", Cell::Count(cloned.files))
        .with("bytes", Cell::Bytes(cloned.total_bytes))
        .with("resumed_bytes", Cell::Bytes(cloned.resumed_bytes))
        .with("linked_bytes", Cell::Bytes(cloned.linked_bytes))
        .with("way", told.way.clone())
        .with("seconds", Cell::Duration(stopwatch.elapsed()));
    print(global, &report)
}

/// Whoever sits before a command that takes a clone.
struct Shown {
    name: String,
    is_for_programs: bool,
    bar: ByteBar,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    progress: CloneProgress,
    speed: Speed,
    way: String,
    /// The time and stage of the last line.
    line: Option<(u64, CloneStage)>,
}

impl Shown {
    fn new(name: &str, is_for_programs: bool) -> Self {
        let bar = ByteBar::new("listing");
        Self { name: name.to_owned(), is_for_programs, bar, told: Mutex::default() }
    }

    fn line(&self, told: &Told) {
        let progress = &told.progress;
        let rate = told.speed.bytes_per_s();
        let line = serde_json::json!({"progress": {
            "clone": self.name,
            "stage": progress.stage.name(),
            "bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
            "resumed_bytes": progress.resumed_bytes,
            "bytes_per_second": rate,
            "seconds_left": left_ms(progress.total_bytes.saturating_sub(progress.done_bytes), rate)
                .map(|ms| ms.div_ceil(1_000)),
        }});
        // Whoever does not read how far it has come gets the clone all the same.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

impl Audience for Shown {
    fn begins(&self, _: SocketAddr) {
        let mut told = self.told.lock();
        (told.speed, told.line) = (Speed::default(), None);
    }

    fn progress(&self, progress: &CloneProgress) {
        self.bar.stage(progress.stage.name());
        self.bar.show(progress.done_bytes, progress.total_bytes);
        let mut told = self.told.lock();
        told.progress = progress.clone();
        told.speed.note(progress.elapsed_ms, progress.moved_bytes());
        let is_news = told.line.is_none_or(|(at, stage)| {
            stage != progress.stage || progress.elapsed_ms >= at + BETWEEN_LINES_MS
        });
        if self.is_for_programs && is_news {
            told.line = Some((progress.elapsed_ms, progress.stage));
            self.line(&told);
        }
    }

    fn way(&self, way: &str) {
        way.clone_into(&mut self.told.lock().way);
    }

    fn trouble(&self, source: SocketAddr, why: &str) {
        tracing::info!(%source, why, "the source did not give all");
    }
}

/// `planaria clone list`.
fn list(global: &Global, arguments: &PlaceArgs) -> Result<(), CliError> {
    let place = arguments.place(global)?;
    let mut clones = place.open(IfAbsent::Fail)?.clones()?;
    if let Place::Directory(dir) = &place {
        let os: Arc<dyn Os> = Arc::new(Posix);
        clones.extend(leftovers(dir.parent().unwrap_or(Path::new(".")), &os));
    }
    let headings = ["name", "state", "role", "target", "cut", "from"].map(Heading::text);
    let numbers = ["bytes", "total_bytes", "rate", "left"].map(Heading::number);
    let rest = ["expires_ms", "why"].map(Heading::text);
    let headings = headings.into_iter().chain(numbers).chain(rest).collect();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for clone in clones {
        rows.write(&[
            clone.name.into(),
            clone.state.into(),
            role_name(clone.role).into(),
            clone.target.into(),
            clone.cut.map(|cut| cut.to_string()).unwrap_or_default().into(),
            clone.from.into(),
            Cell::Bytes(clone.done_bytes),
            clone.total_bytes.map_or(Cell::None, Cell::Bytes),
            clone.bytes_per_s.map_or(Cell::None, Cell::Bytes),
            clone.left_ms.map_or(Cell::None, duration),
            clone.expires_ms.map_or(Cell::None, Cell::Count),
            clone.reasons.last().cloned().unwrap_or_default().into(),
        ])?;
    }
    rows.finish()?;
    Ok(())
}

/// Where a clone is: on a node by its name, or in a directory.
fn remote(global: &Global) -> Result<Option<RemoteSession>, CliError> {
    let tls = global.tls.as_deref();
    Ok(match (&global.node, global.cluster_named()) {
        (Some(address), _) => Some(RemoteSession::connect(address, tls)?),
        (None, Some((center, database))) => Some(RemoteSession::route(center, database, tls)?),
        (None, None) => None,
    })
}

/// `planaria clone show`.
fn show(global: &Global, name: &CloneNameArgs) -> Result<(), CliError> {
    if let Some(session) = remote(global)? {
        return print(global, &report_of(&session.clone_show(&name.clone)?));
    }
    let place = place_of(name);
    let is_anywhere = place.is_there() || !place.partials().is_empty() || place.has_replaced();
    found(&place, is_anywhere, "there is no clone, and nothing of one")?;
    print(global, &report_of_directory(&describe(&place)?))
}

/// `planaria clone wait`.
fn wait(global: &Global, name: &CloneNameArgs) -> Result<(), CliError> {
    let Some(session) = remote(global)? else {
        return Err(CliError::usage("a clone in a directory is waited for by the command that takes it")
            .hint("with --node, the node's clones are waited for"));
    };
    loop {
        let info = session.clone_do(&name.clone, CloneAction::Wait)?;
        match info.state.as_str() {
            "queued" | "running" | "hydrating" => {}
            "complete" => return print(global, &report_of(&info)),
            state => {
                let why = info.reasons.last().cloned().unwrap_or_default();
                return Err(CliError::new(
                    "not_complete",
                    format!("the clone {:?} is {state}: {why}", info.name),
                ));
            }
        }
    }
}

/// Does something with a clone, and shows it afterwards.
fn act(global: &Global, name: &CloneNameArgs, action: CloneAction) -> Result<(), CliError> {
    if let Some(session) = remote(global)? {
        return print(global, &report_of(&session.clone_do(&name.clone, action)?));
    }
    let place = place_of(name);
    match action {
        CloneAction::Promote => drop(place.promote(&Options::default())?),
        CloneAction::Rollback => {
            found(&place, place.has_replaced(), "nothing that it has replaced is kept")?;
            place.roll_back()?;
        }
        CloneAction::Live(for_s) => {
            check_is_clone(&place)?;
            let about = place
                .about()?
                .unwrap_or_else(|| CloneAbout { name: describe_name(&place), ..CloneAbout::default() });
            let now_ms = Posix.now_millis();
            let expires_ms = for_s.map(|for_s| now_ms.saturating_add(for_s.saturating_mul(1_000)));
            place.set_about(&CloneAbout { expires_ms, ..about })?;
        }
        CloneAction::Cancel => {
            found(&place, place.abandon()?, "nothing is left of a clone that was interrupted")?;
        }
        CloneAction::Delete | CloneAction::Expire => {
            if !place.is_there() {
                return Err(planaria_engine::Error::NotFound { path: place.dir().to_path_buf() }.into());
            }
            check_is_clone(&place)?;
            place.remove()?;
            place.drop_replaced()?;
        }
        CloneAction::DeleteOld => {
            found(&place, place.drop_replaced()?, "nothing that it has replaced is kept")?;
        }
        CloneAction::Wait | CloneAction::Rate(_) => {
            return Err(
                CliError::usage("that is for clones that a node takes").hint("name the node with --node")
            );
        }
    }
    print(global, &report_of_directory(&describe(&place)?))
}

fn check_is_clone(place: &ClonePlace) -> Result<(), CliError> {
    if place.is_clone()? {
        return Ok(());
    }
    let what = format!(
        "{} is no clone: nothing says that it was cloned from another database",
        place.dir().display()
    );
    Err(CliError::new("no_clone", what)
        .hint("a database that is not needed any more is a directory like any other"))
}

fn found(place: &ClonePlace, was_there: bool, otherwise: &str) -> Result<(), CliError> {
    if was_there {
        return Ok(());
    }
    Err(CliError::new("not_found", format!("{}: {otherwise}", place.dir().display())))
}

fn place_of(name: &CloneNameArgs) -> ClonePlace {
    ClonePlace::new(PathBuf::from(&name.clone), Arc::new(Posix))
}

fn describe_name(place: &ClonePlace) -> String {
    place.dir().file_name().map(|name| name.display().to_string()).unwrap_or_default()
}

/// What is to be said of a clone in a directory, without opening it. Nothing is changed: somebody may be at work on it.
fn describe(place: &ClonePlace) -> Result<CloneInfo, CliError> {
    let about = place.about()?.unwrap_or_default();
    let state = match (place.is_there(), place.partials().is_empty()) {
        (true, true) => "complete",
        (true, false) => "complete, and another one is being made of it",
        (false, false) => "interrupted",
        (false, true) => "absent",
    };
    let role = match about.purpose {
        ClonePurpose::Detached => CloneRole::Detached,
        ClonePurpose::Standby => CloneRole::Standby,
        ClonePurpose::Backup => CloneRole::Backup,
    };
    let total_bytes = if place.is_there() { Some(bytes_below(place.dir())?) } else { None };
    Ok(CloneInfo {
        total_bytes,
        done_bytes: total_bytes.unwrap_or_default(),
        name: if about.name.is_empty() { describe_name(place) } else { about.name },
        state: state.to_owned(),
        role,
        target: place.dir().display().to_string(),
        from: about.source,
        expires_ms: about.expires_ms,
        keeps_old: place.has_replaced(),
        ..CloneInfo::default()
    })
}

/// The bytes of all files below a directory; of one that goes meanwhile, none.
fn bytes_below(dir: &Path) -> io::Result<u64> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let entries = match std::fs::read_dir(dir) {
        Err(error) if gone(&error) => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        bytes += match entry.metadata() {
            Err(error) if gone(&error) => 0,
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path())?,
            Ok(metadata) => metadata.len(),
        };
    }
    Ok(bytes)
}

fn role_name(role: CloneRole) -> &'static str {
    match role {
        CloneRole::Detached => "detached",
        CloneRole::Standby => "standby",
        CloneRole::Backup => "backup",
        CloneRole::Store => "store",
    }
}

fn duration(ms: u64) -> Cell {
    Cell::Duration(std::time::Duration::from_millis(ms))
}

/// How it came is written down by nodes alone; of a directory that is not complete, how much of it is there is told by
/// whoever goes on with it.
fn report_of_directory(info: &CloneInfo) -> Report {
    let came = ["moved_bytes", "resumed_bytes", "linked_bytes"];
    let unknown = came.into_iter().chain(info.total_bytes.is_none().then_some("bytes"));
    unknown.fold(report_of(info), Report::untold)
}

fn report_of(info: &CloneInfo) -> Report {
    let text = |text: &str| if text.is_empty() { Cell::None } else { text.to_owned().into() };
    Report::new()
        .with("name", info.name.clone())
        .with("state", info.state.clone())
        .with("stage", text(&info.stage))
        .with("role", role_name(info.role))
        .with("target", info.target.clone())
        .with("from", text(&info.from))
        .with("way", text(&info.way))
        .with("cut", info.cut.map_or(Cell::None, |cut| cut.to_string().into()))
        .with("bytes", Cell::Bytes(info.done_bytes))
        .with("total_bytes", info.total_bytes.map_or(Cell::None, Cell::Bytes))
        .with("moved_bytes", Cell::Bytes(info.moved_bytes))
        .with("resumed_bytes", Cell::Bytes(info.resumed_bytes))
        .with("linked_bytes", Cell::Bytes(info.linked_bytes))
        .with("rate", info.bytes_per_s.map_or(Cell::None, Cell::Bytes))
        .with("rate_max", info.rate_bytes_per_s.map_or(Cell::None, Cell::Bytes))
        .with("left", info.left_ms.map_or(Cell::None, duration))
        .with("expires_ms", info.expires_ms.map_or(Cell::None, Cell::Count))
        .with("keeps_old", Cell::Bool(info.keeps_old))
        .with("reasons", Cell::List(info.reasons.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_at_a_clone_in_a_directory_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let place = ClonePlace::new(root.path().join("copy"), Arc::new(Posix));
        // What a removal that was interrupted has left is for whoever changes something next.
        let dropped = root.path().join("copy.dropped");
        std::fs::create_dir(&dropped).unwrap();
        assert_eq!(describe(&place).unwrap().state, "absent");
        assert!(dropped.exists());
        // Somebody may be at work on it.
        let claimed = ClonePlace::new(place.dir(), Arc::new(Posix)).claim().unwrap();
        assert_eq!(describe(&place).unwrap().state, "absent");
        assert_eq!(place.settle().unwrap_err().code(), "busy");
        drop(claimed);
        place.settle().unwrap();
        assert!(!dropped.exists());
    }

    #[test]
    fn a_clone_in_a_directory_is_as_large_as_its_files() {
        let root = tempfile::tempdir().unwrap();
        let place = ClonePlace::new(root.path().join("copy"), Arc::new(Posix));
        assert_eq!(describe(&place).unwrap().total_bytes, None);
        let db = planaria_engine::Database::open(place.dir()).unwrap();
        db.create_raw_table("t").unwrap().put(b"key", b"row").unwrap();
        drop(db);
        let info = describe(&place).unwrap();
        let files = ["MANIFEST", "LOCK"].map(|name| place.dir().join(name).metadata().unwrap().len());
        assert!(info.total_bytes.unwrap() > files.iter().sum(), "{info:?}");
        assert_eq!(info.total_bytes, Some(info.done_bytes));
    }
}
