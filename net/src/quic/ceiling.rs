//! What the path and the machine give at most: plain bytes, without frames, hashes and a store's files. Transfers of ours are
//! held against it.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use tokio::task::JoinSet;

use super::connection::lost;
use super::{AcceptLimits, CloseCode, Connection, Credentials, Endpoint, NODE_NAME, Service, Transport};
use crate::{Error, Result};

/// What is sent at a time, in bytes.
const PART_BYTES: usize = 1 << 20;
/// Packets that are taken off a stream at a time.
const CHUNKS: usize = 64;
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Sends `bytes` over one QUIC connection on loopback in as many streams, connecting included. With a directory they are written
/// to a file for each stream there, which are durable when this returns.
///
/// # Errors
///
/// Whatever the connection or the files meet.
pub async fn quic(
    credentials: &Credentials,
    transport: &Transport,
    bytes: u64,
    streams: u64,
    dir: Option<&Path>,
) -> Result<()> {
    let node = Endpoint::server(LOOPBACK, credentials, transport, AcceptLimits::default())?;
    let address = node.local_address();
    let (sending, receiving) = tokio::join!(
        async {
            let connection = node.accept().await.ok_or(Error::Closed)?.establish().await?;
            send_all(&connection, bytes / streams.max(1)).await
        },
        async {
            let guest = Endpoint::client(address, credentials, transport)?;
            let connection = guest.connect(address, NODE_NAME, Service::Client).await?;
            let received = receive_all(&connection, streams, dir).await;
            connection.farewell(CloseCode::Done, "measured").await;
            received
        }
    );
    receiving.and(sending)
}

/// Answers every stream with so many bytes, until the peer is done.
async fn send_all(connection: &Connection, bytes: u64) -> Result<()> {
    let part = Bytes::from(vec![0x5a; PART_BYTES]);
    let mut sending = JoinSet::new();
    while let Ok((mut stream, _)) = connection.bare().accept_bi().await {
        let part = part.clone();
        sending.spawn(async move {
            let mut left = bytes;
            while left > 0 {
                let length = left.min(PART_BYTES as u64);
                if stream.write_chunk(part.slice(..length as usize)).await.is_err() {
                    return;
                }
                left -= length;
            }
            // An error says that the peer reads no more.
            let _ = stream.finish();
        });
    }
    while sending.join_next().await.is_some() {}
    Ok(())
}

async fn receive_all(connection: &Connection, streams: u64, dir: Option<&Path>) -> Result<()> {
    let mut receiving = JoinSet::new();
    for stream in 0..streams {
        let path = dir.map(|dir| dir.join(stream.to_string()));
        receiving.spawn(receive(connection.clone(), path));
    }
    while let Some(received) = receiving.join_next().await {
        received.map_err(|_| Error::Ended("a stream was not read to its end"))??;
    }
    Ok(())
}

async fn receive(connection: Connection, path: Option<PathBuf>) -> Result<()> {
    let address = connection.peer().address;
    let opened = connection.bare().open_bi().await;
    let (mut request, mut stream) = opened.map_err(|error| lost(address, &error))?;
    // A stream exists for the other side once something was sent on it.
    request.write_all(&[0]).await.map_err(|_| Error::Closed)?;
    let mut file = match &path {
        Some(path) => Some(File::create(path).map_err(|error| Error::file("create", path, error))?),
        None => None,
    };
    loop {
        let mut chunks = vec![Bytes::new(); CHUNKS];
        let read = stream.read_chunks(&mut chunks).await.map_err(|_| Error::Closed)?;
        let Some(count) = read else { break };
        chunks.truncate(count);
        if let Some(open) = file.take() {
            file = Some(blocking(move || write_all(open, &chunks)).await?);
        }
    }
    if let Some(file) = file {
        blocking(move || file.sync_data()).await?;
    }
    Ok(())
}

fn write_all(mut file: File, chunks: &[Bytes]) -> std::io::Result<File> {
    let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let written = file.write_vectored(rest)?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(file)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::Ended("a blocking call broke off"))?
        .map_err(|error| Error::file("write", Path::new("the bytes that were received"), error))
}

/// Sends `bytes` over one TCP connection with TLS 1.3 on loopback, connecting included. Nothing is written.
///
/// # Errors
///
/// Whatever the connection meets.
pub fn tcp_tls(credentials: &Credentials, bytes: u64) -> Result<()> {
    let met = |error: std::io::Error| Error::file("transfer", Path::new("bytes over TCP"), error);
    let listener = TcpListener::bind(LOOPBACK).map_err(met)?;
    let address = listener.local_addr().map_err(met)?;
    let server = Arc::new(credentials.tls_server_config()?);
    let client = Arc::new(credentials.tls_client_config(Service::Client, true)?);
    let unusable = |error: rustls::Error| met(std::io::Error::other(error));
    let sending = move || -> std::io::Result<()> {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let connection = ServerConnection::new(server).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        let part = vec![0x5a; PART_BYTES];
        let mut left = bytes;
        while left > 0 {
            let length = left.min(PART_BYTES as u64);
            stream.write_all(&part[..length as usize])?;
            left -= length;
        }
        stream.conn.send_close_notify();
        stream.flush()
    };
    std::thread::scope(|scope| {
        let sender = scope.spawn(sending);
        let socket = TcpStream::connect(address).map_err(met)?;
        let name = ServerName::try_from(NODE_NAME).map_err(|error| met(std::io::Error::other(error)))?;
        let connection = ClientConnection::new(client, name).map_err(unusable)?;
        let mut stream = StreamOwned::new(connection, socket);
        let (mut part, mut left) = (vec![0; PART_BYTES], bytes);
        while left > 0 {
            let count = stream.read(&mut part).map_err(met)?;
            if count == 0 {
                return Err(Error::Ended("the bytes over TCP"));
            }
            left = left.saturating_sub(count as u64);
        }
        sender.join().map_err(|_| Error::Ended("the sender over TCP"))?.map_err(met)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::quic::{CertAuthority, Origin, Roles};

    fn credentials() -> Credentials {
        let authority = CertAuthority::create().unwrap();
        let issued = authority.issue("ceiling", Roles::ALL, Duration::from_hours(1)).unwrap();
        let (cert, key) = (&issued.cert_pem, &issued.key_pem);
        Credentials::from_pem(Path::new("ceiling"), authority.cert_pem(), cert, key, Origin::Named).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_bytes_arrive_and_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = 5 << 20;
        quic(&credentials(), &Transport::default(), bytes, 2, Some(dir.path())).await.unwrap();
        let files = std::fs::read_dir(dir.path()).unwrap();
        let lengths: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(lengths, [bytes / 2; 2]);
        tokio::task::spawn_blocking(move || tcp_tls(&credentials(), bytes)).await.unwrap().unwrap();
    }
}
