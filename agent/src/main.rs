//! Kobune, the edge container agent.
fn main() {}
