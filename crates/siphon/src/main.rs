//! The siphon command.
fn main() {}
