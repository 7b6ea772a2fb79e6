//! `planaria cluster rule`.

use std::time::Duration;

use planaria_net::wire::control::{ControlRequest, ControlResponse};
use planaria_net::wire::rules::{RuleAction, RuleEvent, RuleInfo};

use super::cluster::{ask, text, time, write};
use super::cluster_clones::role_name;
use crate::cli::{Global, RuleCommand};
use crate::cluster::wrong_answer;
use crate::output::{Cell, CliError};

pub(super) fn rules(global: &Global, command: &RuleCommand) -> Result<(), CliError> {
    let (center, request) = match command {
        RuleCommand::Add(arguments) => (&arguments.center, ControlRequest::SetRule(arguments.rule())),
        RuleCommand::List(center) => (center, ControlRequest::Rules),
        RuleCommand::Remove { name, center } => (center, ControlRequest::RemoveRule { name: name.clone() }),
    };
    let ControlResponse::Rules(rules) = ask(global, center, request)? else {
        return Err(wrong_answer(center.address()?));
    };
    let headings =
        ["name", "database", "on", "#over", "#for", "of", "action", "role", "to", "#pause", "acted", "note"];
    write(global, &headings, rules.into_iter().map(row))
}

fn row(info: RuleInfo) -> Vec<Cell> {
    let RuleInfo { rule, acted_ms, note } = info;
    let duration = |ms| Cell::Duration(Duration::from_millis(ms));
    let (over, lasts, of) = match rule.event {
        RuleEvent::Lag { over_ms, for_ms, role } => {
            (duration(over_ms), duration(for_ms), role.map_or(Cell::None, |role| role.name().into()))
        }
        RuleEvent::Failover => (Cell::None, Cell::None, Cell::None),
    };
    let action = rule.action.name();
    let (role, to) = match rule.action {
        RuleAction::Clone(wish) => (role_name(wish.role).into(), text(wish.to)),
        RuleAction::Reseed => (Cell::None, Cell::None),
    };
    vec![
        rule.name.into(),
        text(rule.database.unwrap_or_default()),
        rule.event.name().into(),
        over,
        lasts,
        of,
        action.into(),
        role,
        to,
        duration(rule.pause_ms),
        acted_ms.map_or(Cell::None, time),
        text(note),
    ]
}
