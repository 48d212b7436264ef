//! The command `memory-r1`.

fn main() {}
