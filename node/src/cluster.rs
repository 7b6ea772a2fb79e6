//! Speaking to a control center: nodes do, and operators.

use std::net::SocketAddr;
use std::time::Duration;

use planaria_net::quic::{Credentials, Endpoint};
use planaria_net::wire::client::Client;
use planaria_net::wire::control::{ControlRequest, ControlResponse, JoinToken};
use planaria_net::wire::message::{Request, Response};
use planaria_replication::control::{InstanceRole, Labels};
use tokio::runtime::Handle;

use crate::output::CliError;

/// Where a control center listens unless it is told otherwise: beside a node on the same machine.
pub(crate) fn default_address() -> SocketAddr {
    SocketAddr::new(Endpoint::DEFAULT_ADDRESS.ip(), 4740)
}

/// How long the control center has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a node is in its cluster.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    /// The control center.
    pub(crate) control: SocketAddr,
    /// The token of the cluster.
    pub(crate) token: JoinToken,
    /// The node's name in the cluster; that of its directory if none is given.
    pub(crate) name: Option<String>,
    /// Where it is.
    pub(crate) labels: Labels,
    /// What its copy is for when it does not lead.
    pub(crate) role: InstanceRole,
    /// Where others reach it, if not at the host that it speaks from.
    pub(crate) advertised: Option<SocketAddr>,
}

/// A connection to a control center.
pub(crate) struct ControlClient {
    client: Client,
    address: SocketAddr,
    runtime: Handle,
}

impl ControlClient {
    /// Connects. Blocks, and must not be called on a thread of the runtime.
    pub(crate) fn connect(
        runtime: &Handle,
        address: SocketAddr,
        credentials: &Credentials,
    ) -> Result<Self, CliError> {
        let connected =
            async { tokio::time::timeout(ANSWER_WITHIN, Client::connect(address, credentials)).await };
        let client = runtime.block_on(connected).map_err(|_| timed_out(address))??;
        Ok(Self { client, address, runtime: runtime.clone() })
    }

    /// Asks something. After an error that is none of the control center's own, the connection is of no use any more.
    pub(crate) fn call(&self, request: ControlRequest) -> Result<ControlResponse, CliError> {
        let request = Request::Control(Box::new(request));
        let answered = async { tokio::time::timeout(ANSWER_WITHIN, self.client.call(request)).await };
        match self.runtime.block_on(answered).map_err(|_| timed_out(self.address))?? {
            Response::Control(response) => Ok(*response),
            _ => Err(wrong_answer(self.address)),
        }
    }
}

impl Drop for ControlClient {
    fn drop(&mut self) {
        self.runtime.block_on(self.client.clone().close());
    }
}

fn timed_out(address: SocketAddr) -> CliError {
    CliError::new("timed_out", format!("no answer from the control center at {address} in time"))
        .hint("see whether `planaria control` runs there")
}

/// The error of an answer to another question.
pub(crate) fn wrong_answer(address: SocketAddr) -> CliError {
    CliError::new("protocol", format!("what listens at {address} gave an answer to another question"))
        .hint("check that control center and command line are of the same release")
}
