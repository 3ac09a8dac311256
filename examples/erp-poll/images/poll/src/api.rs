//! The API: tokens, the schema, pages of orders; and patience with it.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use ureq::{Agent, Body, http::Response};

use crate::{
    cache::Cache,
    log,
    patience::{self, Patience},
    schema::Schema,
    settings::{Client, Settings},
    status::{Failure, Status},
    token::{self, Granted, Token},
};

const SCHEMA_FILE: &str = "schema.json";
/// How long the schema is taken for what it was; then the API is asked whether it still holds.
const SCHEMA_HOLDS: Duration = Duration::from_secs(5 * 60);
/// Orders that are asked for at a time.
const PAGE: &str = "100";
/// Orders that are taken from a page, whatever was asked for, and bytes of an answer and a cursor.
const MOST_ORDERS: usize = 500;
const MOST_BYTES: u64 = 2 << 20;
const MOST_CURSOR: usize = 1_000;
/// How long one request may take, from the look-up of the name to the end of the answer.
const LONGEST_REQUEST: Duration = Duration::from_secs(20);

/// Why the API gave no answer to work with. None of these has a token or the secret in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// It could not be had in as many tries as there are.
    #[error("{what} could not be had: {reason}; another attempt goes on from here")]
    Unavailable { what: &'static str, reason: String },
    /// The client's own credentials are refused.
    #[error("the API refuses client `{client}`: {reason}")]
    Client { client: String, reason: String },
    /// A new token is refused as well.
    #[error("the API refuses a token for {what} that it has just given")]
    Token { what: &'static str },
    /// An answer that no try will better.
    #[error("the API answered the request for {what} with status {status}")]
    Answer { what: &'static str, status: u16 },
    /// An answer that is not what it should be.
    #[error("the API's answer to the request for {what} cannot be read")]
    Malformed {
        what: &'static str,
        source: serde_json::Error,
    },
    /// An answer without an end.
    #[error("the API's answer to the request for {what} has more than {MOST_BYTES} bytes")]
    TooLarge { what: &'static str },
    /// A page that leads nowhere.
    #[error("the API has more orders, it says, and gives the same cursor again")]
    Circle,
    /// A page beyond what can be kept of it.
    #[error(
        "a page has more than {MOST_ORDERS} orders, or its cursor more than {MOST_CURSOR} bytes"
    )]
    Page,
    /// Where the API is cannot be read.
    #[error("`ERP_URL` leads nowhere")]
    Url(#[source] ureq::Error),
    /// A token of another kind.
    #[error("the API gives tokens that are no bearer tokens")]
    TokenKind,
}

impl Failure for ApiError {
    fn status(&self) -> Status {
        match self {
            Self::Unavailable { .. } => Status::TempFail,
            Self::Client { .. } | Self::Token { .. } => Status::NoPerm,
            Self::Answer { status: 403, .. } => Status::NoPerm,
            Self::Url(_) => Status::Config,
            Self::Answer { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Circle
            | Self::Page
            | Self::TokenKind => Status::DataErr,
        }
    }
}

/// A page of orders.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    /// The orders, as they came.
    pub(crate) orders: Vec<Value>,
    /// Stands behind the last of them.
    pub(crate) cursor: String,
    /// Whether there are others behind it.
    pub(crate) more: bool,
}

/// The schema as it was, and its entity tag.
#[derive(Serialize, Deserialize)]
struct Tagged {
    tag: String,
    url: String,
    schema: Schema,
}

/// What lasts from one task to the next: the HTTP client, a token, the schema. None of it needs the
/// client's secret, which is each attempt's own.
pub(crate) struct Api {
    agent: Agent,
    url: String,
    client_id: String,
    cache: Cache,
    token: Option<Token>,
    schema: Option<(Schema, Instant)>,
}

/// The API for the time of one attempt.
pub(crate) struct Session<'a> {
    api: &'a mut Api,
    client: Client,
    deadline: SystemTime,
}

/// An answer that says what was asked for, or that it has not changed.
struct Answered {
    status: u16,
    tag: Option<String>,
    body: Vec<u8>,
}

impl Api {
    pub(crate) fn new(settings: Settings) -> Self {
        let Settings {
            url,
            client_id,
            cache,
        } = settings;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirection would lead where nobody declared to go.
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(LONGEST_REQUEST))
            .build();
        let cache = Cache::new(cache);
        Self {
            agent: config.into(),
            token: Token::find(&cache, &client_id, &url, SystemTime::now()),
            url,
            client_id,
            cache,
            schema: None,
        }
    }

    /// The API for an attempt that has this secret and so much time.
    pub(crate) fn session(&mut self, secret: String, deadline: SystemTime) -> Session<'_> {
        let id = self.client_id.clone();
        Session {
            api: self,
            client: Client { id, secret },
            deadline,
        }
    }
}

impl Session<'_> {
    /// The schema of an order; the one in memory for a while, then the one in the cache, if the API
    /// says that it still holds.
    pub(crate) fn schema(&mut self) -> Result<Schema, ApiError> {
        if let Some((schema, since)) = &self.api.schema
            && since.elapsed() < SCHEMA_HOLDS
        {
            log::line(&json!({ "message": "the schema is the one in memory" }));
            return Ok(schema.clone());
        }
        let schema = self.current_schema()?;
        self.api.schema = Some((schema.clone(), Instant::now()));
        Ok(schema)
    }

    fn current_schema(&mut self) -> Result<Schema, ApiError> {
        const WHAT: &str = "the schema";
        let known: Option<Tagged> = self.api.cache.find(SCHEMA_FILE);
        let known = known.filter(|known| known.url == self.api.url);
        let headers = known
            .as_ref()
            .map(|known| ("If-None-Match", known.tag.clone()));
        let answered = self.get(WHAT, "/v1/orders/schema", &[], headers)?;
        if let Some(known) = known.filter(|_| answered.status == 304) {
            log::line(&json!({ "message": "the schema is the one in the cache" }));
            return Ok(known.schema);
        }
        let schema: Schema = parse(WHAT, &answered.body)?;
        if let Some(tag) = answered.tag {
            let url = self.api.url.clone();
            let schema = schema.clone();
            self.api
                .cache
                .keep(SCHEMA_FILE, &Tagged { tag, url, schema });
        }
        Ok(schema)
    }

    /// The orders of a year, or all, behind a cursor; the first ones without it.
    pub(crate) fn orders(
        &mut self,
        year: Option<&str>,
        after: Option<&str>,
    ) -> Result<Page, ApiError> {
        const WHAT: &str = "orders";
        let mut query = vec![("limit", PAGE)];
        query.extend(year.map(|year| ("year", year)));
        query.extend(after.map(|after| ("after", after)));
        let answered = self.get(WHAT, "/v1/orders", &query, None)?;
        let page: Page = parse(WHAT, &answered.body)?;
        if page.more && Some(page.cursor.as_str()) == after {
            return Err(ApiError::Circle);
        }
        if page.orders.len() > MOST_ORDERS || page.cursor.len() > MOST_CURSOR {
            return Err(ApiError::Page);
        }
        Ok(page)
    }

    fn get(
        &mut self,
        what: &'static str,
        path: &str,
        query: &[(&str, &str)],
        header: Option<(&str, String)>,
    ) -> Result<Answered, ApiError> {
        let mut patience = Patience::until(self.deadline);
        let mut renewed = false;
        loop {
            let token = self.token()?;
            let mut request = self
                .api
                .agent
                .get(format!("{}{path}", self.api.url))
                .query_pairs(query.iter().copied())
                .header("Authorization", token.header());
            if let Some((name, value)) = &header {
                request = request.header(*name, value);
            }
            let found = read(request.call());
            if let Ok(Reply { status: 401, .. }) = found {
                // Revoked, or expired by the API's clock.
                if std::mem::replace(&mut renewed, true) {
                    return Err(ApiError::Token { what });
                }
                Token::forget(&self.api.cache);
                self.api.token = None;
                continue;
            }
            if let Some(answered) = settle(what, &mut patience, found)? {
                return Ok(answered);
            }
        }
    }

    /// The token at hand, or a new one.
    fn token(&mut self) -> Result<Token, ApiError> {
        let good = self
            .api
            .token
            .take()
            .filter(|token| token.is_good(SystemTime::now()));
        let token = match good {
            Some(token) => token,
            None => self.new_token()?,
        };
        Ok(self.api.token.insert(token).clone())
    }

    fn new_token(&self) -> Result<Token, ApiError> {
        const WHAT: &str = "a token";
        let mut patience = Patience::until(self.deadline);
        loop {
            let sent = self
                .api
                .agent
                .post(format!("{}/oauth/token", self.api.url))
                .header("Authorization", token::credentials(&self.client))
                .send_form([("grant_type", "client_credentials")]);
            let found = read(sent);
            if let Ok(Reply {
                status: 400 | 401,
                body,
                ..
            }) = &found
            {
                return Err(ApiError::Client {
                    client: self.client.id.clone(),
                    reason: refusal(body),
                });
            }
            let Some(answered) = settle(WHAT, &mut patience, found)? else {
                continue;
            };
            let granted: Granted = parse(WHAT, &answered.body)?;
            let token = granted
                .into_token(&self.client.id, &self.api.url, SystemTime::now())
                .ok_or(ApiError::TokenKind)?;
            log::line(&json!({ "message": "the API gave a new token" }));
            token.keep(&self.api.cache);
            return Ok(token);
        }
    }
}

/// What came back.
struct Reply {
    status: u16,
    tag: Option<String>,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// Reads an answer to its end, within bounds.
fn read(called: Result<Response<Body>, ureq::Error>) -> Result<Reply, ureq::Error> {
    let response = called?;
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let (tag, asked) = (header("etag"), header("retry-after"));
    Ok(Reply {
        status: response.status().as_u16(),
        tag,
        retry_after: asked.and_then(|asked| patience::asked(&asked, SystemTime::now())),
        body: response
            .into_body()
            .into_with_config()
            .limit(MOST_BYTES)
            .read_to_vec()?,
    })
}

/// The answer, if it is one; after a pause `None` if another try may bring it.
#[expect(
    clippy::disallowed_methods,
    reason = "an API that wants to be left alone cannot be waited for otherwise"
)]
fn settle(
    what: &'static str,
    patience: &mut Patience,
    found: Result<Reply, ureq::Error>,
) -> Result<Option<Answered>, ApiError> {
    let (reason, asked) = match found {
        Ok(Reply {
            status: status @ (200 | 304),
            tag,
            body,
            ..
        }) => return Ok(Some(Answered { status, tag, body })),
        Ok(Reply {
            status: status @ (429 | 500..),
            retry_after,
            ..
        }) => (format!("status {status}"), retry_after),
        Ok(Reply { status, .. }) => return Err(ApiError::Answer { what, status }),
        Err(ureq::Error::BodyExceedsLimit(_)) => return Err(ApiError::TooLarge { what }),
        Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
            return Err(ApiError::Url(error));
        }
        // Names, connections and answers that break off.
        Err(error) => (error.to_string(), None),
    };
    let Some(pause) = patience.pause(asked, SystemTime::now()) else {
        return Err(ApiError::Unavailable { what, reason });
    };
    log::line(&json!({
        "message": format!("{what} could not be had, and is tried again"),
        "reason": reason,
        "pause_ms": pause.as_millis() as u64,
    }));
    thread::sleep(pause);
    Ok(None)
}

fn parse<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|source| ApiError::Malformed { what, source })
}

/// The code by which a token was refused (RFC 6749 section 5.2); nothing else of the answer, which
/// may repeat what it was asked.
fn refusal(body: &[u8]) -> String {
    const CODES: [&str; 6] = [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ];
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = CODES.into_iter().find(|code| answer["error"] == *code);
    code.unwrap_or("it does not say why").to_owned()
}
