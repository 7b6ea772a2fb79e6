use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};

use super::transport::UDP_PAYLOAD_MAX;

/// The bytes that the kernel may join into one received buffer.
const RECEIVE_BYTES_MAX: usize = 64 << 10;

/// A UDP socket that keeps segmentation offload within what the system takes.
///
/// quinn hands over up to ten packets in one call, whatever their size. Where they exceed 64 KiB the system answers
/// EMSGSIZE, which quinn takes for sent: the packets are lost, and the connection falls back to the smallest MTU.
/// So a larger transmit is cut here at packet boundaries. A fixed cap on the number of packets would do as well, but
/// it must be set for the largest MTU, and would slow down every path that carries only ordinary packets.
#[derive(Debug)]
pub(crate) struct OffloadSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    receive_segments: usize,
}

impl OffloadSocket {
    /// Binds a socket to `address` with buffers of `buffer_bytes`, or what the system grants.
    ///
    /// `payload_max` is the greatest packet that is accepted, in bytes.
    pub(crate) fn bind(address: SocketAddr, buffer_bytes: u32, payload_max: usize) -> io::Result<Arc<Self>> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        let buffer_bytes = buffer_bytes as usize;
        socket.set_send_buffer_size(buffer_bytes)?;
        socket.set_recv_buffer_size(buffer_bytes)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let (send, receive) = (socket.send_buffer_size()?, socket.recv_buffer_size()?);
        if send < buffer_bytes || receive < buffer_bytes {
            tracing::debug!(
                send,
                receive,
                wanted = buffer_bytes,
                "the system grants smaller socket buffers; raise net.core.rmem_max and net.core.wmem_max"
            );
        }
        let inner = TokioRuntime.wrap_udp_socket(socket.into())?;
        // quinn sizes its receive buffer as packets × their greatest size; the kernel never joins more than 64 KiB.
        let receive_segments = RECEIVE_BYTES_MAX
            .div_ceil(payload_max.max(1))
            .min(inner.max_receive_segments())
            .max(1);
        Ok(Arc::new(Self {
            inner,
            receive_segments,
        }))
    }
}

impl AsyncUdpSocket for OffloadSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit
            .segment_size
            .filter(|_| transmit.contents.len() > UDP_PAYLOAD_MAX)
        else {
            return self.inner.try_send(transmit);
        };
        // If the buffer is full midway, the whole transmit is sent again later: packets that arrive twice are
        // dropped by their numbers, whereas packets that were never sent would count as lost.
        for contents in transmit.contents.chunks(part_bytes(segment)) {
            self.inner.try_send(&Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn,
                contents,
                segment_size: (contents.len() > segment).then_some(segment),
                src_ip: transmit.src_ip,
            })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// The bytes of as many whole segments as one call may carry.
fn part_bytes(segment: usize) -> usize {
    let segment = segment.max(1);
    (UDP_PAYLOAD_MAX / segment).max(1) * segment
}

#[cfg(test)]
mod tests {
    use super::{UDP_PAYLOAD_MAX, part_bytes};

    #[test]
    fn parts_are_whole_segments_that_the_system_takes() {
        for segment in [1, 1_200, 1_452, 8_900, 16_384, 40_000, UDP_PAYLOAD_MAX] {
            let part = part_bytes(segment);
            assert!(
                part <= UDP_PAYLOAD_MAX && part % segment == 0 && part > 0,
                "{segment}"
            );
        }
        assert_eq!(part_bytes(16_384), 3 * 16_384);
    }
}
