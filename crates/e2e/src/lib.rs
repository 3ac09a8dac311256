//! Whole-binary tests live in this crate's `tests` folder.
