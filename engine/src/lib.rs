//! Planaria's storage engine.
#![deny(unsafe_code)]
#![allow(dead_code, unused_imports)]

mod cursor;
mod error;
mod hash;
pub mod os;
mod sync;

pub use cursor::{RecordKind, Version};
pub use error::{Error, Result};
