use std::time::Duration;

use planaria_engine::Value;
use planaria_net::quic::TlsStore;
use planaria_net::wire::control::{ControlRequest, ControlResponse, DatabaseInfo, SourceInfo};
use planaria_net::wire::message::AsOf;
use planaria_net::wire::routes::{RouteInfo, TargetInfo};
use planaria_types::Uid;

use super::cluster_clones::{backup, clones, limits, schedules, wants};
use super::cluster_rules::rules;
use super::cluster_stores::stores;
use super::serve::runtime;
use super::{print, stdout, target};
use crate::cli::{CenterArgs, ClusterCommand, Global, NodeCommand, TokenCommand};
use crate::cluster::{ControlClient, wrong_answer};
use crate::output::{Cell, CliError, Heading, Report, RowWriter};

/// `planaria cluster`.
pub(super) fn run(global: &Global, command: &ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Show(center) => show(global, center, ControlRequest::Databases),
        ClusterCommand::Mode { database, mode, center } => {
            let request = ControlRequest::SetMode { database: database.clone(), mode: (*mode).into() };
            show(global, center, request)
        }
        ClusterCommand::Clone(command) => clones(global, command),
        ClusterCommand::Store(command) => stores(global, command),
        ClusterCommand::Backup(arguments) => backup(global, arguments),
        ClusterCommand::Schedule(command) => schedules(global, command),
        ClusterCommand::Rule(command) => rules(global, command),
        ClusterCommand::Limits { center, set } => limits(global, center, set.as_ref()),
        ClusterCommand::Want { database, standbys, backups, center } => {
            let set = database.as_ref().map(|name| (name, *standbys, *backups));
            wants(global, center, set)
        }
        ClusterCommand::Nodes(center) => nodes(global, center, ControlRequest::Nodes),
        ClusterCommand::Node(NodeCommand::Remove(removal)) => {
            nodes(global, &removal.center, removal.request())
        }
        ClusterCommand::Token(TokenCommand::Show(center)) => token(global, center, ControlRequest::Token),
        ClusterCommand::Token(TokenCommand::Renew(center)) => {
            token(global, center, ControlRequest::RenewToken)
        }
        ClusterCommand::Instances(center) => instances(global, center),
        ClusterCommand::Links(center) => links(global, center),
        ClusterCommand::History { center, limit } => history(global, center, *limit),
        ClusterCommand::Route { database, max_staleness, center } => {
            let (database, staleness_max_ms) = (database.clone(), *max_staleness);
            match ask(global, center, ControlRequest::Route { database, staleness_max_ms })? {
                ControlResponse::Route(route) => tell_route(global, route),
                _ => Err(wrong_answer(center.address()?)),
            }
        }
        ClusterCommand::ChooseSource { center, to, database, period } => {
            let (to, database) = (to.clone(), database.clone());
            let as_of = AsOf::Newest;
            let request = ControlRequest::ChooseSource { to, database, period_ms: *period, as_of };
            match ask(global, center, request)? {
                ControlResponse::Source(source) => tell_source(global, source),
                _ => Err(wrong_answer(center.address()?)),
            }
        }
    }
}

pub(super) fn ask(
    global: &Global,
    center: &CenterArgs,
    request: ControlRequest,
) -> Result<ControlResponse, CliError> {
    let runtime = runtime()?;
    let tls = global.tls.as_deref();
    let store = TlsStore::choose(tls, None)?;
    let credentials = if tls.is_some() { store.load()? } else { store.load_or_create()? };
    let client = ControlClient::connect(runtime.handle(), center.address()?, &credentials)?;
    client.call(request)
}

/// Writes rows under headings; numbers have a `#` in front of their heading.
pub(super) fn write(
    global: &Global,
    headings: &[&str],
    rows: impl IntoIterator<Item = Vec<Cell>>,
) -> Result<(), CliError> {
    let heading = |name: &&str| name.strip_prefix('#').map_or_else(|| Heading::text(*name), Heading::number);
    let mut out = RowWriter::new(stdout(), target(global), headings.iter().map(heading).collect(), "")?;
    for row in rows {
        out.write(&row)?;
    }
    out.finish()?;
    Ok(())
}

fn show(global: &Global, center: &CenterArgs, request: ControlRequest) -> Result<(), CliError> {
    let ControlResponse::Databases(databases) = ask(global, center, request)? else {
        return Err(wrong_answer(center.address()?));
    };
    let headings = [
        "name", "mode", "level", "primary", "address", "led", "#copies", "#heard", "#stores", "epoch",
        "note", "database",
    ];
    let row = |database: DatabaseInfo| {
        vec![
            database.name.into(),
            database.mode.name().into(),
            text(database.level),
            text(database.primary),
            text(database.address),
            Cell::Bool(database.is_led),
            Cell::Count(database.copies.into()),
            Cell::Count(database.copies_heard.into()),
            Cell::Count(database.stores.into()),
            database.epoch.to_string().into(),
            text(database.note),
            database.database.to_string().into(),
        ]
    };
    write(global, &headings, databases.into_iter().map(row))
}

fn nodes(global: &Global, center: &CenterArgs, request: ControlRequest) -> Result<(), CliError> {
    let ControlResponse::Nodes(nodes) = ask(global, center, request)? else {
        return Err(wrong_answer(center.address()?));
    };
    let headings = [
        "name",
        "address",
        "heard",
        "#heard_ago",
        "#copies",
        "spare",
        "token",
        "#free",
        "#capacity",
        "labels",
        "software",
    ];
    let row = |node: planaria_net::wire::control::NodeInfo| {
        vec![
            node.name.into(),
            node.address.into(),
            Cell::Bool(node.is_heard),
            node.heard_ago_ms.map_or(Cell::None, |ms| Cell::Duration(Duration::from_millis(ms))),
            Cell::Count(node.copies.into()),
            node.spare.map_or(Cell::None, |role| role.name().into()),
            if node.has_older_token { "older" } else { "current" }.into(),
            Cell::Bytes(node.free_bytes),
            Cell::Bytes(node.capacity_bytes),
            text(node.labels),
            text(node.software),
        ]
    };
    write(global, &headings, nodes.into_iter().map(row))
}

fn token(global: &Global, center: &CenterArgs, request: ControlRequest) -> Result<(), CliError> {
    let ControlResponse::Token { token, older_nodes } = ask(global, center, request)? else {
        return Err(wrong_answer(center.address()?));
    };
    let report = Report::new().with("join_token", token.to_string());
    print(global, &report.with("nodes_with_an_older_one", Cell::Count(older_nodes.into())))
}

fn instances(global: &Global, center: &CenterArgs) -> Result<(), CliError> {
    let ControlResponse::Instances(instances) = ask(global, center, ControlRequest::Instances)? else {
        return Err(wrong_answer(center.address()?));
    };
    let headings = [
        "database",
        "node",
        "role",
        "state",
        "heard",
        "promotable",
        "durable",
        "update_time",
        "#lag_ms",
        "#bytes",
        "instance",
    ];
    let row = |copy: planaria_net::wire::control::InstanceInfo| {
        vec![
            copy.database.into(),
            copy.node.into(),
            copy.role.name().into(),
            if copy.stored.is_empty() { copy.state.name().into() } else { copy.stored.into() },
            Cell::Bool(copy.is_heard),
            Cell::Bool(copy.is_promotable),
            copy.position.uid.to_string().into(),
            update_time(copy.update),
            // Of one that is not heard nobody knows.
            if copy.is_heard { Cell::Count(copy.lag_ms) } else { Cell::None },
            Cell::Bytes(copy.bytes),
            copy.instance.to_string().into(),
        ]
    };
    write(global, &headings, instances.into_iter().map(row))
}

fn links(global: &Global, center: &CenterArgs) -> Result<(), CliError> {
    let ControlResponse::Links(links) = ask(global, center, ControlRequest::Links)? else {
        return Err(wrong_answer(center.address()?));
    };
    let row = |link: planaria_net::wire::links::LinkInfo| {
        vec![
            link.from.into(),
            link.to.into(),
            link.distance.into(),
            round_trip(link.round_trip_us),
            time(link.measured_ms),
            text(link.what),
        ]
    };
    let headings = ["from", "to", "distance", "#round_trip", "measured", "note"];
    write(global, &headings, links.into_iter().map(row))
}

fn round_trip(micros: Option<u64>) -> Cell {
    micros.map_or(Cell::None, |micros| Cell::Duration(Duration::from_micros(micros)))
}

fn history(global: &Global, center: &CenterArgs, limit: u32) -> Result<(), CliError> {
    let ControlResponse::History(events) = ask(global, center, ControlRequest::History { limit })? else {
        return Err(wrong_answer(center.address()?));
    };
    let row = |event: planaria_net::wire::control::EventInfo| {
        vec![
            Cell::Count(event.number),
            time(event.at_ms),
            event.kind.into(),
            text(event.database),
            text(event.node),
            event.what.into(),
            Cell::List(event.reasons),
        ]
    };
    let headings = ["#number", "at", "kind", "database", "node", "what", "reasons"];
    write(global, &headings, events.into_iter().map(row))
}

/// Tells of each copy whether clients are sent there, in the order in which they try.
fn tell_route(global: &Global, route: RouteInfo) -> Result<(), CliError> {
    let headings = ["node", "address", "role", "serves", "#age", "code", "why"];
    let row = |target: TargetInfo| {
        vec![
            target.node.into(),
            target.address.to_string().into(),
            target.role.name().into(),
            Cell::Bool(target.serves),
            Cell::Duration(Duration::from_millis(target.age_ms)),
            target.code.into(),
            target.reason.into(),
        ]
    };
    write(global, &headings, route.targets.into_iter().map(row))
}

/// Tells what was found of each copy; that none can be a source is an error.
pub(super) fn tell_source(global: &Global, source: SourceInfo) -> Result<(), CliError> {
    let row = |copy: planaria_net::wire::control::CandidateInfo| {
        vec![
            copy.node.into(),
            copy.role.name().into(),
            Cell::Bool(copy.is_chosen),
            copy.distance.into(),
            round_trip(copy.round_trip_us),
            update_time(copy.update),
            copy.code.into(),
            copy.reason.into(),
            copy.instance.to_string().into(),
        ]
    };
    let headings =
        ["node", "role", "chosen", "distance", "#round_trip", "update_time", "code", "reason", "instance"];
    let waits = source.candidates.iter().any(|copy| matches!(&*copy.code, "no_slot" | "no_bandwidth"));
    write(global, &headings, source.candidates.into_iter().map(row))?;
    if !source.note.is_empty() {
        tracing::warn!("a clone would wait: {}", source.note);
    }
    match source.source {
        Some(_) => Ok(()),
        None if waits => {
            Err(CliError::new("waits", "no copy can be the source of that clone now: it would wait")
                .hint("other clones or limits are in the way: `planaria cluster limits` shows them"))
        }
        None => Err(CliError::new("no_source", "no copy can be the source of that clone")
            .hint("each copy's reason is listed above; `planaria cluster instances` shows how they are")),
    }
}

pub(super) fn text(text: String) -> Cell {
    if text.is_empty() { Cell::None } else { text.into() }
}

fn update_time(update: Uid) -> Cell {
    if update == Uid::ZERO { Cell::None } else { time(update.millis()) }
}

pub(super) fn time(millis: u64) -> Cell {
    let micros = i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX);
    Value::Timestamp(micros).to_string().into()
}
