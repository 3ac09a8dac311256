//! Trees of folders that others filled: work, builders, images.
//!
//! Whoever fills a tree chooses its depth, its names, its modes and its links, and may have left
//! something running that changes it. So whatever walks one here
//! - goes from one open folder to the next, by one name at a time, and never by a path;
//! - follows no link and enters no mount;
//! - has the same few descriptors open however deep the tree is, and does not recurse: it goes back
//!   by `..`, and believes it only if that is the folder that it came from;
//! - gives its owner back the right to a folder that it has to change, where that was taken.
//!
//! All of it blocks, for as long as the tree is large: it belongs on a thread of its own. Linux 5.6.
//!
//! Within a user namespace work may have made files as another user of this host than the one that
//! removes them. These go if the folder that they are in may be changed, which root always may. An
//! ordinary user may not change a folder of another identity: that is an error which names it, and
//! goes to the [`Aside`].

mod aside;
mod measure;
mod open;
mod own;
mod remove;
mod visit;

pub use aside::{Aside, Left, Retried};
pub use measure::{Amount, Linked, Measured, measure};
pub use open::{mend_at, open_regular};
pub use own::{close_to_others, is_ours, own_folder, own_folders};
pub use remove::{RemoveError, Stop, empty_but, remove, remove_at, to_the_end};
pub use visit::each_folder;

#[cfg(test)]
mod tests;
