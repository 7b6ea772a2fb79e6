//! How a secondary becomes the primary: it hears the others, names what may be lost, and begins a new epoch.
//!
//! What is asked of other nodes, and what stops and starts on this one, is the driver's: [`Contender`].

use std::net::SocketAddr;

use planaria_engine::{Database, Lead, Role};
use planaria_replication::{Assessment, Heard, Options, PromotableSets, assess};
use planaria_types::{Epoch, EpochOrder, InstanceId, Position, Uid};

use crate::wire::message::{Promised, Promotion, PromotionWish, RemoteError};

/// Another copy, as it answered.
struct Other {
    name: String,
    address: SocketAddr,
    /// Whether it holds a part of the database: it has to promise, and what it has beyond others makes it no successor.
    is_partial: bool,
    /// What it said of itself; none if it could not be heard.
    answer: Option<Standing>,
}

/// How another node says that it is.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The copy.
    pub instance: InstanceId,
    /// What is durable there.
    pub position: Position,
    /// The newest epoch that it has promised.
    pub promised: Epoch,
    /// Whether it leads.
    pub leads: bool,
}

/// On which terms a copy becomes the primary.
#[derive(Clone, Copy, Debug)]
pub enum Terms {
    /// What an operator accepts: what may be lost is lost only if the wish says so.
    Wish(PromotionWish),
    /// Nothing is lost that a protected level acknowledged, and nobody leads.
    ///
    /// What the lost primary acknowledged at level `local` alone is not protected; a database whose own level that is refuses.
    WithoutLoss,
}

/// A node that is to lead. Nothing else changes its standing while it is promoted.
pub trait Contender {
    /// Its copy.
    fn database(&self) -> Database;
    /// The limits of the protocol.
    fn options(&self) -> Options;
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// Whom it follows, or where another node leads, as far as is known.
    fn leader(&self) -> Option<SocketAddr>;
    /// Where updates are taken, as far as is known: one that follows a secondary knows it from the log.
    fn led_at(&self) -> Option<SocketAddr> {
        self.leader()
    }
    /// Why the primary cannot hand its lead over to it now, if it is known: it is not online there.
    fn not_online(&self) -> Option<String> {
        None
    }
    /// What the primary that it follows had durable when it was last heard; zero if it follows nobody.
    fn primary_durable(&self) -> Uid;
    /// Asks other nodes how they are, all at once where that takes time; none for one that cannot be heard, hosts another
    /// database, or is this one.
    fn ask_standings(&mut self, addresses: &[SocketAddr]) -> Vec<Option<Standing>>;
    /// Asks another node to promise an epoch, and to follow this one.
    fn ask_promise(&mut self, address: SocketAddr, epoch: Epoch) -> Result<Promised, RemoteError>;
    /// Asks the primary to hand its lead over to this node; gives the end of its log.
    fn ask_hand_over(&mut self, address: SocketAddr) -> Result<Uid, RemoteError>;
    /// Tells a primary that may have handed its lead over to this node that it goes on. One that does not hear it goes on by itself
    /// after a while.
    fn hand_back(&mut self, address: SocketAddr);
    /// Takes its place among the secondaries: it was a primary that was deposed.
    fn step_down(&mut self) -> Result<(), RemoteError>;
    /// Ends its pursuit of a primary, in good order; gives whose it was.
    fn stop(&mut self) -> Option<SocketAddr>;
    /// Follows a primary as before.
    fn follow_again(&mut self, primary: SocketAddr);
    /// Leads from now on, under this epoch; gives the last commit that it inherits.
    fn take_the_lead(&mut self, epoch: Epoch) -> Result<Uid, RemoteError>;
}

/// What a node does that is asked to promise an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// It stays as it is: it has promised a newer epoch, or one that this contradicts, or leads under this very one.
    Stays,
    /// It leads, and does so no more: first it takes no more updates, then it promises.
    IsDeposed,
    /// It ends its session, promises, and follows whoever asks.
    Follows,
    /// It promises, and goes on.
    Promises,
}

/// What a node does that is asked to promise `epoch`. It may lead now, and may have lost whom it follows and know of none
/// but the one who asks.
pub fn asked_to_promise(db: &Database, epoch: Epoch, leads: bool, is_lost: bool) -> Asked {
    let order = epoch.order(&newest_of(db));
    match order {
        EpochOrder::Older | EpochOrder::Conflict => Asked::Stays,
        EpochOrder::Same if db.role() == Role::Primary => Asked::Stays,
        EpochOrder::Same | EpochOrder::Newer if leads => Asked::IsDeposed,
        EpochOrder::Same | EpochOrder::Newer => {
            let follows = db.role() == Role::Secondary && (order == EpochOrder::Newer || is_lost);
            if follows { Asked::Follows } else { Asked::Promises }
        }
    }
}

/// What another copy says against a primary that is about to begin its next incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Against {
    /// Nothing.
    Nothing,
    /// It has promised a newer epoch: another copy leads, or did, or the primary's directory was put back from an older state.
    Newer,
    /// It holds something of another epoch of the same number: the primary's directory was copied, or put back from an older state.
    Rival,
}

/// What a copy says against a primary whose last epoch is `own`, if it has `promised` an epoch, and what it holds ends in another one.
pub fn stands_against(own: Epoch, promised: Epoch, held: Epoch) -> Against {
    match promised.order(&own) {
        EpochOrder::Newer => Against::Newer,
        // One that only promised it, for a promotion that came to nothing, follows the next incarnation.
        EpochOrder::Conflict if held.order(&own) == EpochOrder::Conflict => Against::Rival,
        EpochOrder::Conflict | EpochOrder::Same | EpochOrder::Older => Against::Nothing,
    }
}

/// The newest epoch that a copy has promised or leads under.
pub fn newest_of(db: &Database) -> Epoch {
    let (promised, own) = (db.promised(), db.epoch());
    if own.order(&promised) == EpochOrder::Newer { own } else { promised }
}

/// Makes a node the primary, if the terms allow it.
///
/// # Errors
///
/// `leads` if it does already, `primary_heard`, `not_promotable` and `may_lose` if the terms do not allow it, `superseded` if
/// another copy is being promoted, `not_online` if the primary cannot hand its lead over; else what the driver says.
pub fn promote(contender: &mut impl Contender, terms: Terms) -> Result<Promotion, RemoteError> {
    let looks_only = matches!(terms, Terms::Wish(wish) if wish.looks_only);
    let db = contender.database();
    if db.role() == Role::Primary && db.deposed().is_none() {
        return Err(RemoteError::new("leads", "this node leads already"));
    }
    db.check_whole("cannot lead").map_err(|error| remote(&error))?;
    let lead = db.lead().map_err(|error| remote(&error))?;
    let others = ask_all(contender, &db, lead.as_ref())?;
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
        done.obstacles.extend(damage_of(&db));
        if looks_only {
            let is_counted = sets.contains(db.instance());
            done.obstacles.extend((!is_counted).then(|| NOT_PROMOTABLE.to_owned()));
            done.obstacles.extend(contender.not_online());
            return Ok(done);
        }
        terms.refuse_obstacles(&done)?;
        let end = contender.ask_hand_over(primary.address);
        if matches!(&end, Err(error) if error.code == "not_online" && terms.forces()) {
            // It is taken without the primary, which promises like the others.
            contender.hand_back(primary.address);
            done.handed_over = false;
            succeed(contender, terms, &others, epoch, &mut done)?;
            return Ok(led_from(done, epoch));
        }
        let moved = end.and_then(|end| {
            if contender.database().durable() < end {
                return Err(RemoteError::new(
                    "not_online",
                    "this copy has not reached the end of its primary",
                ));
            }
            succeed(contender, terms, &others, epoch, &mut done)
        });
        // One that has begun the epoch and failed behind that leads all the same.
        if moved.is_err() && contender.database().epoch() != epoch {
            contender.hand_back(primary.address);
        }
        moved?;
    } else {
        let whole = others.iter().filter(|other| !other.is_partial);
        let heard: Vec<Heard> = whole.filter_map(|other| other.answer.as_ref()).map(heard).collect();
        name_losses(contender, &db, lead.as_ref(), &sets, &heard, &mut done);
        if looks_only {
            return Ok(done);
        }
        terms.refuse_losses(lead.as_ref(), &done)?;
        succeed(contender, terms, &others, epoch, &mut done)?;
    }
    Ok(led_from(done, epoch))
}

fn led_from(done: Promotion, epoch: Epoch) -> Promotion {
    tracing::warn!(%epoch, inherited = %done.inherited, "leads from now on");
    done
}

/// Ends the pursuit of the old primary and takes its place, or follows it as before.
fn succeed(
    contender: &mut impl Contender,
    terms: Terms,
    others: &[Other],
    epoch: Epoch,
    done: &mut Promotion,
) -> Result<(), RemoteError> {
    if contender.database().role() == Role::Primary {
        contender.step_down()?;
    }
    // From here on nothing more comes from the old primary: neither commits nor another promotable set.
    let followed = contender.stop();
    let taken = take_over(contender, terms, others, epoch, done);
    if taken.is_err()
        && let Some(primary) = followed
    {
        contender.follow_again(primary);
    }
    done.inherited = taken?;
    done.epoch = Some(epoch);
    Ok(())
}

/// Has the others promise the epoch, and begins it if nothing is lost by that which the terms do not accept.
fn take_over(
    contender: &mut impl Contender,
    terms: Terms,
    others: &[Other],
    epoch: Epoch,
    done: &mut Promotion,
) -> Result<Uid, RemoteError> {
    let heard = have_promised(contender, others, epoch)?;
    // One that handed its lead over takes updates again after a while: it must have promised, and nothing that came since.
    let own = contender.database().durable();
    let led = |copy: &Heard| {
        let mut answers = others.iter().filter_map(|other| other.answer);
        answers.any(|answer| answer.leads && answer.instance == copy.instance)
    };
    done.handed_over &= heard.iter().any(|copy| copy.position.uid <= own && led(copy));
    if !done.handed_over {
        // Only what is said after the promise counts: until then others may have followed the old primary, and this
        // copy may have heard of another promotable set.
        let db = contender.database();
        let lead = db.lead().map_err(|error| remote(&error))?;
        name_losses(contender, &db, lead.as_ref(), &sets_of(lead.as_ref()), &heard, done);
        terms.refuse_losses(lead.as_ref(), done)?;
    }
    contender.take_the_lead(epoch)
}

fn heard(answer: &Standing) -> Heard {
    Heard { instance: answer.instance, position: answer.position }
}

fn sets_of(lead: Option<&Lead>) -> PromotableSets {
    lead.map_or_else(PromotableSets::default, |lead| PromotableSets {
        now: lead.promotable.clone(),
        next: lead.next.clone(),
    })
}

/// Asks the primary and all registered copies how they are.
fn ask_all(
    contender: &mut impl Contender,
    db: &Database,
    lead: Option<&Lead>,
) -> Result<Vec<Other>, RemoteError> {
    let known = db.registrations().map_err(|error| remote(&error))?;
    let mut places: Vec<(String, SocketAddr, bool)> = known
        .into_iter()
        .filter(|known| known.instance != db.instance())
        .filter_map(|known| Some((known.name, known.address?, known.portion.is_some())))
        .collect();
    // One that follows a secondary must hear the primary, too, and the one that it follows may have promised more.
    let followed = contender.leader();
    let led_at = contender.led_at().or(lead.and_then(|lead| lead.address));
    let own = contender.address();
    for primary in [led_at, followed].into_iter().flatten().filter(|address| *address != own) {
        if places.iter().all(|(_, address, _)| *address != primary) {
            let is_led = Some(primary) == led_at;
            let name = lead.filter(|_| is_led).map(|lead| lead.name.clone());
            places.push((name.unwrap_or_else(|| "the copy that is followed".to_owned()), primary, false));
        }
    }
    let addresses: Vec<SocketAddr> = places.iter().map(|(_, address, _)| *address).collect();
    let answers = contender.ask_standings(&addresses).into_iter().chain(std::iter::repeat(None));
    let other = |((name, address, is_partial), answer)| Other { name, address, is_partial, answer };
    Ok(places.into_iter().zip(answers).map(other).collect())
}

/// Has all that can be heard promise the epoch; what they have is what they say then.
fn have_promised(
    contender: &mut impl Contender,
    others: &[Other],
    epoch: Epoch,
) -> Result<Vec<Heard>, RemoteError> {
    let mut heard = Vec::new();
    // Who leads is asked last: where another one refuses, it leads on.
    let leads = |other: &Other| other.answer.is_some_and(|answer| answer.leads);
    let (last, first): (Vec<_>, Vec<_>) = others.iter().partition(|other| leads(other));
    for other in first.into_iter().chain(last).filter(|other| other.answer.is_some()) {
        match contender.ask_promise(other.address, epoch) {
            Ok(promised) if promised.promised.order(&epoch) == EpochOrder::Same && other.is_partial => {}
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

const NOT_PROMOTABLE: &str =
    "this copy is not in the promotable set: it never was online, or was away for too long";

/// A copy that has met damage is not to lead: what it cannot read, nobody could.
fn damage_of(db: &Database) -> Option<String> {
    db.damage().map(|what| format!("this copy has met damage: {what}"))
}

/// Names what the promotion may lose, and what stands against it.
fn name_losses(
    contender: &impl Contender,
    db: &Database,
    lead: Option<&Lead>,
    sets: &PromotableSets,
    heard: &[Heard],
    done: &mut Promotion,
) {
    let own = Heard { instance: db.instance(), position: db.position() };
    let Assessment { is_promotable, heard: count, needed, further } =
        assess(&contender.options(), &own, heard, sets);
    (done.copies_heard, done.copies_needed) = (count as u32, needed as u32);
    (done.losses, done.obstacles) = (Vec::new(), damage_of(db).into_iter().collect());
    let primary = lead.filter(|lead| heard.iter().all(|other| other.instance != lead.instance));
    if let Some(primary) = primary.filter(|primary| primary.instance != own.instance) {
        let uid = own.position.uid;
        let mut loss =
            format!("what {} acknowledged at level local after {uid}: it was not heard", primary.name);
        let told = contender.primary_durable();
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
        done.obstacles.push(NOT_PROMOTABLE.into());
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

    /// Whether an operator takes the lead whatever stands against it.
    fn forces(self) -> bool {
        matches!(self, Self::Wish(wish) if wish.force)
    }

    fn refuse_obstacles(self, done: &Promotion) -> Result<(), RemoteError> {
        if done.obstacles.is_empty() || self.forces() {
            return Ok(());
        }
        let mut error = RemoteError::new("not_promotable", "this copy should not lead");
        error.why = done.obstacles.join("; ");
        error.hint = "promote another copy, or say --force to lose what the others have".into();
        Err(error)
    }

    fn refuse_losses(self, lead: Option<&Lead>, done: &Promotion) -> Result<(), RemoteError> {
        self.refuse_obstacles(done)?;
        let may_lose = match self {
            Self::Wish(wish) => !done.losses.is_empty() && !wish.accepts_loss && !wish.force,
            Self::WithoutLoss => {
                let is_protected =
                    lead.is_some_and(|lead| matches!(lead.level.as_str(), "one" | "quorum" | "all"));
                !is_protected || done.copies_heard < done.copies_needed
            }
        };
        if may_lose {
            let mut error = RemoteError::new("may_lose", "the promotion may lose commits");
            error.why = done.losses.join("; ");
            error.hint = "start the copies that were not heard, or say --yes to go on without them".into();
            return Err(error);
        }
        Ok(())
    }
}

fn remote(error: &planaria_engine::Error) -> RemoteError {
    RemoteError::new(error.code(), error.to_string())
}

#[cfg(test)]
#[path = "promotion_tests.rs"]
mod tests;
