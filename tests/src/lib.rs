//! What the whole-system tests of Planaria share.

pub mod model;
