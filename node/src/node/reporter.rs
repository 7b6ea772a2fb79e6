use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use planaria_engine::os::Os;
use planaria_net::quic::Credentials;
use planaria_net::wire::control::{ControlRequest, ControlResponse, Join, NodeReport};
use planaria_net::wire::jobs::CLONES_MAX;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::cloning::Cloning;
use super::copy_report::copy_report;
use super::errands::Errands;
use super::leadership::Leadership;
use super::links::Links;
use super::stores::Stores;
use crate::cluster::{ControlClient, Membership, wrong_answer};
use crate::output::CliError;

/// How long a node waits before it tries again to reach the control center.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Bounds of the time between two reports, whatever the control center says.
const REPORT_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(1));

/// What a node reports with.
pub(super) struct Reporting {
    pub(super) membership: Membership,
    /// The node's name in the cluster.
    pub(super) name: String,
    /// What the database is called here.
    pub(super) database: String,
    /// The port on which it listens.
    pub(super) port: u16,
    /// The directory of its database.
    pub(super) dir: PathBuf,
    pub(super) os: Arc<dyn Os>,
    pub(super) subject: Subject,
    pub(super) cloning: Cloning,
    pub(super) stores: Stores,
    pub(super) credentials: Credentials,
    pub(super) runtime: Handle,
}

/// What a node reports of.
pub(super) enum Subject {
    /// The copy that it hosts.
    Copy(Arc<Leadership>),
    /// None: it waits for one, and says when it is there.
    Spare { seeded: oneshot::Sender<()> },
}

/// A thread that has a node join its cluster, report, and do what it is told, until it is dropped.
pub(super) struct Reporter {
    /// Dropping it ends the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    pub(super) fn start(reporting: Reporting) -> Result<Self, CliError> {
        let errands = match &reporting.subject {
            Subject::Copy(leadership) => Some(Errands::start(Arc::clone(leadership))?),
            Subject::Spare { .. } => None,
        };
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("planaria-report".into())
            .spawn(move || report_all(reporting, errands, &stopped))
            .map_err(|error| CliError::new("io", format!("cannot start a thread: {error}")))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Where a node stands with the control center.
struct Joined {
    client: ControlClient,
    session: u64,
}

fn report_all(reporting: Reporting, mut errands: Option<Errands>, stopped: &Receiver<()>) {
    let links = Links::new(reporting.credentials.clone(), reporting.runtime.clone());
    let mut joined = None;
    let mut wait = Duration::ZERO;
    // What was said last of a control center that cannot be reached: it is said once.
    let mut trouble = String::new();
    while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        match reporting.report(&mut joined, errands.as_mut(), &links) {
            Ok((_, true)) => {
                if let Subject::Spare { seeded } = reporting.subject {
                    // Nobody waits for it where the node stops.
                    let _ = seeded.send(());
                }
                return;
            }
            Ok((every, false)) => {
                if !trouble.is_empty() {
                    tracing::info!(control = %reporting.membership.control, "the control center is heard again");
                    trouble.clear();
                }
                wait = every.clamp(REPORT_EVERY.0, REPORT_EVERY.1);
            }
            Err(error) => {
                joined = None;
                wait = RETRY_AFTER;
                if trouble != error.code {
                    tracing::warn!(control = %reporting.membership.control, code = %error.code, %error, "cannot report to the control center");
                    trouble = error.code.into_owned();
                }
            }
        }
    }
}

impl Reporting {
    /// Reports once, after joining if need be. Returns when the next report is due, and whether a node that waited for its
    /// copy has it now.
    fn report(
        &self,
        joined: &mut Option<Joined>,
        errands: Option<&mut Errands>,
        links: &Links,
    ) -> Result<(Duration, bool), CliError> {
        let with = match joined.take() {
            Some(with) => with,
            None => self.join()?,
        };
        let with = joined.insert(with);
        let space = self.os.disk_space(&self.dir).ok();
        let mut outcomes = errands.as_ref().map(|errands| errands.outcomes()).unwrap_or_default();
        outcomes.extend(self.cloning.outcomes());
        outcomes.extend(self.stores.outcomes());
        let (copies, spare) = match &self.subject {
            Subject::Copy(leadership) => {
                (vec![copy_report(leadership, &self.database, self.membership.role)], None)
            }
            Subject::Spare { .. } => (Vec::new(), Some(self.membership.role)),
        };
        let measured = links.reports();
        let measured_count = measured.len();
        let clones = self.cloning.reports().into_iter().chain(self.stores.reports());
        let report = NodeReport {
            session: with.session,
            capacity_bytes: space.map_or(0, |space| space.total_bytes),
            free_bytes: space.map_or(0, |space| space.available_bytes),
            copies,
            outcomes: outcomes.clone(),
            spare,
            clones: clones.take(CLONES_MAX).collect(),
            links: measured,
            stores: self.stores.seen(),
        };
        match with.client.call(ControlRequest::Report(report))? {
            ControlResponse::Orders { orders, report_every_ms, measure } => {
                links.told(measured_count);
                links.measure(measure, |address| self.round_trip_of_session(address));
                // What was given up before it was told of goes, though it is whole.
                self.stores.take(&orders);
                let seeded = self.cloning.told(&outcomes) | self.stores.told(&outcomes);
                self.cloning.take(&orders);
                if let Some(errands) = errands {
                    errands.told(&outcomes);
                    errands.take(&orders);
                }
                Ok((Duration::from_millis(report_every_ms.into()), seeded))
            }
            _ => Err(wrong_answer(self.membership.control)),
        }
    }

    /// The round trip of the session over which this node follows the one at an address, if it does.
    fn round_trip_of_session(&self, address: SocketAddr) -> Option<Duration> {
        let Subject::Copy(leadership) = &self.subject else { return None };
        let (primary, status) = leadership.following()?;
        status.round_trip.filter(|_| primary == address)
    }

    fn join(&self) -> Result<Joined, CliError> {
        let Membership { control, token, labels, advertised, .. } = &self.membership;
        let client = ControlClient::connect(&self.runtime, *control, &self.credentials)?;
        let join = Join {
            token: *token,
            name: self.name.clone(),
            port: self.port,
            labels: labels.0.clone().into_iter().collect(),
            software: concat!("planaria ", env!("CARGO_PKG_VERSION")).to_owned(),
            advertised: *advertised,
        };
        match client.call(ControlRequest::Join(join))? {
            ControlResponse::Joined { session } => {
                tracing::info!(%control, name = self.name, "joined the cluster");
                Ok(Joined { client, session })
            }
            _ => Err(wrong_answer(*control)),
        }
    }
}
