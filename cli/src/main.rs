//! `kubectl mesh`.

fn main() {}
