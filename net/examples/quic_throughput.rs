//! Bulk throughput over loopback: this crate's settings against quinn's own, in one run.
//!
//! `cargo run --release -p planaria-net --example quic_throughput -- [MiB]`
//!
//! Both ways send the same frames of 1 MiB through the same session; only the settings of the transport and the
//! socket differ. Sender and receiver share one process. The processor time beside each rate (Linux only) says how a
//! way compares on a machine that is busy with something else.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use planaria_net::quic::session::{Opened, ReplicaSession};
use planaria_net::quic::{
    AcceptLimits, CertAuthority, Congestion, Credentials, Endpoint, NODE_NAME, Origin, Roles, Service,
    Transport,
};
use planaria_net::wire::replica::FileRequest;

const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mebibytes: u64 = std::env::args().nth(1).map_or(Ok(2_048), |text| text.parse())?;
    let ours = Transport::default();
    // The values of quinn 0.11's defaults, as far as they matter here.
    let quinn = Transport {
        mtu_max: 1_452,
        window_bytes: u32::MAX >> 2,
        stream_window_bytes: 1_250_000,
        send_window_bytes: 10_000_000,
        initial_window_bytes: 12_000,
        socket_buffer_bytes: 212_992,
        ..ours.clone()
    };
    let ways = [
        ("quinn's defaults", quinn),
        ("ours", ours.clone()),
        ("ours, packets of 1,452", Transport { mtu_max: 1_452, ..ours.clone() }),
        ("ours, packets of 8,900", Transport { mtu_max: 8_900, ..ours.clone() }),
        ("ours, packets of 65,507", Transport { mtu_max: 65_507, ..ours.clone() }),
        ("ours, BBR", Transport { congestion: Congestion::Bbr, ..ours }),
    ];
    for round in 1..=ROUNDS {
        for (name, transport) in &ways {
            let (rate, cpu, mtu) = transfer(transport, mebibytes << 20).await?;
            println!("round {round}  {name:<24} {rate:5.2} GB/s {cpu:5.2} CPU s/GB  packets of {mtu} bytes");
        }
    }
    Ok(())
}

/// The processor time of this process so far, in seconds, to a hundredth.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program is in parentheses and may hold anything; user and system time are 12 and 13 fields on.
    let fields = stat.rsplit_once(')').ok_or("no program name")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 / 100.0)
}

/// Fetches `length` bytes; the rate in GB/s, the processor time in s/GB, and the packet size that was found.
async fn transfer(transport: &Transport, length: u64) -> Result<(f64, f64, u16), Box<dyn Error>> {
    let authority = CertAuthority::create()?;
    let issued = authority.issue("bench", Roles::ALL, Duration::from_hours(24))?;
    let credentials = Credentials::from_pem(
        Path::new("bench"),
        authority.cert_pem(),
        &issued.cert_pem,
        &issued.key_pem,
        Origin::Named,
    )?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let node = Endpoint::server(address, &credentials, transport, AcceptLimits::default())?;
    let target = node.local_address();
    let serving = tokio::spawn(async move {
        let handshaking = node.accept().await.ok_or(planaria_net::Error::Closed)?;
        let session = ReplicaSession::over(handshaking.establish().await?)?;
        let chunk = Bytes::from(vec![0x5a; 1 << 20]);
        while let Ok(Opened::File(_, sender)) = session.accept().await {
            let chunk = chunk.clone();
            sender.serve(move |_, length| Ok(chunk.slice(..length))).await?;
        }
        Ok::<_, planaria_net::Error>(session.connection().mtu())
    });
    let guest = Endpoint::client(target, &credentials, transport)?;
    let session = ReplicaSession::over(guest.connect(target, NODE_NAME, Service::Replica).await?)?;
    // The first bytes warm the path: packet size and rate are found meanwhile.
    fetch(&session, 64 << 20).await?;
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    let start = Instant::now();
    let cpu = cpu_seconds()?;
    fetch(&session, length).await?;
    let gigabytes = length as f64 / 1e9;
    let rate = gigabytes / start.elapsed().as_secs_f64();
    let cpu = (cpu_seconds()? - cpu) / gigabytes;
    session.close(planaria_net::quic::CloseCode::Done, "measured");
    Ok((rate, cpu, serving.await??))
}

async fn fetch(session: &ReplicaSession, length: u64) -> Result<(), planaria_net::Error> {
    let request = FileRequest { lease: 0, file: planaria_types::FileId(1), offset: 0, length };
    let mut file = session.fetch(request).await?;
    let mut data = planaria_engine::os::AlignedBuffer::new(1 << 20);
    while file.next(&mut data).await?.is_some() {}
    Ok(())
}
