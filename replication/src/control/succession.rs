//! Who leads after a primary was lost.

use std::collections::BTreeSet;
use std::fmt;

use planaria_types::{Epoch, EpochOrder, InstanceId, Position};

use super::{CopyState, Distance, InstanceRole, Labels};
use crate::{Assessment, Heard, Options, PromotableSets, assess};

/// A group's lead, as far as is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reign {
    /// The copy that led when it was last heard of.
    pub leader: InstanceId,
    /// The epoch under which it did.
    pub epoch: Epoch,
    /// Where its node is.
    pub labels: Labels,
    /// How long ago it was heard to lead, in milliseconds.
    pub heard_ago_ms: u64,
    /// Whether commits are acknowledged only once other copies have them, unless they ask for less.
    pub is_protected: bool,
}

/// A copy that might lead next, as its node last reported it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contender {
    /// The copy.
    pub instance: InstanceId,
    /// What it is for.
    pub role: InstanceRole,
    /// Where its node is.
    pub labels: Labels,
    /// How it is.
    pub state: CopyState,
    /// Whether it shows something that its primary does not have.
    pub is_diverged: bool,
    /// What is durable there.
    pub position: Position,
    /// The newest epoch that it has promised to follow, or leads under.
    pub promised: Epoch,
    /// The promotable set, as far as it knows.
    pub sets: PromotableSets,
    /// How long ago its node was heard, in milliseconds; none if it was not since the control center started.
    pub heard_ago_ms: Option<u64>,
    /// How long ago it had news of the primary, in milliseconds; none if it had none since the control center started.
    pub news_ago_ms: Option<u64>,
}

/// What the choice goes by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SuccessionRule {
    /// A copy that was not heard for so many milliseconds is lost.
    pub lost_after_ms: u64,
    /// Copies that were asked since the primary was lost, and did not come to lead.
    pub refused: BTreeSet<InstanceId>,
}

/// Why nobody is asked to lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhyNobody {
    /// The primary was heard.
    PrimaryHeard {
        /// How long ago, in milliseconds.
        ago_ms: u64,
    },
    /// Another copy has news of the primary, so it is the control center that cannot hear it.
    PrimaryFollowed {
        /// The copy.
        by: InstanceId,
    },
    /// Another copy leads already.
    AnotherLeads {
        /// The copy.
        leader: InstanceId,
    },
    /// Commits are acknowledged by the primary alone, so that any other copy may lack some.
    Unprotected,
    /// No copy is fit.
    NobodyFit,
}

/// Why a copy is asked to lead, or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContenderReason {
    /// It is the furthest, and the nearest to the lost one of those that are as far.
    Chosen,
    /// It is the one that was lost.
    Lost,
    /// Its node has not been heard lately.
    Unheard,
    /// It is there for clones to be taken from, and a standby is as far.
    Backup,
    /// It led before, and does not know yet that it does no more.
    LedBefore,
    /// It has not reached the end of its primary since it came back.
    NotRefreshed(CopyState),
    /// It shows something that its primary did not have.
    Diverged,
    /// It was asked, and does not lead.
    Refused,
    /// It is not in the promotable set.
    NotPromotable,
    /// Of the promotable set, too few copies can be heard: a commit might be on none of them.
    TooFewHeard {
        /// How many are, itself among them.
        heard: usize,
        /// How many must be.
        needed: usize,
    },
    /// Another copy has more.
    Behind {
        /// That copy.
        further: InstanceId,
    },
    /// As far as the one that was chosen, and farther away from the lost one.
    Farther(Distance),
    /// Nothing sets it apart from the one that was chosen, whose id is lower.
    HigherId,
    /// Fit, but nobody is to be asked.
    Fit,
}

impl ContenderReason {
    /// A stable name for logs and JSON.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Lost => "lost",
            Self::Unheard => "unheard",
            Self::Backup => "backup",
            Self::LedBefore => "led_before",
            Self::NotRefreshed(_) => "not_refreshed",
            Self::Diverged => "diverged",
            Self::Refused => "refused",
            Self::NotPromotable => "not_promotable",
            Self::TooFewHeard { .. } => "too_few_heard",
            Self::Behind { .. } => "behind",
            Self::Farther(_) => "farther",
            Self::HigherId => "higher_id",
            Self::Fit => "fit",
        }
    }
}

impl fmt::Display for WhyNobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrimaryHeard { ago_ms } => write!(f, "the primary was heard {ago_ms} ms ago"),
            Self::PrimaryFollowed { by } => write!(f, "copy {by} still has news of the primary"),
            Self::AnotherLeads { leader } => write!(f, "copy {leader} leads already"),
            Self::Unprotected => f.write_str(
                "the level local has commits acknowledged by the primary alone: only an operator may give them up",
            ),
            Self::NobodyFit => f.write_str("no copy is fit to lead"),
        }
    }
}

impl fmt::Display for ContenderReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("it has the most, and is the nearest to the lost primary of those"),
            Self::Lost => f.write_str("it is the primary that was lost"),
            Self::Unheard => f.write_str("its node has not been heard lately"),
            Self::Backup => f.write_str("it is a backup, and a standby is as far"),
            Self::LedBefore => f.write_str("it led before, and does not know yet that it does no more"),
            Self::NotRefreshed(state) => write!(f, "it is {state}: it has not reached the end"),
            Self::Diverged => f.write_str("it shows what its primary did not have"),
            Self::Refused => f.write_str("it was asked and does not lead"),
            Self::NotPromotable => f.write_str("it is not in the promotable set"),
            Self::TooFewHeard { heard, needed } => {
                write!(f, "{heard} of the {needed} promotable copies that must be heard are")
            }
            Self::Behind { further } => write!(f, "copy {further} has more"),
            Self::Farther(distance) => write!(f, "it is farther from the lost primary ({distance})"),
            Self::HigherId => f.write_str("it is as good, and its id is higher"),
            Self::Fit => f.write_str("it could lead"),
        }
    }
}

/// What was found of one copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContenderVerdict {
    /// The copy.
    pub instance: InstanceId,
    /// What is durable there.
    pub position: Position,
    /// Why it is asked to lead, or not.
    pub reason: ContenderReason,
}

/// Who is asked to lead, with what was found of every copy, in the order in which they were given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Succession {
    /// The copy, or why it is none.
    pub successor: Result<InstanceId, WhyNobody>,
    /// What was found of each.
    pub verdicts: Vec<ContenderVerdict>,
}

/// Chooses who is asked to lead after the primary of a group was lost.
///
/// The primary is lost if neither the control center nor a copy that follows it has heard it for so long as the rule says.
/// Only a copy whose promotion would lose nothing that a protected level acknowledged is asked, by what all that were heard
/// lately reported: one that has reached the end and is in the promotable set, where enough of that set are heard and none
/// has more. The furthest goes first; of those that are as far a standby, then the nearest to the lost one, then by id.
///
/// Reports may be old by the time that they are read: whoever is asked hears the others once more, and has them promise.
pub fn choose_successor(
    options: &Options,
    rule: &SuccessionRule,
    reign: &Reign,
    contenders: &[Contender],
) -> Succession {
    let is_recent = |ago: Option<u64>| ago.is_some_and(|ago| ago < rule.lost_after_ms);
    let present: Vec<&Contender> = contenders.iter().filter(|copy| is_recent(copy.heard_ago_ms)).collect();
    let fit = present.iter().filter(|copy| unfit(options, rule, copy, &present).is_none());
    let best = fit.min_by_key(|copy| order(reign, copy));
    let leads = |copy: &&&Contender| {
        copy.instance != reign.leader
            && copy.state == CopyState::Primary
            && copy.promised.order(&reign.epoch) != EpochOrder::Older
    };
    let followed = |copy: &&&Contender| copy.state != CopyState::Primary && is_recent(copy.news_ago_ms);
    let nobody = if is_recent(Some(reign.heard_ago_ms)) {
        Some(WhyNobody::PrimaryHeard { ago_ms: reign.heard_ago_ms })
    } else if let Some(other) = present.iter().find(leads) {
        Some(WhyNobody::AnotherLeads { leader: other.instance })
    } else if let Some(other) = present.iter().find(followed) {
        Some(WhyNobody::PrimaryFollowed { by: other.instance })
    } else if reign.is_protected {
        None
    } else {
        Some(WhyNobody::Unprotected)
    };
    let successor = match (nobody, best) {
        (Some(why), _) => Err(why),
        (None, None) => Err(WhyNobody::NobodyFit),
        (None, Some(best)) => Ok(best.instance),
    };
    let verdict = |copy: &Contender| {
        let reason = if !is_recent(copy.heard_ago_ms) {
            if copy.instance == reign.leader { ContenderReason::Lost } else { ContenderReason::Unheard }
        } else if let Some(reason) = unfit(options, rule, copy, &present) {
            reason
        } else {
            match best.filter(|_| successor.is_ok()) {
                Some(best) if best.instance == copy.instance => ContenderReason::Chosen,
                Some(best) => second(reign, copy, best),
                None => ContenderReason::Fit,
            }
        };
        ContenderVerdict { instance: copy.instance, position: copy.position, reason }
    };
    Succession { successor, verdicts: contenders.iter().map(verdict).collect() }
}

/// Who goes first of those that are fit, and so equally far: none of them has more than another.
fn order(reign: &Reign, copy: &Contender) -> (bool, Distance, InstanceId) {
    (copy.role == InstanceRole::Backup, reign.labels.distance(&copy.labels), copy.instance)
}

/// Why a copy that is fit is not the first.
fn second(reign: &Reign, copy: &Contender, best: &Contender) -> ContenderReason {
    let distance = reign.labels.distance(&copy.labels);
    if copy.role == InstanceRole::Backup && best.role != InstanceRole::Backup {
        ContenderReason::Backup
    } else if distance > reign.labels.distance(&best.labels) {
        ContenderReason::Farther(distance)
    } else {
        ContenderReason::HigherId
    }
}

/// Why a copy that was heard cannot lead, if it cannot.
fn unfit(
    options: &Options,
    rule: &SuccessionRule,
    copy: &Contender,
    present: &[&Contender],
) -> Option<ContenderReason> {
    match copy.state {
        CopyState::Primary => return Some(ContenderReason::LedBefore),
        state @ (CopyState::Stale | CopyState::Refreshing) => {
            return Some(ContenderReason::NotRefreshed(state));
        }
        CopyState::Partial => return Some(ContenderReason::NotPromotable),
        // Without its primary a copy is offline. What it has missed before is found below: others have more. So it is
        // with one that led and was deposed.
        CopyState::Online | CopyState::Offline | CopyState::Deposed => {}
    }
    if copy.is_diverged {
        return Some(ContenderReason::Diverged);
    }
    if rule.refused.contains(&copy.instance) {
        return Some(ContenderReason::Refused);
    }
    let heard = |copy: &Contender| Heard { instance: copy.instance, position: copy.position };
    // What a partial copy has beyond others makes it no successor.
    let counts = |other: &&&Contender| other.instance != copy.instance && other.state != CopyState::Partial;
    let others: Vec<Heard> = present.iter().filter(counts).map(|other| heard(other)).collect();
    let Assessment { is_promotable, heard, needed, further } =
        assess(options, &heard(copy), &others, &copy.sets);
    if !is_promotable {
        Some(ContenderReason::NotPromotable)
    } else if let Some(further) = further {
        Some(ContenderReason::Behind { further: further.instance })
    } else if heard < needed {
        Some(ContenderReason::TooFewHeard { heard, needed })
    } else {
        None
    }
}

#[cfg(test)]
#[path = "succession_tests.rs"]
mod tests;
