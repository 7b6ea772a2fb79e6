use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use planaria_control::{ControlHandler, Settings, StoreCatalog};
use planaria_engine::os::Posix;
use planaria_net::quic::{AcceptLimits, Endpoint, TlsStore, Transport};
use planaria_net::wire::rpc::{ServeLimits, serve};

use super::serve::runtime;
use super::{print, stdout};
use crate::cli::{ControlArgs, Global};
use crate::cluster::default_address;
use crate::interrupt::Interrupts;
use crate::output::{CliError, Format, Report};

/// How long running calls may take to end when the control center stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// `planaria control`.
pub(super) fn run(global: &Global, arguments: &ControlArgs) -> Result<(), CliError> {
    let runtime = runtime()?;
    let catalog = StoreCatalog::open(&arguments.dir)?;
    let store = TlsStore::choose(global.tls.as_deref(), Some(&arguments.dir))?;
    let credentials = if global.tls.is_some() { store.load()? } else { store.load_or_create()? };
    let settings = Settings {
        lost_after_ms: arguments.lost_after,
        seed_after_ms: arguments.seed_after,
        measure_every_ms: arguments.measure_every,
        ..Settings::default()
    };
    let handler = Arc::new(ControlHandler::new(Box::new(catalog), settings, Arc::new(Posix))?);
    let token = handler.token().to_string();
    let listen = arguments.listen.unwrap_or_else(default_address);
    let (server, mut interrupts) = {
        let _inside = runtime.enter();
        let interrupts = Interrupts::new()?;
        let endpoint =
            Endpoint::server(listen, &credentials, &Transport::default(), AcceptLimits::default())?;
        (serve(endpoint, handler, ServeLimits::default()), interrupts)
    };
    let address = server.local_address().to_string();
    if global.output == Format::Json {
        print(global, &Report::new().with("listening", address).with("join_token", token))?;
    } else {
        let mut out = stdout();
        writeln!(out, "control center in {}, listening on {address}", arguments.dir.display())?;
        writeln!(out, "\nin another terminal:")?;
        writeln!(out, "  planaria serve birds --control {address} --join-token {token}")?;
        writeln!(out, "  planaria cluster show --control {address}")?;
        writeln!(out, "\nCtrl-C stops it")?;
        out.flush()?;
    }
    runtime.block_on(interrupts.wait());
    runtime.block_on(server.shutdown(STOP_PATIENCE));
    if global.output != Format::Json {
        writeln!(stdout(), "stopped in good order")?;
    }
    Ok(())
}
