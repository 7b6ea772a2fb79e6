//! The planaria program: a node, its command line and the demo.
#![forbid(unsafe_code)]
#![allow(dead_code, unused_imports)]

mod import;
mod key_text;
mod output;

fn main() {}
