//! Requests made up from a seed: each part as it should be, or as it should not.
//!
//! Text stands for bytes, a character for each. `{A}` is the host that is declared and `{P}` its
//! port, `{E}` is another, `{N}` the number of the case; `{B}` is a body, `{L}` its length and `{X}`
//! the same in hexadecimal digits.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::words::{
    CHUNKS, CODING_NAMES, CODINGS, CONNECTIONS, ENDS, HOSTS, LENGTHS, METHODS, OTHERS, TARGETS,
    VERSIONS,
};

/// How often a part is as it should be, of a case that is not all as it should be.
const SOUND: f64 = 0.7;
/// How often bytes are changed at the end.
const CHANGED: f64 = 0.2;
/// One case of so many is sound in every part.
const ALL_SOUND: usize = 8;
/// What is put in or in place of a byte.
const BYTES: &[u8] = b"\0\t\n\r\x0b\x0c\x1c \"#%,-/0:;@\\_\x7f\x80\x85\xa0\xad\xff";

/// What is sent over one connection.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) number: usize,
    pub(super) bytes: Vec<u8>,
    /// Where it is cut into pieces.
    pub(super) cuts: Vec<usize>,
    /// Whether it must arrive.
    pub(super) is_sound: bool,
}

/// So many cases, the same for the same seed.
pub(super) fn cases(seed: u64, count: usize, port: u16) -> Vec<Case> {
    let mut random = StdRng::seed_from_u64(seed);
    let case = |number| {
        let is_sound = number % ALL_SOUND == 0;
        let mut maker = Maker {
            random: &mut random,
            sound: if is_sound { 1.0 } else { SOUND },
            number,
            port,
        };
        maker.case(is_sound)
    };
    (0..count).map(case).collect()
}

struct Maker<'r> {
    random: &'r mut StdRng,
    sound: f64,
    number: usize,
    port: u16,
}

impl Maker<'_> {
    fn case(&mut self, is_sound: bool) -> Case {
        let (mut text, framed) = self.request();
        let follows = if is_sound {
            !framed && self.random.random_bool(0.3)
        } else {
            self.random.random_bool(0.5)
        };
        if follows {
            text.push_str(&if is_sound || self.random.random_bool(0.3) {
                self.filled("GET /{N}/next HTTP/1.1\r\nHost: {A}\r\n\r\n", "")
            } else if self.random.random_bool(0.5) {
                self.evil()
            } else {
                self.request().0
            });
        }
        let mut bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
        if !is_sound && self.random.random_bool(CHANGED) {
            self.change(&mut bytes);
        }
        let cuts = self.random.random_range(0..3);
        let mut cuts: Vec<_> = (0..cuts)
            .map(|_| self.random.random_range(0..=bytes.len()))
            .collect();
        cuts.sort_unstable();
        Case {
            number: self.number,
            bytes,
            cuts,
            is_sound,
        }
    }

    fn is_sound(&mut self) -> bool {
        self.random.random_bool(self.sound)
    }

    /// The first, or any.
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        if self.is_sound() {
            of[0]
        } else {
            *of.choose(self.random).expect("there are some")
        }
    }

    /// A request to the other host.
    fn evil(&self) -> String {
        self.filled("GET /{N}/evil HTTP/1.1\r\nHost: {E}\r\n\r\n", "")
    }

    fn filled(&self, text: &str, body: &str) -> String {
        text.replace("{A}", "api.example")
            .replace("{E}", "evil.example")
            .replace("{P}", &self.port.to_string())
            .replace("{N}", &self.number.to_string())
            .replace("{L}", &body.len().to_string())
            .replace("{X}", &format!("{:x}", body.len()))
            .replace("{B}", body)
    }

    /// A request, and whether it has a body.
    fn request(&mut self) -> (String, bool) {
        let is_framed = self.random.random_bool(0.55);
        let method = if self.is_sound() {
            if is_framed { "POST" } else { "GET" }
        } else {
            METHODS.choose(self.random).expect("there are some")
        };
        let target = self.one(TARGETS);
        let version = self.one(VERSIONS);
        let host = self.one(HOSTS);
        let other = self.one(OTHERS);
        let connection = self.one(CONNECTIONS);
        let end = self.one(ENDS);
        let (framing, content) = match is_framed {
            true => self.framed(),
            false => (String::new(), String::new()),
        };
        let mut fields = [host, other, connection, framing.as_str()];
        if self.random.random_bool(0.3) {
            fields.swap(0, 3);
        }
        let head = format!("{method}{target}{version}{}{end}", fields.concat());
        (self.filled(&head, "") + &content, is_framed)
    }

    /// The fields that say how long a body is, and the body.
    fn framed(&mut self) -> (String, String) {
        let body = match self.random.random_bool(0.2) {
            true => "hello".to_owned(),
            false => self.evil(),
        };
        let (fields, content) = if self.random.random_bool(0.5) {
            let (fields, content) = self.one(LENGTHS);
            (fields.to_owned(), content)
        } else {
            let (name, coding) = (self.one(CODING_NAMES), self.one(CODINGS));
            let length = self.one(&["", "", "Content-Length: {L}\r\n", "Content-Length: 4\r\n"]);
            let coding = format!("{name}:{coding}\r\n");
            let fields = match self.random.random_bool(0.5) {
                true => format!("{coding}{length}"),
                false => format!("{length}{coding}"),
            };
            (fields, self.one(CHUNKS))
        };
        (self.filled(&fields, &body), self.filled(content, &body))
    }

    /// Puts in, takes out and exchanges some bytes.
    fn change(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.random.random_range(1..4) {
            let at = self.random.random_range(0..bytes.len());
            let byte = *BYTES.choose(self.random).expect("there are some");
            match self.random.random_range(0..3) {
                0 => bytes.insert(at, byte),
                1 => bytes[at] = byte,
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
    }
}
