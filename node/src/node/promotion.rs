//! How a secondary becomes the primary: it hears the others, names what may be lost, and begins a new epoch.

use std::net::SocketAddr;

use planaria_engine::{Database, Lead, Role};
use planaria_net::wire::message::{Promotion, PromotionWish, RemoteError};
use planaria_replication::{Assessment, Heard, Options, PromotableSets, assess};
use planaria_types::{Epoch, EpochOrder, InstanceId, Position, Uid};

use super::leadership::{Leadership, newest_of};
use crate::handler::remote;

/// Another copy, as it answered.
struct Other {
    name: String,
    address: SocketAddr,
    /// What it said of itself; none if it could not be heard.
    answer: Option<Answer>,
}

struct Answer {
    instance: InstanceId,
    position: Position,
    promised: Epoch,
    leads: bool,
}

/// On which terms a copy becomes the primary.
#[derive(Clone, Copy)]
enum Terms {
    /// What an operator accepts.
    Wish(PromotionWish),
    /// Nothing is lost that a protected level acknowledged, and nobody leads.
    WithoutLoss,
}

/// Makes this node the primary. What may be lost by it is lost only if the wish says so.
pub(super) fn promote(leadership: &Leadership, wish: PromotionWish) -> Result<Promotion, RemoteError> {
    promote_on(leadership, Terms::Wish(wish))
}

/// Makes this node the primary, unless somebody else is, or something would be lost that a protected level acknowledged.
///
/// What the lost primary acknowledged at level `local` alone is not protected; a database whose own level that is refuses.
pub(super) fn promote_without_loss(leadership: &Leadership) -> Result<Promotion, RemoteError> {
    promote_on(leadership, Terms::WithoutLoss)
}

fn promote_on(leadership: &Leadership, terms: Terms) -> Result<Promotion, RemoteError> {
    let looks_only = matches!(terms, Terms::Wish(wish) if wish.looks_only);
    let _changing = leadership.changing();
    let db = leadership.slot.get();
    if db.role() == Role::Primary && db.deposed().is_none() {
        return Err(RemoteError::new("leads", "this node leads already"));
    }
    db.check_whole("cannot lead").map_err(remote)?;
    let lead = db.lead().map_err(remote)?;
    let others = ask_all(leadership, &db, lead.as_ref())?;
    let led_by = others.iter().find(|other| other.answer.as_ref().is_some_and(|answer| answer.leads));
    let mut done = Promotion { instance: db.instance(), ..Promotion::default() };
    for other in &others {
        let named = format!("{} at {}", other.name, other.address);
        if other.answer.is_some() { done.heard.push(named) } else { done.unheard.push(named) }
    }
    let sets = sets_of(lead.as_ref());
    let promised = others.iter().filter_map(|other| other.answer.as_ref()).map(|answer| answer.promised);
    let known = promised.chain([newest_of(&db)]).max_by_key(|epoch| (epoch.term, epoch.incarnation));
    let epoch = db.next_epoch(known.unwrap_or(Epoch::NONE));
    if let Some(primary) = led_by {
        terms.refuse_moving(primary)?;
        done.handed_over = true;
        if looks_only {
            return Ok(done);
        }
        let end = leadership.ask_hand_over(primary.address)?;
        if leadership.slot.get().durable() < end {
            return Err(RemoteError::new("not_online", "this copy has not reached the end of its primary"));
        }
    } else {
        let heard: Vec<Heard> = others.iter().filter_map(|other| other.answer.as_ref()).map(heard).collect();
        name_losses(leadership, &db, lead.as_ref(), &sets, &heard, &mut done);
        if looks_only {
            return Ok(done);
        }
        terms.refuse_losses(lead.as_ref(), &done)?;
    }
    if db.role() == Role::Primary {
        leadership.step_down()?;
    }
    // From here on nothing more comes from the old primary: neither commits nor another promotable set.
    let followed = leadership.stop();
    let taken = take_over(leadership, terms, &others, epoch, &mut done);
    if taken.is_err()
        && let Some(primary) = followed
    {
        leadership.follow_again(primary);
    }
    done.inherited = taken?;
    done.epoch = Some(epoch);
    tracing::warn!(%epoch, inherited = %done.inherited, "leads from now on");
    Ok(done)
}

/// Has the others promise the epoch, and begins it if nothing is lost by that which the terms do not accept.
fn take_over(
    leadership: &Leadership,
    terms: Terms,
    others: &[Other],
    epoch: Epoch,
    done: &mut Promotion,
) -> Result<Uid, RemoteError> {
    let heard = have_promised(leadership, others, epoch)?;
    if !done.handed_over {
        // Only what is said after the promise counts: until then others may have followed the old primary, and this
        // copy may have heard of another promotable set.
        let db = leadership.slot.get();
        let lead = db.lead().map_err(remote)?;
        name_losses(leadership, &db, lead.as_ref(), &sets_of(lead.as_ref()), &heard, done);
        terms.refuse_losses(lead.as_ref(), done)?;
    }
    leadership.take_the_lead(epoch)
}

fn heard(answer: &Answer) -> Heard {
    Heard { instance: answer.instance, position: answer.position }
}

fn sets_of(lead: Option<&Lead>) -> PromotableSets {
    lead.map_or_else(PromotableSets::default, |lead| PromotableSets {
        now: lead.promotable.clone(),
        next: lead.next.clone(),
    })
}

/// Asks the primary and all registered copies how they are.
fn ask_all(leadership: &Leadership, db: &Database, lead: Option<&Lead>) -> Result<Vec<Other>, RemoteError> {
    let known = db.registrations().map_err(remote)?;
    let mut places: Vec<(String, SocketAddr)> = known
        .into_iter()
        .filter(|known| known.instance != db.instance())
        .filter_map(|known| Some((known.name, known.address?)))
        .collect();
    // One that follows a secondary must hear the primary, too, and the one that it follows may have promised more.
    let followed = leadership.leader();
    let led_at = leadership.led_at().or(lead.and_then(|lead| lead.address));
    let own = leadership.address();
    for primary in [led_at, followed].into_iter().flatten().filter(|address| *address != own) {
        if places.iter().all(|(_, address)| *address != primary) {
            let is_led = Some(primary) == led_at;
            let name = lead.filter(|_| is_led).map(|lead| lead.name.clone());
            places.push((name.unwrap_or_else(|| "the copy that is followed".to_owned()), primary));
        }
    }
    let ask = |(name, address)| {
        let status = leadership.ask_status(address).ok().filter(|status| status.database == db.id());
        let answer = status.filter(|status| status.instance != db.instance()).map(|status| Answer {
            instance: status.instance,
            position: Position { epoch: status.position_epoch, uid: status.durable },
            promised: status.promised,
            leads: status.state == "primary",
        });
        Other { name, address, answer }
    };
    Ok(places.into_iter().map(ask).collect())
}

/// Has all that can be heard promise the epoch; what they have is what they say then.
fn have_promised(leadership: &Leadership, others: &[Other], epoch: Epoch) -> Result<Vec<Heard>, RemoteError> {
    let mut heard = Vec::new();
    for other in others.iter().filter(|other| other.answer.is_some()) {
        match leadership.ask_promise(other.address, epoch) {
            Ok(promised) if promised.promised.order(&epoch) == EpochOrder::Same => {
                heard.push(Heard { instance: promised.instance, position: promised.position });
            }
            Ok(promised) => {
                let what = format!("{} has promised epoch {} meanwhile", other.name, promised.promised);
                let mut error = RemoteError::new("superseded", what);
                error.hint = "another copy is being promoted: look who leads, then try again".into();
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(copy = %other.name, error = error.what, "does not promise the new epoch");
            }
        }
    }
    Ok(heard)
}

/// Names what the promotion may lose, and what stands against it.
fn name_losses(
    leadership: &Leadership,
    db: &Database,
    lead: Option<&Lead>,
    sets: &PromotableSets,
    heard: &[Heard],
    done: &mut Promotion,
) {
    let own = Heard { instance: db.instance(), position: db.position() };
    let Assessment { is_promotable, heard: count, needed, further } =
        assess(&Options::default(), &own, heard, sets);
    (done.copies_heard, done.copies_needed) = (count as u32, needed as u32);
    (done.losses, done.obstacles) = (Vec::new(), Vec::new());
    let primary = lead.filter(|lead| heard.iter().all(|other| other.instance != lead.instance));
    if let Some(primary) = primary.filter(|primary| primary.instance != own.instance) {
        let uid = own.position.uid;
        let mut loss =
            format!("what {} acknowledged at level local after {uid}: it was not heard", primary.name);
        let told = leadership.following().map_or(Uid::ZERO, |(_, status)| status.replica.primary_durable);
        if told > uid {
            loss = format!("{loss}, and had {told} when it last was");
        }
        done.losses.push(loss);
    }
    if count < needed {
        done.losses.push(format!(
            "what was acknowledged at the levels one and above after {}: {count} of {needed} copies that must be heard were",
            own.position.uid
        ));
    }
    if let Some(further) = further {
        done.obstacles.push(format!(
            "copy {} has more, up to {}: promote that one",
            further.instance, further.position
        ));
    }
    if !is_promotable {
        done.obstacles.push(
            "this copy is not in the promotable set: it never was online, or was away for too long".into(),
        );
    }
}

impl Terms {
    /// Refuses to take the lead from a primary that is heard.
    fn refuse_moving(self, primary: &Other) -> Result<(), RemoteError> {
        match self {
            Self::Wish(_) => Ok(()),
            Self::WithoutLoss => {
                let what = format!("{} at {} is heard, and leads", primary.name, primary.address);
                Err(RemoteError::new("primary_heard", what))
            }
        }
    }

    fn refuse_losses(self, lead: Option<&Lead>, done: &Promotion) -> Result<(), RemoteError> {
        let (accepts_obstacles, may_lose) = match self {
            Self::Wish(wish) => (wish.force, !done.losses.is_empty() && !wish.accepts_loss && !wish.force),
            Self::WithoutLoss => {
                let is_protected =
                    lead.is_some_and(|lead| matches!(lead.level.as_str(), "one" | "quorum" | "all"));
                (false, !is_protected || done.copies_heard < done.copies_needed)
            }
        };
        if !done.obstacles.is_empty() && !accepts_obstacles {
            let mut error = RemoteError::new("not_promotable", "this copy should not lead");
            error.why = done.obstacles.join("; ");
            error.hint = "promote another copy, or say --force to lose what the others have".into();
            return Err(error);
        }
        if may_lose {
            let mut error = RemoteError::new("may_lose", "the promotion may lose commits");
            error.why = done.losses.join("; ");
            error.hint = "start the copies that were not heard, or say --yes to go on without them".into();
            return Err(error);
        }
        Ok(())
    }
}
