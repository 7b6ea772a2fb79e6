//! How this node becomes the primary: what a promotion asks of it and of the others.

use std::net::SocketAddr;

use planaria_engine::Database;
use planaria_net::replica::executor::promotion::{self, Contender, Standing, Terms};
use planaria_net::wire::message::{DatabaseStatus, Promised, Promotion, PromotionWish, RemoteError};
use planaria_replication::Options;
use planaria_types::{Epoch, Position, Uid};

use super::leadership::Leadership;

/// Makes this node the primary. What may be lost by it is lost only if the wish says so.
pub(super) fn promote(mut leadership: &Leadership, wish: PromotionWish) -> Result<Promotion, RemoteError> {
    let _changing = leadership.changing();
    promotion::promote(&mut leadership, Terms::Wish(wish))
}

/// Makes this node the primary, unless somebody else is, or something would be lost that a protected level acknowledged.
pub(super) fn promote_without_loss(mut leadership: &Leadership) -> Result<Promotion, RemoteError> {
    let _changing = leadership.changing();
    promotion::promote(&mut leadership, Terms::WithoutLoss)
}

impl Contender for &Leadership {
    fn database(&self) -> Database {
        self.slot.get()
    }

    fn options(&self) -> Options {
        Options::default()
    }

    fn address(&self) -> SocketAddr {
        Leadership::address(self)
    }

    fn leader(&self) -> Option<SocketAddr> {
        Leadership::leader(self)
    }

    fn led_at(&self) -> Option<SocketAddr> {
        Leadership::led_at(self)
    }

    fn not_online(&self) -> Option<String> {
        let Some((primary, status)) = self.following() else {
            return Some("this copy follows nobody who could hand the lead over".to_owned());
        };
        let why = status.replica.last_end.map(|why| format!(" ({why})")).unwrap_or_default();
        let is_online = status.replica.state == planaria_replication::secondary::State::Online;
        (!is_online).then(|| {
            format!(
                "this copy is {} from {primary}{why}: only one that is online is handed the lead",
                status.replica.state.name()
            )
        })
    }

    fn primary_durable(&self) -> Uid {
        self.following().map_or(Uid::ZERO, |(_, status)| status.replica.primary_durable)
    }

    fn ask_standings(&mut self, addresses: &[SocketAddr]) -> Vec<Option<Standing>> {
        let db = self.slot.get();
        let statuses = self.ask_statuses(addresses).into_iter();
        let statuses = statuses.map(|status| status.ok().filter(|status| status.database == db.id()));
        let others = statuses.map(|status| status.filter(|status| status.instance != db.instance()));
        let standing = |status: DatabaseStatus| Standing {
            instance: status.instance,
            position: Position { epoch: status.position_epoch, uid: status.durable },
            promised: status.promised,
            leads: status.state == "primary",
        };
        others.map(|status| status.map(standing)).collect()
    }

    fn ask_promise(&mut self, address: SocketAddr, epoch: Epoch) -> Result<Promised, RemoteError> {
        Leadership::ask_promise(self, address, epoch)
    }

    fn ask_hand_over(&mut self, address: SocketAddr) -> Result<Uid, RemoteError> {
        Leadership::ask_hand_over(self, address)
    }

    fn hand_back(&mut self, address: SocketAddr) {
        Leadership::hand_back(self, address);
    }

    fn step_down(&mut self) -> Result<(), RemoteError> {
        Leadership::step_down(self)
    }

    fn stop(&mut self) -> Option<SocketAddr> {
        Leadership::stop(self)
    }

    fn follow_again(&mut self, primary: SocketAddr) {
        Leadership::follow_again(self, primary);
    }

    fn take_the_lead(&mut self, epoch: Epoch) -> Result<Uid, RemoteError> {
        Leadership::take_the_lead(self, epoch)
    }
}
