//! Bearer tokens: asked for with the client's own credentials (RFC 6749 section 4.4), kept until
//! they expire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{cache::Cache, settings::Client};

const FILE: &str = "token.json";
/// Where the answer does not say how long a token is good.
const USUAL_LIFETIME: Duration = Duration::from_secs(60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// A token is not used any more when it has no longer than this: it would expire on its way.
const MARGIN: Duration = Duration::from_secs(5);

/// A token that is good for a while. Never shown: no `Debug`, no `Display`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    value: String,
    expires_s: u64,
    /// Whose it is and where, so that a change of either asks for a new one.
    client_id: String,
    url: String,
}

/// The answer to a request for a token (RFC 6749 section 5.1).
#[derive(Deserialize)]
pub(crate) struct Granted {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}

impl Granted {
    /// The token that was granted; none if it is of a kind that is not used as ours are.
    pub(crate) fn into_token(self, client_id: &str, url: &str, now: SystemTime) -> Option<Token> {
        let plain = self
            .access_token
            .bytes()
            .all(|byte| byte.is_ascii_graphic());
        if !self.token_type.eq_ignore_ascii_case("bearer") || !plain {
            return None;
        }
        let lifetime = self.expires_in.map_or(USUAL_LIFETIME, Duration::from_secs);
        Some(Token {
            value: self.access_token,
            expires_s: seconds(now + lifetime.min(LONGEST_LIFETIME)),
            client_id: client_id.to_owned(),
            url: url.to_owned(),
        })
    }
}

impl Token {
    /// The one that an earlier process left, if it is still good.
    pub(crate) fn find(cache: &Cache, client_id: &str, url: &str, now: SystemTime) -> Option<Self> {
        let token: Self = cache.find(FILE)?;
        let ours = token.client_id == client_id && token.url == url;
        (ours && token.is_good(now)).then_some(token)
    }

    /// Leaves it to later processes, readable for nobody else.
    pub(crate) fn keep(&self, cache: &Cache) {
        cache.keep(FILE, self);
    }

    /// Leaves none.
    pub(crate) fn forget(cache: &Cache) {
        cache.forget(FILE);
    }

    pub(crate) fn is_good(&self, now: SystemTime) -> bool {
        seconds(now + MARGIN) < self.expires_s
    }

    /// The value of an `Authorization` header (RFC 6750 section 2.1).
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.value)
    }
}

/// The value of the `Authorization` header by which a client proves itself: HTTP Basic with both
/// parts encoded as in a form (RFC 6749 section 2.3.1).
pub(crate) fn credentials(client: &Client) -> String {
    let encoded =
        |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let both = format!("{}:{}", encoded(&client.id), encoded(&client.secret));
    format!("Basic {}", STANDARD.encode(both))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://erp.example";

    fn client(id: &str) -> Client {
        Client {
            id: id.to_owned(),
            secret: "p@ss word".to_owned(),
        }
    }

    fn granted(kind: &str, expires_in: Option<u64>) -> Granted {
        Granted {
            access_token: "opaque".to_owned(),
            token_type: kind.to_owned(),
            expires_in,
        }
    }

    #[test]
    fn credentials_are_encoded_as_in_a_form_first() {
        let decoded = STANDARD.decode(credentials(&client("a:b")).trim_start_matches("Basic "));
        assert_eq!(decoded, Ok(b"a%3Ab:p%40ss+word".to_vec()));
    }

    #[test]
    fn a_kept_token_is_used_until_shortly_before_it_expires_by_whom_it_was_given_to()
    -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let cache = Cache::new(Some(folder.path().to_owned()));
        let start = UNIX_EPOCH + Duration::from_secs(1_000);
        let token = granted("bearer", Some(300)).into_token("me", URL, start);
        token.expect("it is a bearer token").keep(&cache);
        let found = |id: &str, url: &str, after_s| {
            let now = start + Duration::from_secs(after_s);
            Token::find(&cache, id, url, now).is_some()
        };
        assert!(found("me", URL, 294));
        assert!(!found("me", URL, 295));
        assert!(!found("you", URL, 0));
        assert!(!found("me", "http://other.example", 0));
        Token::forget(&cache);
        assert!(!found("me", URL, 0));
        Ok(())
    }

    #[test]
    fn a_token_of_another_kind_or_with_a_line_feed_is_not_used() {
        let token = |granted: Granted| granted.into_token("me", URL, UNIX_EPOCH);
        assert!(token(granted("mac", None)).is_none());
        let broken = Granted {
            access_token: "a\r\nX: y".to_owned(),
            ..granted("Bearer", None)
        };
        assert!(token(broken).is_none());
    }
}
