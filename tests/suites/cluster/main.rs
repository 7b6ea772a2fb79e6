//! Real nodes, real commands, real sockets: what a cluster does while its processes are killed, come and go, run out
//! of disk and are spoken to by strangers.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod away;
mod clones;
mod full_disk;
mod kills;
mod million;
mod refusals;
