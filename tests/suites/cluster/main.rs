//! Real nodes, real commands, real sockets: what a cluster does while its processes are killed, come and go, run out
//! of disk and are spoken to by strangers.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[cfg(test)]
mod away;
#[cfg(test)]
mod backups;
#[cfg(test)]
mod cascade;
#[cfg(test)]
mod clone_lies;
#[cfg(test)]
mod clone_life;
#[cfg(test)]
mod clone_matrix;
#[cfg(test)]
mod clones;
#[cfg(test)]
mod compare;
#[cfg(test)]
mod control;
#[cfg(test)]
mod control_clones;
#[cfg(test)]
mod control_crash;
#[cfg(test)]
mod control_links;
#[cfg(test)]
mod control_members;
#[cfg(test)]
mod control_rules;
#[cfg(test)]
mod control_shapes;
#[cfg(test)]
mod control_stores;
#[cfg(test)]
mod control_topology;
#[cfg(test)]
mod demos;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod lazy;
#[cfg(test)]
mod links;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod million;
#[cfg(test)]
mod partial;
#[cfg(test)]
mod partitions;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod routing;
