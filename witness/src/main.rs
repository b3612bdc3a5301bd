//! x
#[expect(dead_code, reason = "main does not start anything yet")]
mod config;

fn main() {}
