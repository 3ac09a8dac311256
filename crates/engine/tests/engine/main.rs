//! Jobs and acceptance tests as their callers run them. One binary, for each that links DataFusion
//! weighs hundreds of megabytes.

mod acceptance;
mod check;
mod figures;
mod fixture;
mod fx_rates;
mod hostile;
mod job;
mod repeatable;
