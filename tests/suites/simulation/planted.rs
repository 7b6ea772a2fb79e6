//! Faults that the simulation must catch, each with a seed near one that catches it, to save time.

use planaria_engine::Planted as Engine;
use planaria_replication::Planted as Protocol;

/// A planted fault, in the engine and what calls it, or in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    Engine(Engine),
    Protocol(Protocol),
}

impl Fault {
    pub(crate) fn engine(self) -> Option<Engine> {
        if let Self::Engine(fault) = self { Some(fault) } else { None }
    }

    pub(crate) fn protocol(self) -> Option<Protocol> {
        if let Self::Protocol(fault) = self { Some(fault) } else { None }
    }
}

/// Those that take promotions to be caught, or clients who come again.
pub(crate) const FAULTS_OF_MOVES: [(Fault, u64); 4] = [
    (Fault::Engine(Engine::ForgetTokens), 0),
    (Fault::Protocol(Protocol::PromoteUnheard), 0),
    (Fault::Protocol(Protocol::PromoteBehind), 0),
    (Fault::Protocol(Protocol::SetAlone), 0),
];

pub(crate) const FAULTS: [(Fault, u64); 17] = [
    (Fault::Engine(Engine::SkipSettle), 0),
    (Fault::Engine(Engine::SkipLogSync), 0),
    (Fault::Engine(Engine::SkipRunDirSync), 0),
    (Fault::Engine(Engine::ManifestInPlace), 0),
    (Fault::Engine(Engine::ReleaseLogEarly), 0),
    (Fault::Engine(Engine::DropMarksEarly), 0),
    (Fault::Engine(Engine::ReuseUid), 0),
    (Fault::Engine(Engine::ShowAllAtStart), 20),
    (Fault::Engine(Engine::InstallHalf), 0),
    (Fault::Engine(Engine::LosePromise), 0),
    (Fault::Engine(Engine::ResumeUnchecked), 0),
    (Fault::Engine(Engine::LoseCursor), 0),
    (Fault::Engine(Engine::AckUnsynced), 0),
    (Fault::Engine(Engine::TellUnsynced), 0),
    (Fault::Protocol(Protocol::ShowBeyondPrimaryDurable), 0),
    (Fault::Protocol(Protocol::InstallHalf), 0),
    (Fault::Protocol(Protocol::ForkByWatermark), 0),
];
