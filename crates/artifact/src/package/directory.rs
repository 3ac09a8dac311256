//! What the zip library does not tell of a central directory (APPNOTE 4.3.12 and 4.3.14).

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

const END: &[u8] = b"PK\x05\x06";
const ZIP64_LOCATOR: &[u8] = b"PK\x06\x07";
const HEADER: &[u8] = b"PK\x01\x02";
const HEADER_BYTES: usize = 46;
/// An end record, the longest comment, and a locator before them.
const TAIL_BYTES: u64 = 22 + 65_535 + ZIP64_LOCATOR_BYTES as u64;
const ZIP64_LOCATOR_BYTES: usize = 20;

/// Refuses the 64-bit form: no function package needs more than 65,535 entries or 4 GiB, and
/// without it the number of entries, which are held in memory, is bounded before they are read.
pub(super) fn refuse_zip64(mut zip: impl Read + Seek) -> io::Result<()> {
    let size = zip.seek(SeekFrom::End(0))?;
    zip.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    zip.read_to_end(&mut tail)?;
    let mut ends = (ZIP64_LOCATOR_BYTES..tail.len()).filter(|&at| tail[at..].starts_with(END));
    if ends.any(|end| tail[end - ZIP64_LOCATOR_BYTES..].starts_with(ZIP64_LOCATOR)) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the 64-bit zip format (over 4 GiB or 65,535 entries) is not taken",
        ));
    }
    Ok(())
}

/// The first name that stands twice in the central directory that starts at `start`.
pub(super) fn repeated_name(mut zip: impl Read + Seek, start: u64) -> io::Result<Vec<u8>> {
    zip.seek(SeekFrom::Start(start))?;
    let mut zip = io::BufReader::new(zip);
    let mut names = BTreeSet::new();
    loop {
        let mut header = [0; HEADER_BYTES];
        zip.read_exact(&mut header)?;
        if !header.starts_with(HEADER) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no directory entry",
            ));
        }
        let length = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let mut name = vec![0; usize::from(length(28))];
        zip.read_exact(&mut name)?;
        let rest = u64::from(length(30)) + u64::from(length(32));
        io::copy(&mut (&mut zip).take(rest), &mut io::sink())?;
        if !names.insert(name.clone()) {
            return Ok(name);
        }
    }
}
