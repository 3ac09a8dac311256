//! Tokens for clients who know their secret: RFC 6749 section 4.4, used as RFC 6750 says.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose};

/// Tokens that are kept at a time; the server forgets all of them when there are more.
const MOST_TOKENS: usize = 10_000;

/// The client that is let in.
#[derive(Clone)]
pub(crate) struct Client {
    /// Its name.
    pub(crate) id: String,
    /// What it proves itself by.
    pub(crate) secret: String,
}

impl Client {
    /// Whether an `Authorization` header is this client's, by HTTP Basic with both parts encoded as
    /// in a form (RFC 6749 section 2.3.1).
    pub(crate) fn is_named_by(&self, authorization: &str) -> bool {
        let Some((scheme, encoded)) = authorization.split_once(' ') else {
            return false;
        };
        let decoded = general_purpose::STANDARD.decode(encoded.trim());
        let Some(text) = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return false;
        };
        let Some((id, secret)) = text.split_once(':') else {
            return false;
        };
        let decoded = |text: &str| {
            form_urlencoded::parse(text.as_bytes())
                .next()
                .map(|(text, _)| text.into_owned())
        };
        scheme.eq_ignore_ascii_case("Basic")
            && decoded(id).as_deref() == Some(&self.id)
            && decoded(secret).as_deref() == Some(&self.secret)
    }
}

/// Tokens that were given.
pub(crate) struct Tokens {
    lifetime: Duration,
    most_uses: Option<u64>,
    given: HashMap<String, Given>,
}

struct Given {
    until: Instant,
    uses: u64,
}

impl Tokens {
    pub(crate) fn new(lifetime: Duration, most_uses: Option<u64>) -> Self {
        Self {
            lifetime,
            most_uses,
            given: HashMap::new(),
        }
    }

    /// A new token, and the seconds that it is said to be good for.
    pub(crate) fn give(&mut self) -> io::Result<(String, u64)> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let token = general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        if self.given.len() >= MOST_TOKENS {
            self.given.clear();
        }
        let given = Given {
            until: Instant::now() + self.lifetime,
            uses: 0,
        };
        self.given.insert(token.clone(), given);
        Ok((token, self.lifetime.as_secs()))
    }

    /// Whether an `Authorization` header bears a token that is still good.
    pub(crate) fn admit(&mut self, authorization: &str) -> bool {
        let Some(("Bearer", token)) = authorization.split_once(' ') else {
            return false;
        };
        let Some(given) = self.given.get_mut(token) else {
            return false;
        };
        given.uses += 1;
        let used_up = self.most_uses.is_some_and(|most| given.uses > most);
        !used_up && Instant::now() < given.until
    }
}
