//! The `barecount` binary: verbs, configuration, output, exit statuses, wiring.

fn main() {}
