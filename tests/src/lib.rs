//! What the whole-system tests of Planaria share.

pub mod cluster;
pub mod model;
