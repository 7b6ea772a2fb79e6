//! The stores that take part, each as its documentation says that it should be used for such work.

pub(crate) mod fjall;
pub(crate) mod lmdb;
pub(crate) mod planaria;
pub(crate) mod redb;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocksdb;
pub(crate) mod sqlite;
