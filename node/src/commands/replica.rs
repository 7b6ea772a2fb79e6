use std::time::Duration;

use planaria_net::wire::message::{PromotionWish, RefreshInfo, ReplicaAction, ReplicaInfo};

use super::{print, stdout, target};
use crate::cli::{
    FollowArgs, Global, PlaceArgs, PromoteArgs, RefreshArgs, RefreshWay, ReplicaArgs, ReplicaCommand,
};
use crate::output::{Cell, CliError, Heading, Report, RowWriter};
use crate::session::{IfAbsent, resolve};

/// `planaria replica`.
pub(super) fn run(global: &Global, command: &ReplicaCommand) -> Result<(), CliError> {
    match command {
        ReplicaCommand::List(arguments) => list(global, arguments),
        ReplicaCommand::Refresh(arguments) => refresh(global, arguments),
        ReplicaCommand::Show(arguments) => show(global, arguments),
        ReplicaCommand::Pause(arguments) => act(global, arguments, ReplicaAction::Pause),
        ReplicaCommand::Resume(arguments) => act(global, arguments, ReplicaAction::Resume),
        ReplicaCommand::Follow(arguments) => follow(global, arguments),
        ReplicaCommand::Forget(arguments) => act(global, arguments, ReplicaAction::Forget),
    }
}

fn list(global: &Global, arguments: &PlaceArgs) -> Result<(), CliError> {
    let session = arguments.place(global)?.open(IfAbsent::Fail)?;
    let headings = ["name", "state", "promotable", "durable"].map(Heading::text).into_iter();
    let headings =
        headings.chain(["lag_ms", "lag_commits", "lag_bytes", "preserved_bytes"].map(Heading::number));
    let headings = headings.chain(["way", "given_up", "instance", "holds"].map(Heading::text)).collect();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for replica in session.replicas()? {
        rows.write(&[
            replica.node.into(),
            replica.state.into(),
            Cell::Bool(replica.promotable),
            replica.durable.to_string().into(),
            Cell::Count(replica.lag_ms),
            replica.lag_commits.map_or(Cell::None, Cell::Count),
            Cell::Bytes(replica.lag_bytes),
            Cell::Bytes(replica.preserved_bytes),
            text(replica.way),
            text(replica.given_up),
            replica.instance.to_string().into(),
            text(replica.holds),
        ])?;
    }
    rows.finish()?;
    Ok(())
}

fn show(global: &Global, arguments: &ReplicaArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let named = &arguments.name;
    let is_meant = |replica: &ReplicaInfo| replica.node == *named || replica.instance.to_string() == *named;
    let mut meant = session.replicas()?.into_iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(replica), None) => print(global, &report(replica)),
        (None, _) => Err(CliError::new("unknown_replica", format!("no secondary {named:?} is registered"))
            .hint("`planaria replica list` shows those that are")),
        (Some(_), Some(_)) => {
            Err(CliError::new("ambiguous", format!("several secondaries are called {named:?}"))
                .hint("name it by its instance; `planaria replica list` shows it"))
        }
    }
}

fn report(replica: ReplicaInfo) -> Report {
    Report::new()
        .with("name", replica.node)
        .with("instance", replica.instance.to_string())
        .with("address", text(replica.address))
        .with("state", replica.state)
        .with("promotable", Cell::Bool(replica.promotable))
        .with("holds", text(replica.holds))
        .with("durable", replica.durable.to_string())
        .with("visible", replica.visible.to_string())
        .with("lag_ms", Cell::Count(replica.lag_ms))
        .with("lag_commits", replica.lag_commits.map_or(Cell::None, Cell::Count))
        .with("lag_bytes", Cell::Bytes(replica.lag_bytes))
        .with("preserved_bytes", Cell::Bytes(replica.preserved_bytes))
        .with("preserved_age", Cell::Duration(Duration::from_millis(replica.preserved_age_ms)))
        .with("given_up", text(replica.given_up))
        .with("way", text(replica.way))
        .with("reason", text(replica.reason))
        .with("moved_records", Cell::Count(replica.moved_records))
        .with("moved_commits", Cell::Count(replica.moved_commits))
        .with("moved_bytes", Cell::Bytes(replica.moved_bytes))
}

fn act(global: &Global, arguments: &ReplicaArgs, action: ReplicaAction) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let left = session.replica_do(&arguments.name, action)?;
    let done = match action {
        ReplicaAction::Pause => "paused",
        ReplicaAction::Resume => "resumed",
        ReplicaAction::Forget => "forgotten",
    };
    let report = Report::new().with(done, arguments.name.clone());
    print(global, &report.with("registered", Cell::Count(left.len() as u64)))
}

fn follow(global: &Global, arguments: &FollowArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let primary = resolve(&arguments.primary)?;
    session.follow(primary)?;
    print(global, &Report::new().with("following", primary.to_string()))
}

/// `planaria promote`.
pub(super) fn promote(global: &Global, arguments: &PromoteArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let wish =
        PromotionWish { looks_only: arguments.dry_run, accepts_loss: arguments.yes, force: arguments.force };
    let done = session.promote(wish)?;
    let report = Report::new()
        .with("promoted", Cell::Bool(done.epoch.is_some()))
        .with("epoch", done.epoch.map_or(Cell::None, |epoch| epoch.to_string().into()))
        .with("inherited", if done.epoch.is_some() { done.inherited.to_string().into() } else { Cell::None })
        .with("way", if done.handed_over { "hand-over" } else { "promotion" })
        .with("handed_over", Cell::Bool(done.handed_over && done.epoch.is_some()))
        .with("heard", Cell::List(done.heard))
        .with("unheard", Cell::List(done.unheard))
        .with("copies_heard", Cell::Count(done.copies_heard.into()))
        .with("copies_needed", Cell::Count(done.copies_needed.into()))
        .with("may_lose", Cell::List(done.losses))
        .with("obstacles", Cell::List(done.obstacles));
    print(global, &report)
}

/// A text, or nothing where it is empty.
fn text(text: String) -> Cell {
    if text.is_empty() { Cell::None } else { text.into() }
}

fn refresh(global: &Global, arguments: &RefreshArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let way = arguments.way.map(RefreshWay::name);
    let info = session.refresh(arguments.dry_run, way)?;
    print(global, &refresh_report(&info, !arguments.dry_run))
}

fn refresh_report(info: &RefreshInfo, begun: bool) -> Report {
    let seconds = info.ms.map(Duration::from_millis);
    Report::new()
        .with("way", info.way.clone())
        .with("reason", info.reason.clone())
        .with("why", info.why.clone())
        .with("records", info.records.map_or(Cell::None, Cell::Count))
        .with("bytes", Cell::Bytes(info.bytes))
        .with("seconds", seconds.map_or(Cell::None, Cell::Duration))
        .with("begun", Cell::Bool(begun))
}
