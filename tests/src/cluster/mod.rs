//! Real nodes as processes of their own: what starts, kills, asks and compares them.
//!
//! Whatever goes wrong here ends the test with a panic that says what was seen.

mod answer;
mod binary;
mod center;
mod history;
mod hosts;
mod link;
mod node;
mod process;
mod random;
mod site;
mod table;
mod wait;

pub use answer::Answer;
pub use binary::planaria;
pub use center::Center;
pub use history::{Asked, History};
pub use hosts::{Host, Hosts};
pub use link::{Direction, Link, Weather};
pub use node::Node;
pub use random::Random;
pub use site::Site;
pub use table::TableFile;
pub use wait::{PATIENCE, Stopwatch, wait_for};
