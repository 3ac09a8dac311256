//! Files that are read whole, and are no longer than they may be.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Reads a file; `FileTooLarge` if it has more than `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = File::open(path)?
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if length as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn refused(path: &Path, most: u64) -> Option<io::ErrorKind> {
        read(path, most).err().map(|error| error.kind())
    }

    #[test]
    fn what_is_read_counts_and_not_the_length_that_was_told_before() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("file");
        fs::write(&path, "twelve bytes")?;
        assert_eq!(read(&path, 12)?, b"twelve bytes");
        assert_eq!(refused(&path, 11), Some(io::ErrorKind::FileTooLarge));
        // Its length is said to be 0, as that of a file would be that grows a moment later.
        let grows = Path::new("/proc/self/status");
        assert_eq!(fs::metadata(grows)?.len(), 0);
        assert_eq!(refused(grows, 11), Some(io::ErrorKind::FileTooLarge));
        Ok(())
    }
}
