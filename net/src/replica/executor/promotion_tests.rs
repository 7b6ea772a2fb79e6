//! A secondary that is to lead, among others that answer as a test says.

use std::sync::Arc;

use planaria_engine::os::MemOs;
use planaria_engine::{Database, Options as EngineOptions};

use super::*;

const PRIMARY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// A secondary whose primary hands its lead over, and is then heard or not.
#[expect(clippy::struct_excessive_bools, reason = "each is something that a test looks at")]
struct Successor {
    db: Database,
    /// Whether the primary is heard when it is asked to promise.
    promises: bool,
    /// What the primary has then.
    primary_has: Uid,
    handed_back: bool,
    leads: bool,
    follows: bool,
}

impl Successor {
    fn new(promises: bool) -> Self {
        let options =
            EngineOptions { background: false, os: Arc::new(MemOs::new(1)), ..EngineOptions::default() };
        let db = Database::open_with("/db", options).unwrap();
        let lead = Lead {
            instance: InstanceId(1),
            name: "the primary".into(),
            address: Some(PRIMARY),
            epoch: db.epoch(),
            level: "quorum".into(),
            promotable: [InstanceId(1), InstanceId(2), db.instance()].into(),
            next: None,
        };
        db.set_lead(&lead).unwrap();
        db.become_secondary(db.id()).unwrap();
        let primary_has = db.durable();
        Self { db, promises, primary_has, handed_back: false, leads: false, follows: true }
    }
}

impl Contender for Successor {
    fn database(&self) -> Database {
        self.db.clone()
    }

    fn options(&self) -> Options {
        Options::default()
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], 9).into()
    }

    fn leader(&self) -> Option<SocketAddr> {
        Some(PRIMARY)
    }

    fn primary_durable(&self) -> Uid {
        self.db.durable()
    }

    fn ask_standings(&mut self, addresses: &[SocketAddr]) -> Vec<Option<Standing>> {
        let position = self.db.position();
        let standing = Standing { instance: InstanceId(1), position, promised: position.epoch, leads: true };
        vec![Some(standing); addresses.len()]
    }

    fn ask_promise(&mut self, _: SocketAddr, promised: Epoch) -> Result<Promised, RemoteError> {
        let position = Position { uid: self.primary_has, ..self.db.position() };
        let answer = Promised { instance: InstanceId(1), position, promised, leader: None };
        self.promises.then_some(answer).ok_or_else(|| RemoteError::new("timed_out", "no answer"))
    }

    fn ask_hand_over(&mut self, _: SocketAddr) -> Result<Uid, RemoteError> {
        Ok(self.db.durable())
    }

    fn hand_back(&mut self, _: SocketAddr) {
        self.handed_back = true;
    }

    fn step_down(&mut self) -> Result<(), RemoteError> {
        Ok(())
    }

    fn stop(&mut self) -> Option<SocketAddr> {
        std::mem::take(&mut self.follows).then_some(PRIMARY)
    }

    fn follow_again(&mut self, _: SocketAddr) {
        self.follows = true;
    }

    fn take_the_lead(&mut self, _: Epoch) -> Result<Uid, RemoteError> {
        self.leads = true;
        Ok(self.db.durable())
    }
}

#[test]
fn the_lead_moves_once_the_primary_that_hands_it_over_has_promised() {
    let mut heard = Successor::new(true);
    let done = promote(&mut heard, Terms::Wish(PromotionWish::default())).unwrap();
    assert!(done.handed_over && heard.leads && !heard.handed_back);

    // It takes updates again after a while, and may have them acknowledged by copies that have promised nothing either.
    let mut unheard = Successor::new(false);
    let refused = promote(&mut unheard, Terms::Wish(PromotionWish::default())).unwrap_err();
    assert_eq!(refused.code, "may_lose");
    assert!(!unheard.leads && unheard.follows && unheard.handed_back);

    // The same where it has promised, but took updates before.
    let mut late = Successor::new(true);
    late.primary_has = late.primary_has.next();
    let refused = promote(&mut late, Terms::Wish(PromotionWish::default())).unwrap_err();
    assert_eq!(refused.code, "not_promotable", "{refused:?}");
    assert!(refused.why.contains("has more"), "{refused:?}");
    assert!(!late.leads && late.follows && late.handed_back);
}

#[test]
fn a_copy_speaks_against_a_primary_by_what_it_promised_or_holds() {
    let epoch = |term, incarnation, nonce| Epoch { term, incarnation, nonce };
    let own = epoch(2, 3, 7);
    for (promised, held, expected) in [
        (own, own, Against::Nothing),
        (epoch(2, 2, 1), epoch(2, 2, 1), Against::Nothing),
        // Another primary leads; or this directory has been put back.
        (epoch(3, 1, 1), own, Against::Newer),
        (epoch(2, 4, 1), epoch(2, 4, 1), Against::Newer),
        // What it promised never began, so far as it knows.
        (epoch(2, 3, 8), epoch(2, 2, 1), Against::Nothing),
        (epoch(2, 3, 8), epoch(2, 3, 8), Against::Rival),
    ] {
        assert_eq!(stands_against(own, promised, held), expected, "{promised} {held}");
    }
}
