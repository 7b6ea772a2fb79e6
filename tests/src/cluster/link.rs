use std::collections::{BTreeMap, BinaryHeap};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Random;

/// How often a thread that waits for packets looks whether the link is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The largest packet, in bytes.
const PACKET_MAX: usize = 65_535;
/// Packets that a link holds at a time; what exceeds them is lost, as in a router.
const QUEUE_MAX: usize = 4_096;

/// What happens to packets on a link, each way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// How long a packet takes.
    pub delay: Duration,
    /// How much longer it takes at most, drawn for each: packets overtake one another.
    pub jitter: Duration,
    /// One packet in so many is lost; none if 0.
    pub lost_one_in: u64,
    /// One packet in so many comes twice; none if 0.
    pub twice_one_in: u64,
    /// One packet in so many has one bit flipped; none if 0.
    pub damaged_one_in: u64,
    /// Bytes that pass in a second; as many as there are if 0.
    pub bytes_per_second: u64,
}

/// A way along a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Direction {
    /// From those who connect to the node behind the link.
    Forth,
    /// From that node.
    Back,
}

/// A link in front of a node: whoever connects to its address speaks with that node, as far as the link lets packets
/// through. Its faults are drawn from a seed.
///
/// It passes UDP on, which is all that nodes speak, so that it needs no rights that a test might not have. A primary whose
/// secondary is away calls it at the address of its own: past the link. Partitions take [`Hosts`](super::Hosts).
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    node: SocketAddr,
    state: Mutex<State>,
    /// Told when a packet comes, and at the end.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    random: Random,
    queue: BinaryHeap<Packet>,
    /// When the last byte so far has passed, each way.
    busy_until: BTreeMap<Direction, Instant>,
    /// Packets so far: those that are due at the same time stay in order.
    packets: u64,
    passed: BTreeMap<Direction, u64>,
    ended: bool,
}

#[derive(Debug)]
struct Packet {
    due: Instant,
    number: u64,
    bytes: Vec<u8>,
    direction: Direction,
    out: Arc<UdpSocket>,
    to: SocketAddr,
}

impl Ord for Packet {
    /// The one that is due first is the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Packet {}

impl Link {
    /// A link to the node at an address.
    pub fn to(node: &str, seed: u64, weather: Weather) -> Self {
        let front = Arc::new(socket());
        let address = front.local_addr().expect("a bound socket has an address");
        let state = State {
            weather,
            random: Random::new(seed),
            queue: BinaryHeap::new(),
            busy_until: BTreeMap::new(),
            packets: 0,
            passed: BTreeMap::new(),
            ended: false,
        };
        let node = node.parse().expect("the address of a node");
        let shared = Arc::new(Shared { node, state: Mutex::new(state), changed: Condvar::new() });
        let (forth, sending) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || forth.take_forth(&front)),
            std::thread::spawn(move || sending.send_what_is_due()),
        ];
        Self { address, shared, threads }
    }

    /// Where the node can be reached over the link.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes what happens to packets from now on.
    pub fn set(&self, weather: Weather) {
        self.shared.lock().weather = weather;
    }

    /// Bytes that came through this way.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.lock().passed.get(&direction).copied().unwrap_or(0)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what comes from those who connect; each of them has a socket of its own on the other side.
    fn take_forth(self: &Arc<Self>, front: &Arc<UdpSocket>) {
        let mut sides: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
        let mut threads = Vec::new();
        let mut buffer = vec![0; PACKET_MAX];
        while let Some(received) = self.receive(front, &mut buffer) {
            let Some((bytes, from)) = received else { continue };
            let side = sides.entry(from).or_insert_with(|| {
                let side = Arc::new(socket());
                let (shared, back, front) = (Arc::clone(self), Arc::clone(&side), Arc::clone(front));
                threads.push(std::thread::spawn(move || shared.take_back(&back, &front, from)));
                side
            });
            self.queue(bytes, Direction::Forth, side, self.node);
        }
        for thread in threads {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }

    fn take_back(&self, side: &UdpSocket, front: &Arc<UdpSocket>, to: SocketAddr) {
        let mut buffer = vec![0; PACKET_MAX];
        while let Some(received) = self.receive(side, &mut buffer) {
            if let Some((bytes, _)) = received {
                self.queue(bytes, Direction::Back, front, to);
            }
        }
    }

    /// A packet, or nothing so far; none once the link has ended.
    #[expect(clippy::option_option, reason = "nothing yet and nothing any more are different answers")]
    fn receive<'b>(
        &self,
        socket: &UdpSocket,
        buffer: &'b mut [u8],
    ) -> Option<Option<(&'b [u8], SocketAddr)>> {
        let received = socket.recv_from(buffer);
        if self.lock().ended {
            return None;
        }
        match received {
            Ok((len, from)) => Some(Some((&buffer[..len], from))),
            // Nobody listens there at the moment, or nothing came: both pass.
            Err(error) => {
                let passes = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::ConnectionRefused];
                assert!(passes.contains(&error.kind()), "{error}");
                Some(None)
            }
        }
    }

    fn queue(&self, bytes: &[u8], direction: Direction, out: &Arc<UdpSocket>, to: SocketAddr) {
        let mut state = self.lock();
        let weather = state.weather;
        let happens = |random: &mut Random, one_in: u64| one_in > 0 && random.once_in(one_in);
        if state.queue.len() >= QUEUE_MAX || happens(&mut state.random, weather.lost_one_in) {
            return;
        }
        let copies = 1 + u32::from(happens(&mut state.random, weather.twice_one_in));
        for _ in 0..copies {
            let mut bytes = bytes.to_vec();
            if happens(&mut state.random, weather.damaged_one_in) {
                let bit = state.random.below(8 * bytes.len() as u64);
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
            let due = state.due(direction, bytes.len() as u64);
            state.packets += 1;
            let number = state.packets;
            state.queue.push(Packet { due, number, bytes, direction, out: Arc::clone(out), to });
        }
        drop(state);
        self.changed.notify_all();
    }

    fn send_what_is_due(&self) {
        let mut state = self.lock();
        while !state.ended {
            let now = now();
            match state.queue.peek().map(|packet| packet.due) {
                Some(due) if due <= now => {
                    let Some(packet) = state.queue.pop() else { continue };
                    *state.passed.entry(packet.direction).or_default() += packet.bytes.len() as u64;
                    // Who is not there gets nothing, as on any link.
                    let _ = packet.out.send_to(&packet.bytes, packet.to);
                }
                due => {
                    let wait = due.map_or(LOOK_EVERY, |due| due - now);
                    state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

impl State {
    /// When a packet that comes now has passed.
    fn due(&mut self, direction: Direction, bytes: u64) -> Instant {
        let weather = self.weather;
        let mut passed = now();
        if let Some(nanos) = (bytes * 1_000_000_000).checked_div(weather.bytes_per_second) {
            let begins = self.busy_until.get(&direction).map_or(passed, |busy| passed.max(*busy));
            passed = begins + Duration::from_nanos(nanos);
            self.busy_until.insert(direction, passed);
        }
        let jitter = self.random.below(weather.jitter.as_nanos() as u64 + 1);
        passed + weather.delay + Duration::from_nanos(jitter)
    }
}

#[expect(clippy::disallowed_methods, reason = "a link takes real time")]
fn now() -> Instant {
    Instant::now()
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(LOOK_EVERY)).expect("a time that is not zero");
    socket
}
