//! (described by the guide in lib.rs)
