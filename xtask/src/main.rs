//! Development tasks: test set-up and runs, schema generation, tidy checks, benchmarks.

fn main() {}
