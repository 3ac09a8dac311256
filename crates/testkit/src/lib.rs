//! For tests only: a fake clock, fault-injecting stores, models of what should happen.
