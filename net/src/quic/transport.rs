use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::wire::limits::CLONE_CONNECTIONS_MAX;
use crate::{Error, Result};

/// The least UDP payload that every path must carry, in bytes (RFC 9000, section 14).
const MTU_MIN: u16 = 1_200;
/// The greatest UDP payload of IPv4, in bytes.
pub(crate) const UDP_PAYLOAD_MAX: usize = 65_507;

/// The silence after which the source of a transfer is given up, at most.
const TRANSFER_SILENCE_MAX: Duration = Duration::from_secs(10);

/// How the sending rate follows the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Congestion {
    /// CUBIC (RFC 9438): by loss. The default.
    #[default]
    Cubic,
    /// BBR: by bandwidth and round trip; for long paths that lose packets without being full.
    Bbr,
}

/// The settings of a connection. The defaults are justified by a measurement in
/// `docs/decisions/0003-quic-settings.md`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transport {
    /// The greatest UDP payload that is tried, in bytes: discovery starts at 1,200 and finds what the path carries.
    /// From 1,200 to 65,507.
    pub mtu_max: u16,
    /// Bytes that a peer may send on one connection before they are read. At least `stream_window_bytes`.
    pub window_bytes: u32,
    /// Bytes that a peer may send on one stream before they are read.
    pub stream_window_bytes: u32,
    /// Bytes that this side buffers for one connection until they are acknowledged.
    pub send_window_bytes: u32,
    /// Bytes in flight at the start, before the path is known. At least twice `mtu_max`.
    pub initial_window_bytes: u32,
    /// Bytes of the socket's buffers, each way. The system may grant less.
    pub socket_buffer_bytes: u32,
    /// How the sending rate follows the path.
    pub congestion: Congestion,
    /// Whether the system cuts what is sent into packets, where it can: less processor time for a byte.
    pub segmentation_offload: bool,
    /// After this much silence a packet is sent to keep the connection. Below `idle_timeout`.
    pub keep_alive: Duration,
    /// After this much silence the connection is given up; that of a clone or a backup after ten seconds, if this is more.
    pub idle_timeout: Duration,
    /// Streams that a peer may have open at a time: requests of a client, transfers of a replica.
    pub streams_max: u16,
    /// Connections over which this side takes one clone, if it is large enough: from 1 to 8. One core fills one of them, and each
    /// costs both sides a handshake.
    pub clone_connections: u8,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            mtu_max: 16 << 10,
            window_bytes: 16 << 20,
            stream_window_bytes: 8 << 20,
            send_window_bytes: 16 << 20,
            initial_window_bytes: 1 << 20,
            socket_buffer_bytes: 8 << 20,
            congestion: Congestion::Cubic,
            segmentation_offload: true,
            keep_alive: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            streams_max: 32,
            clone_connections: connections_for(available_parallelism().map_or(1, NonZero::get)),
        }
    }
}

impl Transport {
    /// The same for a transfer that goes on from elsewhere when its source is gone: what has died says nothing, and is given up after
    /// less silence than a connection that has nothing to say.
    pub(crate) fn watchful(&self) -> Self {
        let idle_timeout = self.idle_timeout.min(TRANSFER_SILENCE_MAX);
        Self { idle_timeout, keep_alive: self.keep_alive.min(idle_timeout / 5), ..self.clone() }
    }

    /// Checks that every setting is within its range and fits the others.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for the first that does not.
    pub fn check(&self) -> Result<()> {
        let wrong = |setting, value: &dyn std::fmt::Debug, why| {
            Err(Error::Setting { setting, value: format!("{value:?}"), why })
        };
        if self.mtu_max < MTU_MIN || usize::from(self.mtu_max) > UDP_PAYLOAD_MAX {
            return wrong("mtu_max", &self.mtu_max, "it lies between 1200 and 65507 bytes");
        }
        if self.stream_window_bytes < 64 << 10 {
            return wrong("stream_window_bytes", &self.stream_window_bytes, "it is at least 64 KiB");
        }
        if self.window_bytes < self.stream_window_bytes {
            return wrong("window_bytes", &self.window_bytes, "it is at least stream_window_bytes");
        }
        if self.send_window_bytes < 64 << 10 {
            return wrong("send_window_bytes", &self.send_window_bytes, "it is at least 64 KiB");
        }
        if self.initial_window_bytes < 2 * u32::from(self.mtu_max) {
            return wrong("initial_window_bytes", &self.initial_window_bytes, "it is at least twice mtu_max");
        }
        if self.keep_alive.is_zero() || self.keep_alive >= self.idle_timeout {
            return wrong("keep_alive", &self.keep_alive, "it lies above zero and below idle_timeout");
        }
        if self.idle_timeout > Duration::from_hours(24) {
            return wrong("idle_timeout", &self.idle_timeout, "it is at most a day");
        }
        if self.streams_max == 0 {
            return wrong("streams_max", &self.streams_max, "it is at least 1");
        }
        if !(1..=CLONE_CONNECTIONS_MAX).contains(&self.clone_connections) {
            return wrong("clone_connections", &self.clone_connections, "it lies between 1 and 8");
        }
        Ok(())
    }

    /// The settings of quinn, each named: its defaults leave the connection window unlimited and the initial window
    /// below one large packet.
    ///
    /// Whoever stays `on_loopback` finds the largest packet in two probes, as large ones pass there; elsewhere about ten narrow
    /// it down. Each costs both sides as much as a message does, just when a session begins.
    pub(crate) fn config(&self, on_loopback: bool) -> Result<Arc<TransportConfig>> {
        self.check()?;
        let idle = IdleTimeout::try_from(self.idle_timeout).map_err(|_| Error::Setting {
            setting: "idle_timeout",
            value: format!("{:?}", self.idle_timeout),
            why: "it is at most a day",
        })?;
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.mtu_max);
        if on_loopback {
            // The first probe lies in the middle, and the step from there to the next would be smaller than this.
            mtu.minimum_change(self.mtu_max.saturating_sub(MTU_MIN) / 4 + 1);
        }
        mtu.interval(Duration::from_mins(10));
        mtu.black_hole_cooldown(Duration::from_mins(1));
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from(u32::from(self.streams_max)))
            .max_concurrent_uni_streams(VarInt::from(0_u32))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            .stream_receive_window(VarInt::from(self.stream_window_bytes))
            .receive_window(VarInt::from(self.window_bytes))
            .send_window(u64::from(self.send_window_bytes))
            .send_fairness(true)
            .initial_mtu(MTU_MIN)
            .min_mtu(MTU_MIN)
            .mtu_discovery_config(Some(mtu))
            .congestion_controller_factory(self.controller())
            .crypto_buffer_size(16 << 10)
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0)
            .allow_spin(false)
            .enable_segmentation_offload(self.segmentation_offload);
        Ok(Arc::new(config))
    }

    /// The settings of the socket's endpoint: it accepts packets as large as its peers may discover.
    pub(crate) fn endpoint_config(&self) -> Result<EndpointConfig> {
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(self.mtu_max.max(1_472)).map_err(|_| Error::Setting {
            setting: "mtu_max",
            value: self.mtu_max.to_string(),
            why: "it lies between 1200 and 65507 bytes",
        })?;
        Ok(config)
    }

    fn controller(&self) -> Arc<dyn ControllerFactory + Send + Sync> {
        let window = u64::from(self.initial_window_bytes);
        match self.congestion {
            Congestion::Cubic => {
                let mut cubic = CubicConfig::default();
                cubic.initial_window(window);
                Arc::new(cubic)
            }
            Congestion::Bbr => {
                let mut bbr = BbrConfig::default();
                bbr.initial_window(window);
                Arc::new(bbr)
            }
        }
    }
}

/// How many connections a clone has on a machine of so many cores, if nobody says: the other side and the disk take their part
/// of them.
fn connections_for(cores: usize) -> u8 {
    let more = u8::try_from(cores / 4).unwrap_or(u8::MAX);
    more.saturating_add(1).min(CLONE_CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::{Transport, connections_for};
    use std::time::Duration;

    #[test]
    fn the_defaults_fit_and_each_misfit_is_named() {
        Transport::default().check().unwrap();
        let named = |transport: Transport| match transport.check() {
            Err(crate::Error::Setting { setting, .. }) => setting,
            other => panic!("{other:?}"),
        };
        let base = Transport::default;
        assert_eq!(named(Transport { mtu_max: 1_000, ..base() }), "mtu_max");
        assert_eq!(named(Transport { mtu_max: 65_508, ..base() }), "mtu_max");
        assert_eq!(named(Transport { window_bytes: 1 << 20, ..base() }), "window_bytes");
        assert_eq!(named(Transport { initial_window_bytes: 12_000, ..base() }), "initial_window_bytes");
        assert_eq!(named(Transport { keep_alive: Duration::from_secs(30), ..base() }), "keep_alive");
        assert_eq!(named(Transport { streams_max: 0, ..base() }), "streams_max");
        assert_eq!(named(Transport { clone_connections: 0, ..base() }), "clone_connections");
        assert_eq!(named(Transport { clone_connections: 9, ..base() }), "clone_connections");
    }

    #[test]
    fn a_transfer_notices_the_death_of_its_source_sooner_and_keeps_what_it_was_told() {
        let base = Transport::default();
        base.watchful().check().unwrap();
        assert!(base.watchful().idle_timeout < base.idle_timeout);
        let short = Transport {
            idle_timeout: Duration::from_secs(1),
            keep_alive: Duration::from_millis(100),
            ..Transport::default()
        };
        assert_eq!(short.watchful(), short);
    }

    #[test]
    fn a_clone_has_one_connection_on_few_cores_and_never_more_than_eight() {
        let of = [1, 2, 3, 4, 8, 16, 28, 32, 512, usize::MAX].map(connections_for);
        assert_eq!(of, [1, 1, 1, 2, 3, 5, 8, 8, 8, 8]);
    }
}
