//! Real nodes, real commands, real sockets: what a cluster does while its processes are killed, come and go, run out
//! of disk and are spoken to by strangers.

mod away;
mod clones;
mod full_disk;
mod kills;
mod million;
mod refusals;
