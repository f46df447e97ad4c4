//! Kobune's self-hosted hub.

fn main() {}
