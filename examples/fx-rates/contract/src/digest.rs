//! Digests, written as the platform writes them: `sha256:` and lower-case hexadecimal digits.

use std::fmt::Write;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// The digest of everything that `reader` gives.
///
/// # Errors
/// When it cannot be read.
pub fn of_reader(mut reader: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut reader, &mut hasher)?;
    Ok(written(hasher))
}

/// The digest of a text.
#[must_use]
pub fn of_text(text: &str) -> String {
    written(Sha256::new_with_prefix(text))
}

fn written(hasher: Sha256) -> String {
    let mut text = String::from("sha256:");
    for byte in hasher.finalize() {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
