use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use planaria_engine::{Options, ReadMode, Role};
use planaria_net::quic::Endpoint;

use super::{print, progress::ByteBar, stdout};
use crate::cli::{Global, ServeArgs};
use crate::interrupt::Interrupts;
use crate::node::{Node, NodeOptions, Spare, leader_of_copy};
use crate::output::{Cell, CliError, Format, Report};

/// `planaria serve`.
pub(super) fn serve(global: &Global, arguments: &ServeArgs) -> Result<(), CliError> {
    let runtime = Arc::new(runtime()?);
    let listen: SocketAddr = arguments.listen.unwrap_or(Endpoint::DEFAULT_ADDRESS);
    let bar = ByteBar::new("copying the primary");
    let mut options = NodeOptions {
        dir: arguments.dir.clone(),
        listen,
        replica_of: arguments.replica_of,
        only: arguments.only.clone(),
        refresh_from: arguments.refresh_from.clone(),
        tls: global.tls.clone(),
        transport: global.transport.clone(),
        level: arguments.level,
        membership: arguments.membership.membership()?,
        stores: arguments.stores()?,
        engine: Options {
            read_mode: ReadMode::Mapped,
            keep_history_ms: arguments.keep_history,
            preserved_bytes_max: arguments.preserve_bytes,
            preserved_age_max_ms: arguments.preserve_age,
            log_tail_bytes: arguments.log_tail,
            cache_bytes: usize::try_from(arguments.cache).unwrap_or(usize::MAX),
            ..Options::default()
        },
    };
    let mut interrupts = {
        let _inside = runtime.enter();
        Interrupts::new()?
    };
    let mut is_announced = false;
    if arguments.spare {
        match wait_for_copy(global, arguments, &runtime, &mut options, &mut interrupts)? {
            Waited::Stopped => return Ok(()),
            Waited::HadCopy => {}
            Waited::GotCopy => is_announced = true,
        }
    }
    let shown = bar.clone();
    let node = Node::start(&runtime, &options, move |progress| {
        shown.show(progress.done_bytes, progress.total_bytes);
    })?;
    bar.finish();
    #[cfg(feature = "metrics")]
    let metrics = arguments
        .metrics
        .map(|listen| crate::metrics::Metrics::start(listen, node.observer(), runtime.handle()))
        .transpose()?;
    #[cfg(feature = "metrics")]
    let figures = metrics.as_ref().map(crate::metrics::Metrics::address);
    #[cfg(not(feature = "metrics"))]
    let figures = None;
    if is_announced {
        // Who started it has read where it listens, and reads no more, maybe.
        tracing::info!(address = %node.address(), "has its copy, and follows the primary");
    } else {
        announce(global, arguments, options.replica_of, &node, figures)?;
    }
    runtime.block_on(interrupts.wait());
    #[cfg(feature = "metrics")]
    drop(metrics);
    drop(node);
    if global.output != Format::Json {
        writeln!(stdout(), "stopped in good order")?;
    }
    Ok(())
}

/// What became of a node that was to wait for its copy.
enum Waited {
    /// It was told to end.
    Stopped,
    /// It had one already.
    HadCopy,
    /// It was given one.
    GotCopy,
}

/// Waits as a node that hosts nothing until it has its copy, and knows whom to follow.
fn wait_for_copy(
    global: &Global,
    arguments: &ServeArgs,
    runtime: &Arc<tokio::runtime::Runtime>,
    options: &mut NodeOptions,
    interrupts: &mut Interrupts,
) -> Result<Waited, CliError> {
    let had_copy = Spare::has_copy(options)?;
    if !had_copy {
        let mut spare = Spare::start(runtime, options)?;
        options.listen = spare.address();
        announce_spare(global, arguments, options.listen)?;
        let waited = async {
            tokio::select! {
                () = interrupts.wait() => false,
                is_seeded = spare.seeded() => is_seeded,
            }
        };
        let is_seeded = runtime.block_on(waited);
        drop(spare);
        if !is_seeded {
            return Ok(Waited::Stopped);
        }
        runtime.block_on(until_free(options.listen));
    }
    let mut is_stopped = |patience| {
        let waited = async { tokio::time::timeout(patience, interrupts.wait()).await };
        runtime.block_on(waited).is_ok()
    };
    options.replica_of = leader_of_copy(runtime, options, &mut is_stopped)?;
    Ok(match options.replica_of {
        None => Waited::Stopped,
        Some(_) if had_copy => Waited::HadCopy,
        Some(_) => Waited::GotCopy,
    })
}

/// Waits until nobody listens at an address: a socket is closed a moment after its last owner let go of it.
async fn until_free(address: SocketAddr) {
    let freed = async {
        while std::net::UdpSocket::bind(address).is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    // Whoever listens next says what is wrong if it is not free by then.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), freed).await;
}

fn announce_spare(global: &Global, arguments: &ServeArgs, address: SocketAddr) -> Result<(), CliError> {
    if global.output == Format::Json {
        let report = Report::new().with("listening", address.to_string()).with("role", "spare");
        return print(global, &report);
    }
    let mut out = stdout();
    writeln!(out, "hosts nothing yet, listening on {address}: the control center gives it a copy")?;
    writeln!(out, "\nin another terminal:")?;
    writeln!(out, "  planaria cluster want DATABASE --standbys COPIES")?;
    writeln!(out, "  planaria cluster clone create --to {} --role standby", arguments.dir.display())?;
    writeln!(out, "\nCtrl-C stops it")?;
    Ok(out.flush()?)
}

/// A runtime for a node's network.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::new("io", format!("cannot start threads for the network: {error}")))
}

/// Says where the node listens and what to type next.
fn announce(
    global: &Global,
    arguments: &ServeArgs,
    replica_of: Option<SocketAddr>,
    node: &Node,
    figures: Option<SocketAddr>,
) -> Result<(), CliError> {
    let (address, db) = (node.address(), node.database());
    if global.output == Format::Json {
        let report = Report::new()
            .with("listening", address.to_string())
            .with("role", if db.role() == Role::Secondary { "secondary" } else { "primary" })
            .with("database", db.id().to_string())
            .with("instance", db.instance().to_string())
            .with("metrics", figures.map_or(Cell::None, |address| address.to_string().into()));
        return print(global, &report);
    }
    let mut out = stdout();
    let dir = arguments.dir.display();
    match replica_of {
        None if db.role() == Role::Secondary => {
            writeln!(out, "secondary in {dir}, following nobody, listening on {address}: it answers reads")?;
            writeln!(out, "\nto follow its primary again:")?;
            writeln!(out, "  planaria serve {dir} --replica-of ADDR")?;
        }
        None => {
            writeln!(out, "primary of {dir}, listening on {address}")?;
            writeln!(out, "\nin another terminal:")?;
            writeln!(out, "  planaria --node {address} status")?;
            writeln!(out, "  planaria --node {address} import FILE.csv --key COLUMN")?;
            writeln!(out, "  planaria serve {dir}-2 --listen 127.0.0.1:0 --replica-of {address}")?;
        }
        Some(primary) => {
            if let Some((copy, from)) = node.first_copy() {
                let bytes = crate::output::bytes(copy.total_bytes);
                writeln!(out, "copied {bytes} in {} files from {from}", copy.files)?;
            }
            let kind = if db.portion().is_some() { "partial secondary" } else { "secondary" };
            writeln!(out, "{kind} in {dir}, following {primary}, listening on {address}")?;
            writeln!(out, "\nin another terminal:")?;
            writeln!(out, "  planaria --node {address} status")?;
            writeln!(out, "  planaria --node {primary} replica list")?;
        }
    }
    if let Some(address) = figures {
        writeln!(out, "\nfigures: http://{address}/metrics")?;
    }
    writeln!(out, "\nCtrl-C stops it")?;
    Ok(out.flush()?)
}
