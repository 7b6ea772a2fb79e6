//! Planaria's control center: what it knows of a cluster, what it decides, and what it tells nodes to do.
//!
//! - [`Catalog`] keeps what must outlive the process; [`StoreCatalog`] keeps it in a planaria database of its own.
//! - [`Center`] is what happens: nodes join and report, and are told in the answer what to do. It has no clock and no socket:
//!   the time is an argument.
//! - [`ControlHandler`] is a [`Center`] behind the client protocol.
//!
//! Nothing here is needed for a commit that was acknowledged to be safe: epochs fence, and whoever is asked to lead hears the
//! other copies itself. A control center that is down, or whose catalog is old, leaves a lost primary unreplaced, no more.

#![forbid(unsafe_code)]

mod catalog;
mod center;
mod error;
mod handler;

pub use catalog::{
    AdmissionRecord, Catalog, Change, CloneRecord, CloneState, Contents, DatabaseRecord, DatacenterRecord,
    DeclarationRecord, Declared, Event, EventKind, InstanceRecord, JobKind, JobRecord, JobState, LeadRecord,
    LimitRecord, LinkRecord, NodeRecord, RemovedRecord, RuleRecord, ScheduleRecord, StoreCatalog,
    StoreRecord, WantRecord,
};
pub use center::{Center, Now, Settings};
pub use error::{Error, Result};
pub use handler::ControlHandler;
