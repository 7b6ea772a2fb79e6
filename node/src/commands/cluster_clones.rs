//! `planaria cluster clone`, `cluster schedule`, `cluster limits` and `cluster want`.

use std::time::Duration;

use planaria_net::wire::control::{ControlRequest, ControlResponse};
use planaria_net::wire::jobs::{CloneJobInfo, LimitInfo, ScheduleInfo, WantInfo, When};
use planaria_net::wire::message::CloneRole;

use super::cluster::{ask, tell_source, text, time, write};
use crate::cli::{
    CenterArgs, ClusterBackupArgs, ClusterCloneCommand, ClusterCloneCreateArgs, Global, LimitsCommand,
    ScheduleCommand, shape_words,
};
use crate::cluster::wrong_answer;
use crate::output::{Cell, CliError};

/// `planaria cluster clone`.
pub(super) fn clones(global: &Global, command: &ClusterCloneCommand) -> Result<(), CliError> {
    match command {
        ClusterCloneCommand::Create(arguments) => create(global, arguments),
        ClusterCloneCommand::List { center, limit } => {
            show(global, center, ControlRequest::Clones { limit: *limit })
        }
        ClusterCloneCommand::Show { job, center } => {
            show(global, center, ControlRequest::CloneShow { job: *job })
        }
        ClusterCloneCommand::Rate { job, rate, center } => {
            show(global, center, ControlRequest::CloneRate { job: *job, bytes_per_s: *rate })
        }
        ClusterCloneCommand::Cancel { job, center } => {
            show(global, center, ControlRequest::CloneCancel { job: *job })
        }
    }
}

/// `planaria cluster backup`.
pub(super) fn backup(global: &Global, arguments: &ClusterBackupArgs) -> Result<(), CliError> {
    show(global, &arguments.center, ControlRequest::CloneCreate(arguments.wish()))
}

fn create(global: &Global, arguments: &ClusterCloneCreateArgs) -> Result<(), CliError> {
    let ClusterCloneCreateArgs { wish, name, explain, center } = arguments;
    if *explain {
        let (to, database) = (wish.to.clone(), wish.database.clone());
        let (period_ms, as_of) = (wish.manner.period, wish.wish(None).shape.as_of);
        let request = ControlRequest::ChooseSource { to, database, period_ms, as_of };
        return match ask(global, center, request)? {
            ControlResponse::Source(source) => tell_source(global, source),
            _ => Err(wrong_answer(center.address()?)),
        };
    }
    show(global, center, ControlRequest::CloneCreate(wish.wish(name.as_deref())))
}

fn show(global: &Global, center: &CenterArgs, request: ControlRequest) -> Result<(), CliError> {
    let ControlResponse::Clones(clones) = ask(global, center, request)? else {
        return Err(wrong_answer(center.address()?));
    };
    let headings = [
        "#clone",
        "name",
        "database",
        "to",
        "role",
        "priority",
        "state",
        "source",
        "#done",
        "#total",
        "#rate",
        "code",
        "reason",
        "origin",
        "submitted",
        "ended",
        "shape",
        "reasons",
    ];
    let row = |clone: CloneJobInfo| {
        vec![
            Cell::Count(clone.job),
            clone.name.into(),
            clone.database.into(),
            clone.to.into(),
            role_name(clone.role).into(),
            clone.priority.name().into(),
            clone.state.into(),
            text(clone.source),
            Cell::Bytes(clone.done_bytes),
            clone.total_bytes.map_or(Cell::None, Cell::Bytes),
            Cell::Bytes(clone.bytes_per_s),
            text(clone.code),
            text(clone.reason),
            text(clone.origin),
            time(clone.submitted_ms),
            clone.ended_ms.map_or(Cell::None, time),
            Cell::List(shape_words(&clone.shape)),
            Cell::List(clone.reasons),
        ]
    };
    write(global, &headings, clones.into_iter().map(row))
}

pub(super) fn role_name(role: CloneRole) -> &'static str {
    match role {
        CloneRole::Detached => "detached",
        CloneRole::Standby => "standby",
        CloneRole::Backup => "backup",
        CloneRole::Store => "store",
    }
}

/// `planaria cluster schedule`.
pub(super) fn schedules(global: &Global, command: &ScheduleCommand) -> Result<(), CliError> {
    let (center, request) = match command {
        ScheduleCommand::Add(arguments) => {
            let (name, wish) = (arguments.name.clone(), arguments.wish.wish(None));
            (&arguments.center, ControlRequest::SetSchedule { name, when: arguments.when(), wish })
        }
        ScheduleCommand::List(center) => (center, ControlRequest::Schedules),
        ScheduleCommand::Remove { name, center } => {
            (center, ControlRequest::RemoveSchedule { name: name.clone() })
        }
    };
    let ControlResponse::Schedules(schedules) = ask(global, center, request)? else {
        return Err(wrong_answer(center.address()?));
    };
    let headings = ["name", "#every", "cron", "next", "database", "to", "role", "priority", "#rate", "#ttl"];
    let row = |schedule: ScheduleInfo| {
        let wish = schedule.wish;
        let (every, cron) = match schedule.when {
            When::Every(ms) => (Cell::Duration(Duration::from_millis(ms)), Cell::None),
            When::Calendar(pattern) => (Cell::None, pattern.into()),
        };
        vec![
            schedule.name.into(),
            every,
            cron,
            time(schedule.due_ms),
            text(wish.database.unwrap_or_default()),
            wish.to.into(),
            role_name(wish.role).into(),
            wish.priority.name().into(),
            wish.bytes_per_s.map_or(Cell::None, Cell::Bytes),
            wish.ttl_s.map_or(Cell::None, |seconds| Cell::Duration(Duration::from_secs(seconds))),
        ]
    };
    write(global, &headings, schedules.into_iter().map(row))
}

/// `planaria cluster limits`.
pub(super) fn limits(
    global: &Global,
    center: &CenterArgs,
    set: Option<&LimitsCommand>,
) -> Result<(), CliError> {
    let Some(LimitsCommand::Set { gate, clones, rate, center }) = set else {
        let limits = ask_limits(global, center, ControlRequest::Limits)?;
        return show_limits(global, limits);
    };
    let known = ask_limits(global, center, ControlRequest::Limits)?;
    // What holds for one place without being set is what holds for its kind.
    let kind = gate.split(':').next().unwrap_or_default();
    let named = |name: &str| known.iter().find(|limit| limit.gate == name);
    let now = named(gate).or_else(|| named(kind)).ok_or_else(|| {
        CliError::new("invalid", format!("{gate:?} is no place that clones go through"))
            .hint("see `planaria cluster limits set --help`")
    })?;
    let request = ControlRequest::SetLimit {
        gate: gate.clone(),
        clones_max: clones.unwrap_or(now.clones_max),
        bytes_per_s_max: rate.unwrap_or(now.bytes_per_s_max),
    };
    show_limits(global, ask_limits(global, center, request)?)
}

fn ask_limits(
    global: &Global,
    center: &CenterArgs,
    request: ControlRequest,
) -> Result<Vec<LimitInfo>, CliError> {
    match ask(global, center, request)? {
        ControlResponse::Limits(limits) => Ok(limits),
        _ => Err(wrong_answer(center.address()?)),
    }
}

fn show_limits(global: &Global, limits: Vec<LimitInfo>) -> Result<(), CliError> {
    let headings = ["gate", "#clones_max", "#rate_max", "#clones", "#rate", "set"];
    let row = |limit: LimitInfo| {
        vec![
            limit.gate.into(),
            Cell::Count(limit.clones_max.into()),
            Cell::Bytes(limit.bytes_per_s_max),
            Cell::Count(limit.clones.into()),
            Cell::Bytes(limit.bytes_per_s),
            Cell::Bool(limit.is_set),
        ]
    };
    write(global, &headings, limits.into_iter().map(row))
}

/// `planaria cluster want`.
pub(super) fn wants(
    global: &Global,
    center: &CenterArgs,
    set: Option<(&String, Option<u32>, Option<u32>)>,
) -> Result<(), CliError> {
    let request = match set {
        None => ControlRequest::Wants,
        Some((database, None, None)) => {
            return Err(CliError::usage(format!(
                "nothing is said of how many copies of {database} are wanted"
            ))
            .hint("name --standbys, --backups or both; without a database, what is wanted is shown"));
        }
        Some((database, standbys, backups)) => {
            ControlRequest::SetWant { database: database.clone(), standbys, backups }
        }
    };
    let ControlResponse::Wants(wants) = ask(global, center, request)? else {
        return Err(wrong_answer(center.address()?));
    };
    let headings = ["database", "#standbys", "#standbys_there", "#backups", "#backups_there", "note"];
    let row = |want: WantInfo| {
        vec![
            want.database.into(),
            Cell::Count(want.standbys.into()),
            Cell::Count(want.standbys_there.into()),
            Cell::Count(want.backups.into()),
            Cell::Count(want.backups_there.into()),
            text(want.note),
        ]
    };
    write(global, &headings, wants.into_iter().map(row))
}
