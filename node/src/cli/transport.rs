//! The settings of QUIC, as they are said on the command line.

use std::time::Duration;

use planaria_net::quic::{Congestion, Transport};
use planaria_net::wire::limits::CLONE_CONNECTIONS_MAX;

use super::choice::{parse_bytes, parse_duration_ms};

/// Settings of the network, `NAME=VALUE` with commas between them; what is not named has its default.
///
/// # Errors
///
/// What is wrong, and with which setting.
pub(super) fn parse_transport(text: &str) -> Result<Transport, String> {
    let mut transport = Transport::default();
    for setting in text.split(',').filter(|setting| !setting.is_empty()) {
        let (name, value) =
            setting.split_once('=').ok_or_else(|| format!("{setting:?} is not written NAME=VALUE"))?;
        set(&mut transport, name, value).map_err(|why| format!("{name}: {why}"))?;
    }
    transport.check().map_err(|error| error.to_string())?;
    Ok(transport)
}

fn set(transport: &mut Transport, name: &str, value: &str) -> Result<(), String> {
    let bytes = || {
        let bytes = parse_bytes(value)?;
        u32::try_from(bytes).map_err(|_| "it is below 4GiB".to_owned())
    };
    let time = || parse_duration_ms(value).map(Duration::from_millis);
    match name {
        "mtu" => transport.mtu_max = value.parse().map_err(|_| "it is a number of bytes".to_owned())?,
        "window" => transport.window_bytes = bytes()?,
        "stream-window" => transport.stream_window_bytes = bytes()?,
        "send-window" => transport.send_window_bytes = bytes()?,
        "initial-window" => transport.initial_window_bytes = bytes()?,
        "socket-buffer" => transport.socket_buffer_bytes = bytes()?,
        "congestion" => transport.congestion = congestion(value)?,
        "offload" => transport.segmentation_offload = switch(value)?,
        "keep-alive" => transport.keep_alive = time()?,
        "idle" => transport.idle_timeout = time()?,
        "connections" => transport.clone_connections = parse_connections(value)?,
        _ => {
            return Err("there is no such setting; there are mtu, window, stream-window, send-window, initial-window, \
                        socket-buffer, congestion, offload, keep-alive, idle and connections"
                .to_owned());
        }
    }
    Ok(())
}

/// Over how many connections clones come in.
pub(super) fn parse_connections(text: &str) -> Result<u8, String> {
    let connections = text.parse().ok().filter(|count| (1..=CLONE_CONNECTIONS_MAX).contains(count));
    connections.ok_or_else(|| format!("it is a number from 1 to {CLONE_CONNECTIONS_MAX}"))
}

fn congestion(value: &str) -> Result<Congestion, String> {
    match value {
        "cubic" => Ok(Congestion::Cubic),
        "bbr" => Ok(Congestion::Bbr),
        _ => Err("it is cubic or bbr".to_owned()),
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_and_the_others_stay() {
        assert_eq!(parse_transport("").unwrap(), Transport::default());
        let text =
            "mtu=8952,window=64MiB,stream-window=32MiB,congestion=bbr,offload=off,idle=1m,connections=3";
        let expected = Transport {
            mtu_max: 8_952,
            window_bytes: 64 << 20,
            stream_window_bytes: 32 << 20,
            congestion: Congestion::Bbr,
            segmentation_offload: false,
            idle_timeout: Duration::from_mins(1),
            clone_connections: 3,
            ..Transport::default()
        };
        assert_eq!(parse_transport(text).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, said) in [
            ("mtu", "NAME=VALUE"),
            ("mtu=9", "mtu_max"),
            ("mtu=many", "mtu: "),
            ("window=1MiB", "window_bytes"),
            ("window=8GiB", "below 4GiB"),
            ("speed=9", "no such setting"),
            ("congestion=reno", "cubic or bbr"),
            ("offload=1", "on or off"),
            ("idle=1", "unit"),
            ("connections=0", "1 to 8"),
            ("connections=9", "1 to 8"),
        ] {
            let why = parse_transport(text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
    }
}
