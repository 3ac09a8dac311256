//! The server name in a TLS ClientHello (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3).
//!
//! Reads the server name and whether the encrypted ClientHello extension (RFC 9849) is there, and
//! passes over the rest. A message that breaks the grammar anywhere on the way is not TLS.

/// What the bytes are so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Nothing wrong yet, and not all there.
    Incomplete,
    /// Something else.
    NotTls(&'static str),
    /// A whole ClientHello.
    Hello(ClientHello),
}

/// What a ClientHello says about where it is going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientHello {
    /// The name as it was sent.
    pub(crate) server_name: Option<String>,
    /// Whether the encrypted ClientHello extension is there, filled in earnest or with noise.
    pub(crate) encrypted: bool,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// Over more records than this no client spreads a ClientHello in earnest.
const MAX_RECORDS: usize = 64;
const MAX_RECORD: usize = 16 * 1024;

/// Reads the first bytes of a connection.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    match handshake_message(bytes) {
        Ok(Some(message)) => match client_hello(&message) {
            Some(hello) => Parsed::Hello(hello),
            None => Parsed::NotTls("the ClientHello is malformed"),
        },
        Ok(None) => Parsed::Incomplete,
        Err(what) => Parsed::NotTls(what),
    }
}

/// Joins the fragments of the first handshake message; its body without the four bytes of type
/// and length.
fn handshake_message(bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut rest = bytes;
    let mut joined = Vec::new();
    for _ in 0..MAX_RECORDS {
        match rest {
            [kind, ..] if *kind != HANDSHAKE => return Err("no TLS handshake record came first"),
            [_, major, ..] if *major != 3 => return Err("a record has no version of TLS"),
            [_, _, _, high, low, fragment @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 || length > MAX_RECORD {
                    return Err("a record has a length that is not allowed");
                }
                let there = &fragment[..length.min(fragment.len())];
                joined.extend_from_slice(there);
                match whole_message(&joined)? {
                    Some(end) => return Ok(Some(joined[4..end].to_vec())),
                    None if there.len() < length => return Ok(None),
                    None => rest = &fragment[length..],
                }
            }
            _ => return Ok(None),
        }
    }
    Err("the ClientHello is spread over too many records")
}

/// Where the first handshake message ends, if it is all there.
fn whole_message(joined: &[u8]) -> Result<Option<usize>, &'static str> {
    match joined {
        [kind, ..] if *kind != CLIENT_HELLO => {
            Err("the handshake does not start with a ClientHello")
        }
        [_, a, b, c, body @ ..] => {
            let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap_or(usize::MAX);
            Ok((body.len() >= length).then(|| 4 + length))
        }
        _ => Ok(None),
    }
}

fn client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut body = Reader(body);
    // Legacy version and random.
    body.take(2 + 32)?;
    let session = body.vector8()?;
    let suites = body.vector16()?;
    let compression = body.vector8()?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compression.is_empty() {
        return None;
    }
    let mut hello = ClientHello {
        server_name: None,
        encrypted: false,
    };
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(body.vector16()?);
    if !body.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        match kind {
            // A second one of a kind is forbidden, and readers differ in which one they take.
            SERVER_NAME if hello.server_name.is_some() => return None,
            SERVER_NAME => hello.server_name = Some(server_name(data)?),
            ENCRYPTED_CLIENT_HELLO => hello.encrypted = true,
            _ => {}
        }
    }
    Some(hello)
}

/// The one host name of the extension.
fn server_name(data: &[u8]) -> Option<String> {
    const HOST_NAME: u8 = 0;
    let mut data = Reader(data);
    let mut list = Reader(data.vector16()?);
    if !data.0.is_empty() || list.u8()? != HOST_NAME {
        return None;
    }
    let name = list.vector16()?;
    if !list.0.is_empty() || name.is_empty() {
        return None;
    }
    std::str::from_utf8(name).ok().map(str::to_owned)
}

/// Takes from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)
            .map(|taken| u16::from_be_bytes([taken[0], taken[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

/// ClientHellos for the crate's tests.
#[cfg(test)]
pub(crate) mod sample {
    fn vector16(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).expect("a short vector");
        [&length.to_be_bytes()[..], bytes].concat()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector16(data)].concat()
    }

    /// The server name extension.
    pub(crate) fn server_name(name: &str) -> Vec<u8> {
        let entry = [&[0][..], &vector16(name.as_bytes())].concat();
        extension(0, &vector16(&entry))
    }

    /// The encrypted ClientHello extension.
    pub(crate) fn encrypted() -> Vec<u8> {
        extension(0xfe0d, &[0; 24])
    }

    /// Padding (RFC 7685).
    pub(crate) fn padding(length: usize) -> Vec<u8> {
        extension(21, &vec![0; length])
    }

    /// A handshake message with these extensions.
    pub(crate) fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[0],
            &vector16(&[0x13, 0x01, 0x13, 0x02]),
            &[1, 0],
            &vector16(&extensions.concat()),
        ]
        .concat();
        let length = u32::try_from(body.len()).expect("a short message");
        [&[1][..], &length.to_be_bytes()[1..], &body].concat()
    }

    /// The message in records of at most `size` bytes.
    pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|fragment| [&[22, 3, 1][..], &vector16(fragment)].concat())
            .collect()
    }

    /// A ClientHello for a name in one record.
    pub(crate) fn hello(name: &str) -> Vec<u8> {
        records(&message(&[server_name(name)]), 16_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{MAX_HEAD, Target, check_hello},
        *,
    };
    use crate::reason::ReasonCode;

    fn target() -> Target {
        Target::Name("api.example".parse().expect("a name"))
    }

    fn refusal(bytes: &[u8]) -> Option<ReasonCode> {
        check_hello(bytes, &target())
            .err()
            .map(|reason| reason.code)
    }

    #[test]
    fn a_hello_for_the_declared_name_passes_in_any_case() {
        for name in ["api.example", "API.Example"] {
            assert_eq!(check_hello(&sample::hello(name), &target()), Ok(true));
        }
    }

    #[test]
    fn a_hello_for_another_name_is_refused() {
        for name in [
            "evil.example",
            "api.example.evil",
            "xapi.example",
            "api_example",
            "10.0.0.1",
        ] {
            let code = refusal(&sample::hello(name));
            assert_eq!(code, Some(ReasonCode::ServerNameMismatch), "{name}");
        }
    }

    #[test]
    fn a_hello_without_a_name_is_refused_and_so_is_one_that_hides_it() {
        let silent = sample::records(&sample::message(&[]), 16_000);
        assert_eq!(refusal(&silent), Some(ReasonCode::ServerNameMissing));
        let hidden = sample::message(&[sample::server_name("api.example"), sample::encrypted()]);
        let hidden = sample::records(&hidden, 16_000);
        assert_eq!(refusal(&hidden), Some(ReasonCode::ServerNameEncrypted));
    }

    #[test]
    fn two_server_names_are_refused() {
        let twice = [
            sample::server_name("api.example"),
            sample::server_name("evil.example"),
        ];
        let twice = sample::records(&sample::message(&twice), 16_000);
        assert_eq!(refusal(&twice), Some(ReasonCode::NotTls));
    }

    #[test]
    fn an_address_is_declared_without_a_server_name() {
        let target = Target::Address("10.0.0.1".parse().expect("an address"));
        let silent = sample::records(&sample::message(&[]), 16_000);
        assert_eq!(check_hello(&silent, &target), Ok(true));
        assert!(check_hello(&sample::hello("api.example"), &target).is_err());
    }

    #[test]
    fn other_protocols_are_refused_at_their_first_byte() {
        for bytes in [
            &b"G"[..],
            b"SSH-2.0",
            &[0x80, 0x2e, 1],
            &[21, 3, 1, 0, 2, 2, 40],
            &[22, 2],
        ] {
            assert_eq!(refusal(bytes), Some(ReasonCode::NotTls), "{bytes:?}");
        }
        let server_hello = sample::records(&[2, 0, 0, 1, 0], 100);
        assert_eq!(refusal(&server_hello), Some(ReasonCode::NotTls));
    }

    #[test]
    fn a_hello_over_several_records_is_joined_and_over_too_many_refused() {
        let message =
            sample::message(&[sample::padding(2_000), sample::server_name("api.example")]);
        assert_eq!(
            check_hello(&sample::records(&message, 100), &target()),
            Ok(true)
        );
        assert_eq!(
            refusal(&sample::records(&message, 1)),
            Some(ReasonCode::NotTls)
        );
    }

    #[test]
    fn a_hello_that_is_too_long_is_refused() {
        let long = [0; 3].map(|_| sample::padding(16_000));
        let long = sample::records(&sample::message(&long), 16_000);
        assert_eq!(refusal(&long[..MAX_HEAD]), Some(ReasonCode::HeadTooLarge));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            let _ = parse(&[&[22, 3, 1][..], &bytes].concat());
            let _ = parse(&sample::records(&[&[1, 0, 1, 0][..], &bytes].concat(), 200));
        }

        #[test]
        fn a_damaged_hello_is_never_taken_for_another_name(at in 0usize..90, to: u8) {
            let mut bytes = sample::hello("api.example");
            let at = at % bytes.len();
            bytes[at] = to;
            let passes = check_hello(&bytes, &target()) == Ok(true);
            // If it still passes, the name is still in it.
            prop_assert!(!passes || bytes.to_ascii_lowercase().windows(11).any(|w| w == b"api.example"));
        }

        #[test]
        fn every_cut_of_a_hello_waits_for_the_rest(size in 40usize..300, cut: prop::sample::Index) {
            let message = sample::message(&[sample::padding(300), sample::server_name("api.example")]);
            let bytes = sample::records(&message, size);
            let cut = cut.index(bytes.len());
            prop_assert_eq!(check_hello(&bytes[..cut], &target()), Ok(false));
            prop_assert_eq!(check_hello(&bytes, &target()), Ok(true));
        }
    }
}
