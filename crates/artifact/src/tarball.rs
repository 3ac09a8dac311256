//! Tar streams: written as a function of their content, read entry by entry with bounds.
//!
//! The reader takes what POSIX.1-2001 (pax), ustar and GNU writers make of plain trees. Long
//! names and pax records are read here rather than by the library, which would hold them in
//! memory at any length.

use std::io::{self, Read, Write};

use tar::{Archive, Builder, EntryType, Header, PaxExtensions};

use crate::entry::{EntryFault, EntryPath, NameFault, shown};
use crate::limits::{Exceeded, Limits, exceeded};
use crate::walk::{self, Content, Contents};

/// Writes `contents` as a tar: sorted, time 0, owner 0, modes 0755 and 0644.
pub(crate) fn write(contents: &Contents, writer: &mut dyn Write) -> io::Result<()> {
    let mut tar = Builder::new(writer);
    for (path, content) in contents {
        let mut header = Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(0o755);
        header.set_size(0);
        match content {
            Content::Folder => {
                header.set_entry_type(EntryType::Directory);
                tar.append_data(&mut header, format!("{path}/"), io::empty())?;
            }
            Content::Link { target } => {
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, path.as_str(), target)?;
            }
            Content::File { from, executable } => {
                let file = walk::open(from).map_err(io::Error::other)?;
                let size = file.metadata()?.len();
                header.set_entry_type(EntryType::Regular);
                header.set_size(size);
                if !executable {
                    header.set_mode(0o644);
                }
                // A file that grows meanwhile must not spill over into the next header.
                let mut file = file.take(size);
                tar.append_data(&mut header, path.as_str(), &mut file)?;
                if file.limit() > 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "a file shrank",
                    ));
                }
            }
        }
    }
    tar.finish()
}

/// An entry of a tar, its name parsed.
pub(crate) enum TarEntry<'a> {
    /// A folder.
    Folder,
    /// A file and its content.
    File {
        executable: bool,
        content: &'a mut dyn Read,
    },
    /// A symbolic link and its target.
    Symlink { target: String },
    /// Another name for a file of this or a lower layer.
    HardLink { target: EntryPath },
    /// A device or a named pipe, which nobody may make without privileges.
    Node,
}

/// How the names of a tar are parsed: [`EntryPath::parse`] for one that may come from any system,
/// [`EntryPath::of_layer`] for a layer.
pub(crate) type ParseName = fn(&[u8], &Limits) -> Result<EntryPath, NameFault>;

/// Why reading a tar ended early.
#[derive(Debug)]
pub(crate) enum TarFault {
    /// The stream is no tar from here on.
    Stream(io::Error),
    /// There are too many entries or bytes.
    Bound(Exceeded),
    /// One entry is refused.
    Entry { entry: String, source: EntryFault },
}

impl TarFault {
    /// What an error of the stream means: a bound of ours, or damage.
    pub(crate) fn from_stream(error: io::Error) -> Self {
        match exceeded(&error) {
            Some(bound) => Self::Bound(bound),
            None => Self::Stream(error),
        }
    }
}

/// Bytes of one pax header; real ones have a few hundred.
const PAX_BYTES: u64 = 64 << 10;

/// Reads all entries of a tar and hands each to `act`, files with their content.
pub(crate) fn read(
    tar: impl Read,
    limits: &Limits,
    name_of: ParseName,
    mut act: impl FnMut(&EntryPath, TarEntry<'_>) -> Result<(), EntryFault>,
) -> Result<(), TarFault> {
    let stream = TarFault::from_stream;
    let mut archive = Archive::new(tar);
    let mut long = LongNames::default();
    let mut count = 0;
    for entry in archive.entries().map_err(stream)?.raw(true) {
        let mut entry = entry.map_err(stream)?;
        count += 1;
        if count > limits.entries {
            return Err(TarFault::Bound(Exceeded::Entries(limits.entries)));
        }
        let header = entry.header().clone();
        let name = long
            .name
            .clone()
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let refused = |source| TarFault::Entry {
            entry: shown(&name),
            source,
        };
        if long
            .take_note(&header, &mut entry, limits)
            .map_err(refused)?
        {
            continue;
        }
        let names = std::mem::take(&mut long);
        let path = name_of(&name, limits).map_err(|fault| refused(fault.into()))?;
        if header.entry_size().map_err(stream)? > limits.entry_bytes {
            return Err(refused(Exceeded::EntryBytes(limits.entry_bytes).into()));
        }
        let parsed = parse(&header, names.link, &mut entry, limits, name_of).map_err(refused)?;
        act(&path, parsed).map_err(refused)?;
    }
    Ok(())
}

fn parse<'a>(
    header: &Header,
    long_link: Option<Vec<u8>>,
    content: &'a mut dyn Read,
    limits: &Limits,
    name_of: ParseName,
) -> Result<TarEntry<'a>, EntryFault> {
    let link = || {
        long_link
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
            .unwrap_or_default()
    };
    match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            let mode = header.mode().map_err(EntryFault::Header)?;
            Ok(TarEntry::File {
                executable: mode & 0o100 != 0,
                content,
            })
        }
        EntryType::Directory => Ok(TarEntry::Folder),
        EntryType::Symlink => {
            let target =
                String::from_utf8(link()).map_err(|_| EntryFault::Name(NameFault::NotUtf8))?;
            if target.is_empty() || target.contains('\0') || target.len() > limits.path_bytes {
                return Err(EntryFault::Header(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a symbolic link needs a target of bearable length",
                )));
            }
            Ok(TarEntry::Symlink { target })
        }
        EntryType::Link => Ok(TarEntry::HardLink {
            target: name_of(&link(), limits)?,
        }),
        EntryType::Char | EntryType::Block | EntryType::Fifo => Ok(TarEntry::Node),
        _ => Err(EntryFault::Special),
    }
}

/// Names that stand in entries of their own before the entry that they belong to.
#[derive(Default)]
struct LongNames {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl LongNames {
    /// Takes note of an entry that only tells about the next; `false` for any other entry.
    fn take_note(
        &mut self,
        header: &Header,
        content: &mut dyn Read,
        limits: &Limits,
    ) -> Result<bool, EntryFault> {
        match header.entry_type() {
            EntryType::GNULongName => self.name = Some(long_name(content, limits)?),
            EntryType::GNULongLink => self.link = Some(long_name(content, limits)?),
            EntryType::XHeader => self.pax(header, content, limits)?,
            // Comments, as `git archive` writes them; names for all entries would be nonsense.
            EntryType::XGlobalHeader => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn pax(
        &mut self,
        header: &Header,
        content: &mut dyn Read,
        limits: &Limits,
    ) -> Result<(), EntryFault> {
        let unusable = |what: &'static str| {
            EntryFault::Header(io::Error::new(io::ErrorKind::InvalidData, what))
        };
        if header.entry_size().map_err(EntryFault::Header)? > PAX_BYTES {
            return Err(Exceeded::EntryBytes(PAX_BYTES).into());
        }
        let mut records = Vec::new();
        content
            .take(PAX_BYTES)
            .read_to_end(&mut records)
            .map_err(EntryFault::Damaged)?;
        for record in PaxExtensions::new(&records) {
            let record = record.map_err(EntryFault::Header)?;
            let value = record.value_bytes().to_vec();
            match record.key_bytes() {
                b"path" => self.name = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => return Err(unusable("a size in a pax record is not taken")),
                key if key.starts_with(b"GNU.sparse") => {
                    return Err(unusable("sparse files are not taken"));
                }
                // Times, owners, extended attributes, capabilities: never applied.
                _ => {}
            }
        }
        if self
            .name
            .as_ref()
            .is_some_and(|name| name.len() > limits.path_bytes)
        {
            return Err(NameFault::TooLong(limits.path_bytes).into());
        }
        Ok(())
    }
}

/// A GNU long name ends with a NUL that is not part of it.
fn long_name(content: &mut dyn Read, limits: &Limits) -> Result<Vec<u8>, EntryFault> {
    let mut name = Vec::new();
    let limit = limits.path_bytes as u64 + 2;
    content
        .take(limit)
        .read_to_end(&mut name)
        .map_err(EntryFault::Damaged)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}
