//! Whether a node leads or follows, and how that changes while it runs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use planaria_engine::{Database, Options, Role};
use planaria_net::quic::{Credentials, Transport};
use planaria_net::replica::executor::promotion::{
    Against, Asked, asked_to_promise, newest_of, stands_against,
};
use planaria_net::replica::{Follow, FollowStatus, Follower, Leading, Primary, ReplicaState, Slot};
use planaria_net::wire::client::Client;
use planaria_net::wire::message::{DatabaseStatus, Promised, RemoteError, Request, Response};
use planaria_replication::Way;
use planaria_replication::ack::Level;
use planaria_types::{DatabaseId, Epoch, EpochOrder, InstanceId, Portion, Uid};
use tokio::runtime::Handle;

use crate::handler::remote;
use crate::output::CliError;

/// How long another node has to answer a question about the lead.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How many are asked the same at a time.
const ASKED_AT_ONCE: usize = 32;
/// How long copies have to be heard before a primary that starts leads without them.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// How long a successor has to reach the end of a primary that hands its lead over.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);
/// How long a primary that has handed its lead over waits for the newer epoch before it takes updates again. Longer than
/// all that its successor does meanwhile.
const HANDED_OVER_FOR: Duration = Duration::from_mins(1);

/// A lead that was handed over and is not taken yet.
#[derive(Clone, Copy)]
struct HandedOver {
    to: InstanceId,
    since: crate::stopwatch::Stopwatch,
}

/// What a node is told when it is started.
pub(super) struct Circumstances {
    pub(super) name: String,
    /// Where it listens.
    pub(super) address: SocketAddr,
    pub(super) credentials: Credentials,
    pub(super) transport: Transport,
    pub(super) engine: Options,
    pub(super) level: Option<Level>,
    /// What it is to hold, if it is a partial secondary.
    pub(super) portion: Option<Portion>,
    pub(super) runtime: Handle,
    /// Other secondaries that refresh a copy which is behind.
    pub(super) siblings: Vec<SocketAddr>,
}

/// The lead of a node's database.
pub(super) struct Leadership {
    pub(super) slot: Slot,
    circumstances: Circumstances,
    standing: RwLock<Standing>,
    /// Held while the standing changes.
    changing: Mutex<()>,
    handed_over: Mutex<Option<HandedOver>>,
    /// Held while the lead is being handed over.
    handing: Mutex<()>,
}

/// What a node does now: it leads, or follows, or neither.
#[derive(Default)]
struct Standing {
    primary: Option<Arc<Primary>>,
    following: Option<Following>,
    /// Where another node leads, as far as is known.
    elsewhere: Option<SocketAddr>,
    /// Why it does not lead, though its directory is a primary's.
    stands_back: Option<String>,
}

/// A secondary's pursuit of its primary.
struct Following {
    primary: SocketAddr,
    follower: Follower,
    /// It was told to follow a secondary.
    is_cascade: bool,
}

impl Leadership {
    /// Leads or follows, as the database and the command line say.
    pub(super) fn start(
        slot: Slot,
        circumstances: Circumstances,
        replica_of: Option<SocketAddr>,
        note: Option<String>,
    ) -> Result<Self, CliError> {
        let leadership = Self {
            slot,
            circumstances,
            standing: RwLock::default(),
            changing: Mutex::default(),
            handed_over: Mutex::default(),
            handing: Mutex::default(),
        };
        let db = leadership.slot.get();
        match db.role() {
            // One that was deposed answers reads, and refuses updates.
            Role::Primary if db.deposed().is_some() => {}
            Role::Primary => {
                leadership.hear_copies(&db)?;
                if db.deposed().is_none() {
                    let primary = leadership.begin_to_lead(&db)?;
                    leadership.change(|standing| standing.primary = Some(primary));
                }
            }
            Role::Secondary => {
                if let Some(primary) = replica_of {
                    leadership.begin_to_follow_with(primary, note, false)?;
                }
            }
        }
        Ok(leadership)
    }

    /// Asks the registered copies, before the next incarnation begins, whether any has met a newer state of this directory or another
    /// primary: it does not lead then. Those that do not answer are not waited for long.
    fn hear_copies(&self, db: &Database) -> Result<(), CliError> {
        if db.lead_is_of_another()? {
            return Ok(());
        }
        let own = db.epoch();
        let known = db.registrations()?;
        let copies: Vec<_> = known.into_iter().filter_map(|copy| Some((copy.name, copy.address?))).collect();
        let addresses: Vec<SocketAddr> = copies.iter().map(|(_, address)| *address).collect();
        let answers = self.ask_each(&addresses, &self.promise_of(own), HEARD_WITHIN);
        for ((name, address), answer) in copies.into_iter().zip(answers) {
            let Ok(Promised { position, promised, leader, .. }) =
                answer.and_then(|answer| promised_in(&answer, address))
            else {
                continue;
            };
            match stands_against(own, promised, position.epoch) {
                Against::Nothing => continue,
                Against::Newer => db.promise(promised)?,
                Against::Rival => db.stand_back(promised),
            }
            let is_own_term = promised.term == own.term;
            let why = is_own_term.then(|| put_back(&name, address, promised));
            tracing::warn!(copy = name, %address, %promised, why, "a copy knows another primary: does not lead");
            self.change(|standing| {
                standing.elsewhere = leader;
                standing.stands_back = why;
            });
            break;
        }
        Ok(())
    }

    /// Why the node does not lead, though its directory is a primary's: a copy knows a newer state of it.
    pub(super) fn stands_back(&self) -> Option<String> {
        self.standing().stands_back.clone()
    }

    /// What the node leads, if it does.
    pub(super) fn primary(&self) -> Option<Arc<Primary>> {
        self.standing().primary.clone()
    }

    /// What serves those who follow this node: as their primary, or as a secondary that feeds them.
    pub(super) fn serving(&self) -> Option<Arc<Primary>> {
        let standing = self.standing();
        let feeder = || standing.following.as_ref().map(|following| following.follower.feeder());
        standing.primary.clone().or_else(feeder)
    }

    /// What it does as a secondary, and whose, if it is one that follows.
    pub(super) fn following(&self) -> Option<(SocketAddr, FollowStatus)> {
        let standing = self.standing();
        standing.following.as_ref().map(|following| (following.primary, following.follower.status()))
    }

    /// Has the copy refreshed by this way, if it follows.
    pub(super) fn refresh(&self, way: Way) {
        if let Some(following) = &self.standing().following {
            following.follower.refresh(way);
        }
    }

    /// Where another node leads, as far as is known.
    pub(super) fn leader(&self) -> Option<SocketAddr> {
        let standing = self.standing();
        standing.following.as_ref().map(|following| following.primary).or(standing.elsewhere)
    }

    /// What the copy is to hold, if it is partial.
    pub(super) fn portion(&self) -> Option<Portion> {
        let held = self.slot.get().portion()?;
        Some(self.circumstances.portion.clone().unwrap_or(held))
    }

    /// Whether it was told to follow a secondary.
    fn is_cascade(&self) -> bool {
        self.standing().following.as_ref().is_some_and(|following| following.is_cascade)
    }

    /// Where updates are taken, as far as is known: one that follows a secondary knows it from the log.
    pub(super) fn led_at(&self) -> Option<SocketAddr> {
        let is_fed = self.following().is_some_and(|(_, status)| status.replica.fed);
        let lead = || self.slot.get().lead().ok().flatten()?.address;
        if is_fed { lead().or_else(|| self.leader()) } else { self.leader() }
    }

    /// Ends the pursuit in good order.
    pub(super) fn stop(&self) -> Option<SocketAddr> {
        let following = self.change(|standing| standing.following.take());
        following.map(|following| following.primary)
    }

    /// Follows a primary as before.
    pub(super) fn follow_again(&self, primary: SocketAddr) {
        if let Err(error) = self.begin_to_follow(primary) {
            tracing::error!(%primary, error = error.what, "cannot follow as before; start the node again");
        }
    }

    /// Does what time asks for; called about once a second.
    pub(super) fn watch(&self) {
        let Some(primary) = self.primary() else {
            if let Some(feeder) = self.serving() {
                feeder.watch();
            }
            return;
        };
        primary.watch();
        self.take_updates_again(|handed| handed.since.elapsed() >= HANDED_OVER_FOR);
        self.herald(&primary);
    }

    /// Tells registered copies that are away who leads; one that knows better ends this node's reign, and one that has promised
    /// an epoch of the same number that never began is told a newer one the next time.
    fn herald(&self, primary: &Primary) {
        if primary.database().deposed().is_some() {
            return;
        }
        let is_away = |replica: &ReplicaState| matches!(replica.state, "offline" | "paused");
        let away = primary.replicas().into_iter().filter(is_away).filter_map(|replica| replica.address);
        let away: Vec<SocketAddr> = away.collect();
        let answers = self.ask_each(&away, &self.promise_of(primary.database().epoch()), ANSWER_WITHIN);
        for (address, answer) in away.into_iter().zip(answers) {
            match answer.and_then(|answer| promised_in(&answer, address)) {
                Ok(promised) if promised.promised.order(&primary.database().epoch()) == EpochOrder::Newer => {
                    self.change(|standing| standing.elsewhere = promised.leader);
                    primary.depose(promised.promised);
                    return;
                }
                Ok(promised) => primary.meet(promised.promised, promised.position.epoch),
                Err(error) => {
                    tracing::debug!(%address, error = error.what, "a copy that is away does not answer");
                }
            }
        }
    }

    /// Promises, durably, to follow no epoch older than `epoch`, and follows the node that begins it.
    pub(super) fn promise(&self, epoch: Epoch, leader: SocketAddr) -> Result<Promised, RemoteError> {
        let _changing = lock(&self.changing);
        let db = self.slot.get();
        let primary = self.primary();
        let lost = self.following().is_none_or(|(_, status)| {
            let is_offline = status.replica.state == planaria_replication::secondary::State::Offline;
            // One that followed a primary which follows somebody else now is counted on by the next primary. One that was told to
            // follow a secondary stays there.
            let stays = self.is_cascade() || status.met_fed == Some(true);
            !stays && (is_offline || status.replica.fed)
        });
        let is_lost = lost && self.leader() != Some(leader);
        match asked_to_promise(&db, epoch, primary.is_some(), is_lost) {
            Asked::Stays => return Ok(self.promised(&db, newest_of(&db))),
            Asked::IsDeposed => {
                if let Some(primary) = primary {
                    primary.depose(epoch);
                }
                db.promise(epoch).map_err(remote)?;
                // What was being made then is its writers' all the same: whoever asks is to hear of it.
                db.sync().map_err(remote)?;
                let handed_over = lock(&self.handed_over).take().is_some();
                self.change(|standing| standing.elsewhere = Some(leader));
                if handed_over {
                    // It has nothing that its successor lacks, so it may follow at once.
                    self.follow_from_now(&db, leader, false).map_err(failed)?;
                }
            }
            Asked::Follows => {
                self.stop();
                let db = self.slot.get();
                db.promise(epoch).map_err(remote)?;
                self.begin_to_follow(leader).map_err(failed)?;
            }
            Asked::Promises => {
                db.promise(epoch).map_err(remote)?;
                self.change(|standing| standing.elsewhere = Some(leader));
            }
        }
        Ok(self.promised(&db, epoch))
    }

    fn promised(&self, db: &Database, promised: Epoch) -> Promised {
        let leads = self.standing().primary.is_some() && db.deposed().is_none();
        let leader = if leads { Some(self.circumstances.address) } else { self.leader() };
        Promised { instance: db.instance(), position: db.position(), promised, leader }
    }

    /// Stops taking updates, and answers once the successor has all of them.
    pub(super) fn hand_over(&self, to: InstanceId) -> Result<Uid, RemoteError> {
        let primary = self.primary().filter(|primary| primary.database().deposed().is_none());
        let primary = primary.ok_or_else(|| RemoteError::new("read_only", "this node does not lead"))?;
        let _one_at_a_time = self.handing.try_lock().map_err(|_| handing_over())?;
        {
            let mut pending = lock(&self.handed_over);
            if pending.is_some_and(|handed| handed.to != to) {
                return Err(handing_over());
            }
            // What was pending is asked for again.
            *pending = None;
        }
        let end = primary.hand_over(to, HAND_OVER_WITHIN).map_err(net_failed)?;
        let end = end.ok_or_else(|| {
            let mut error = RemoteError::new(
                "not_online",
                "the successor is not online, or did not reach the end in time",
            );
            error.hint = "wait until `replica list` shows it as online and promotable, resume it if it is paused, or say --force to take the lead without its primary".into();
            error
        })?;
        *lock(&self.handed_over) = Some(HandedOver { to, since: crate::stopwatch::Stopwatch::start() });
        Ok(end)
    }

    /// The lead stays here: `successor` does not take it.
    pub(super) fn take_back_lead(&self, successor: InstanceId) {
        self.take_updates_again(|handed| handed.to == successor);
    }

    /// Takes updates again if the lead was handed over and nobody will take it.
    fn take_updates_again(&self, is_over: impl Fn(&HandedOver) -> bool) {
        let primary = self.primary().filter(|primary| primary.database().deposed().is_none());
        let Some(primary) = primary else { return };
        if let Some(handed) = lock(&self.handed_over).take_if(|handed| is_over(handed)) {
            tracing::warn!(successor = %handed.to, "the lead was handed over and is not taken: takes updates again");
            primary.database().hand_over(false);
        }
    }

    /// Follows another primary from now on.
    pub(super) fn follow(&self, primary: SocketAddr) -> Result<(), RemoteError> {
        let _changing = lock(&self.changing);
        let db = self.slot.get();
        if db.role() == Role::Primary && db.deposed().is_none() {
            let mut error =
                RemoteError::new("leads", "this node leads, and nothing says that another one does");
            error.hint =
                "promote a secondary of it: `planaria promote --node ADDR` moves the lead without loss"
                    .into();
            return Err(error);
        }
        let status = self.ask_status(primary)?;
        if status.instance == db.instance() {
            let mut error =
                RemoteError::new("invalid", format!("at {primary} is this node: it cannot follow itself"));
            error.hint = "name another copy of the database".into();
            return Err(error);
        }
        if status.database != db.id() {
            let what =
                format!("the node at {primary} has database {}, this one {}", status.database, db.id());
            return Err(RemoteError::new("foreign_database", what));
        }
        let is_cascade = !matches!(status.state.as_str(), "primary" | "deposed");
        self.follow_from_now(&db, primary, is_cascade).map_err(failed)
    }

    /// Follows the node that leads under `epoch` or a newer one, as the control center says. A primary of an older epoch is
    /// deposed by that.
    pub(super) fn rejoin(&self, primary: SocketAddr, epoch: Epoch) -> Result<(), RemoteError> {
        let status = self.ask_status(primary)?;
        let db = self.slot.get();
        let is_older = status.epoch.order(&epoch) == EpochOrder::Older;
        if status.database != db.id() || status.state != "primary" || is_older {
            let what = format!("the node at {primary} does not lead database {} under {epoch}", db.id());
            return Err(RemoteError::new("not_leading", what));
        }
        drop(db);
        self.promise(status.epoch, primary)?;
        let follows = || self.following().is_some_and(|(followed, _)| followed == primary);
        if follows() { Ok(()) } else { self.follow(primary) }
    }

    fn follow_from_now(&self, db: &Database, primary: SocketAddr, is_cascade: bool) -> Result<(), CliError> {
        self.stop();
        self.no_longer_leads();
        db.become_secondary(db.id())?;
        self.begin_to_follow_with(primary, None, is_cascade)
    }

    pub(super) fn begin_to_lead(&self, db: &Database) -> Result<Arc<Primary>, CliError> {
        let Circumstances { name, address, level, .. } = &self.circumstances;
        let leading = Leading { name: name.clone(), address: Some(*address), level: *level };
        Ok(Primary::start(db.clone(), leading)?)
    }

    fn begin_to_follow(&self, primary: SocketAddr) -> Result<(), CliError> {
        self.begin_to_follow_with(primary, None, false)
    }

    fn begin_to_follow_with(
        &self,
        primary: SocketAddr,
        note: Option<String>,
        is_cascade: bool,
    ) -> Result<(), CliError> {
        let own = &self.circumstances;
        let follow = Follow {
            primary,
            name: own.name.clone(),
            port: Some(own.address.port()),
            portion: own.portion.clone(),
            credentials: own.credentials.clone(),
            transport: own.transport.clone(),
            options: own.engine.clone(),
            siblings: own.siblings.clone(),
            note,
            pace: None,
        };
        let follower = Follower::start(self.slot.clone(), follow, own.runtime.clone())?;
        self.change(|standing| standing.following = Some(Following { primary, follower, is_cascade }));
        Ok(())
    }

    fn no_longer_leads(&self) {
        self.change(|standing| {
            standing.primary = None;
            standing.stands_back = None;
        });
    }

    /// One that was deposed may lead again: it takes its place among the secondaries first.
    pub(super) fn step_down(&self) -> Result<(), RemoteError> {
        self.no_longer_leads();
        let db = self.slot.get();
        db.become_secondary(db.id()).map_err(remote)
    }

    /// Leads from now on, under an epoch that enough others have promised. Nobody is followed any more.
    pub(super) fn take_the_lead(&self, epoch: Epoch) -> Result<Uid, RemoteError> {
        self.stop();
        let db = self.slot.get();
        db.promote(epoch).map_err(remote)?;
        let inherited = db.history().entries().last().map_or(Uid::ZERO, |entry| entry.inherited);
        let primary = self.begin_to_lead(&db).map_err(failed)?;
        self.change(|standing| {
            standing.primary = Some(primary);
            standing.elsewhere = None;
        });
        Ok(inherited)
    }

    /// Keeps other changes of the standing out.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        lock(&self.changing)
    }

    /// How another node is.
    pub(super) fn ask_status(&self, address: SocketAddr) -> Result<DatabaseStatus, RemoteError> {
        status_in(self.ask(address, Request::Status)?, address)
    }

    /// How other nodes are, each.
    pub(super) fn ask_statuses(&self, addresses: &[SocketAddr]) -> Vec<Result<DatabaseStatus, RemoteError>> {
        let answers = self.ask_each(addresses, &Request::Status, ANSWER_WITHIN);
        let each = addresses.iter().zip(answers);
        each.map(|(address, answer)| answer.and_then(|answer| status_in(answer, *address))).collect()
    }

    /// Asks another node to promise an epoch, and to follow this one.
    pub(super) fn ask_promise(&self, address: SocketAddr, epoch: Epoch) -> Result<Promised, RemoteError> {
        promised_in(&self.ask(address, self.promise_of(epoch))?, address)
    }

    fn promise_of(&self, epoch: Epoch) -> Request {
        Request::Promise { epoch, port: self.circumstances.address.port() }
    }

    /// Asks the primary to hand its lead over to this node.
    pub(super) fn ask_hand_over(&self, address: SocketAddr) -> Result<Uid, RemoteError> {
        match self.ask(address, Request::HandOver { to: self.slot.get().instance() })? {
            Response::HandedOver { end } => Ok(end),
            _ => Err(wrong_answer(address)),
        }
    }

    /// Tells a primary to go on that may have handed its lead over to this node.
    pub(super) fn hand_back(&self, address: SocketAddr) {
        let from = self.slot.get().instance();
        if let Err(error) = self.ask(address, Request::HandBack { from }) {
            tracing::warn!(%address, error = error.what, "a primary is not told that its lead is not taken: it goes on by itself after a minute");
        }
    }

    /// Asks another node something, and waits for the answer as long as it may take.
    pub(super) fn ask(&self, address: SocketAddr, request: Request) -> Result<Response, RemoteError> {
        let patience = match request {
            Request::HandOver { .. } => HAND_OVER_WITHIN + ANSWER_WITHIN,
            _ => ANSWER_WITHIN,
        };
        let credentials = self.circumstances.credentials.clone();
        let asked = exchange(credentials, address, self.slot.get().id(), request, patience);
        self.circumstances.runtime.block_on(asked)
    }

    /// Asks several nodes the same: those that are dead cost the time of one.
    fn ask_each(
        &self,
        addresses: &[SocketAddr],
        request: &Request,
        patience: Duration,
    ) -> Vec<Result<Response, RemoteError>> {
        let Circumstances { runtime, credentials, .. } = &self.circumstances;
        let database = self.slot.get().id();
        let ask = |address: &SocketAddr| {
            runtime.spawn(exchange(credentials.clone(), *address, database, request.clone(), patience))
        };
        let mut answers = Vec::with_capacity(addresses.len());
        for some in addresses.chunks(ASKED_AT_ONCE) {
            let asked: Vec<_> = some.iter().map(ask).collect();
            for answer in asked {
                let lost = |_| Err(RemoteError::new("closed", "this node stops"));
                answers.push(runtime.block_on(answer).unwrap_or_else(lost));
            }
        }
        answers
    }

    /// Where this node listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.circumstances.address
    }

    fn standing(&self) -> std::sync::RwLockReadGuard<'_, Standing> {
        self.standing.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Standing) -> T) -> T {
        change(&mut self.standing.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One question to the node at `address`. But for how it is, that is meant for whoever holds the same database: where a clone was made
/// from, or where another node listens by now, other databases are.
async fn exchange(
    credentials: Credentials,
    address: SocketAddr,
    database: DatabaseId,
    request: Request,
    patience: Duration,
) -> Result<Response, RemoteError> {
    let asked = async {
        let mut client = Client::connect(address, &credentials).await?;
        if request != Request::Status {
            client = client.with_database(&database.to_string());
        }
        let answer = client.call(request).await;
        client.close().await;
        answer
    };
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer.map_err(net_failed),
        Err(_) => Err(RemoteError::new("timed_out", format!("no answer from {address} in time"))),
    }
}

fn put_back(copy: &str, address: SocketAddr, known: Epoch) -> String {
    format!(
        "{copy} at {address} holds commits of epoch {known}, of which this directory knows nothing: it was put back from an older state, or \
         copied. It does not lead, so that no copy takes back what it has acknowledged. Have {copy} lead, `planaria promote --node \
         {address}` (with --force where both have commits of that number), and this one follow it; `planaria promote --force` here keeps this state instead, and copies quarantine what they have \
         more"
    )
}

fn status_in(answer: Response, address: SocketAddr) -> Result<DatabaseStatus, RemoteError> {
    let Response::Status(status) = answer else { return Err(wrong_answer(address)) };
    let first = status.databases.into_iter().next();
    first.ok_or_else(|| RemoteError::new("protocol", format!("the node at {address} hosts nothing")))
}

fn promised_in(answer: &Response, address: SocketAddr) -> Result<Promised, RemoteError> {
    match *answer {
        Response::Promised(promised) => Ok(promised),
        _ => Err(wrong_answer(address)),
    }
}

fn wrong_answer(address: SocketAddr) -> RemoteError {
    RemoteError::new("protocol", format!("the node at {address} gave an answer to another question"))
}

fn handing_over() -> RemoteError {
    let mut error = RemoteError::new("handing_over", "the lead is being handed over to another copy");
    error.hint = "look who leads in a minute, then try again".into();
    error
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn net_failed(error: planaria_net::Error) -> RemoteError {
    match error {
        planaria_net::Error::Remote(error) => error,
        error => RemoteError::new(error.code(), error.to_string()),
    }
}

fn failed(error: CliError) -> RemoteError {
    RemoteError {
        code: error.code.into_owned(),
        what: error.what,
        why: error.why.unwrap_or_default(),
        hint: error.hint.unwrap_or_default(),
    }
}
