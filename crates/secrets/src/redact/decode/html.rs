//! Character references of HTML and XML.

use std::sync::LazyLock;

use super::escape::{Escape, number};

/// The names of the characters of ASCII that have one (HTML Living Standard, section 13.5), and of
/// the apostrophe and the quote as XML and old browsers spell them.
const ASCII: [(&[u8], u8); 43] = [
    (b"quot", b'"'),
    (b"amp", b'&'),
    (b"lt", b'<'),
    (b"gt", b'>'),
    (b"apos", b'\''),
    (b"QUOT", b'"'),
    (b"AMP", b'&'),
    (b"LT", b'<'),
    (b"GT", b'>'),
    (b"Tab", b'\t'),
    (b"NewLine", b'\n'),
    (b"excl", b'!'),
    (b"num", b'#'),
    (b"dollar", b'$'),
    (b"percnt", b'%'),
    (b"lpar", b'('),
    (b"rpar", b')'),
    (b"ast", b'*'),
    (b"midast", b'*'),
    (b"plus", b'+'),
    (b"comma", b','),
    (b"period", b'.'),
    (b"sol", b'/'),
    (b"colon", b':'),
    (b"semi", b';'),
    (b"equals", b'='),
    (b"quest", b'?'),
    (b"commat", b'@'),
    (b"lsqb", b'['),
    (b"lbrack", b'['),
    (b"bsol", b'\\'),
    (b"rsqb", b']'),
    (b"rbrack", b']'),
    (b"Hat", b'^'),
    (b"lowbar", b'_'),
    (b"UnderBar", b'_'),
    (b"grave", b'`'),
    (b"lcub", b'{'),
    (b"lbrace", b'{'),
    (b"verbar", b'|'),
    (b"vert", b'|'),
    (b"rcub", b'}'),
    (b"rbrace", b'}'),
];

/// The names of the upper half of Latin-1, from the no-break space on.
const LATIN1: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg \
    macr deg plusmn sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 \
    iquest Agrave Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave \
    Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc \
    Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc \
    euml igrave iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave \
    uacute ucirc uuml yacute thorn yuml";

/// All of them by name. With its `&` and `;` each fits into what a decoder holds.
static NAMES: LazyLock<Vec<(&[u8], u32)>> = LazyLock::new(|| {
    let ascii = ASCII.iter().map(|(name, byte)| (*name, u32::from(*byte)));
    let latin1 = LATIN1.split(' ').map(str::as_bytes).zip(160_u32..);
    let mut names: Vec<_> = ascii.chain(latin1).collect();
    names.sort_unstable();
    names
});

/// `&quot;`, `&#65;` or `&#x41;`, from its `&` on.
pub(super) fn reference(bytes: &[u8]) -> Escape {
    let (text, closed) = match &bytes[1..] {
        [text @ .., b';'] => (text, true),
        text => (text, false),
    };
    match text {
        [] if closed => Escape::Not,
        [] | [b'#'] | [b'#', b'x' | b'X'] if !closed => Escape::Open,
        [b'#', b'x' | b'X', digits @ ..] => numeric(digits, 16, closed),
        [b'#', digits @ ..] => numeric(digits, 10, closed),
        name => named(name, closed),
    }
}

/// Bounded by the length of what a decoder holds: `&#0000065;`.
fn numeric(digits: &[u8], base: u32, closed: bool) -> Escape {
    match number(digits, base) {
        Some(code) if closed && !digits.is_empty() => Escape::character(code),
        Some(_) if !closed && digits.len() <= 8 => Escape::Open,
        _ => Escape::Not,
    }
}

fn named(name: &[u8], closed: bool) -> Escape {
    let first = NAMES.partition_point(|(other, _)| *other < name);
    match NAMES.get(first) {
        Some((other, code)) if closed && *other == name => Escape::character(*code),
        Some((other, _)) if !closed && other.starts_with(name) => Escape::Open,
        _ => Escape::Not,
    }
}
