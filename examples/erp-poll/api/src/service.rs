//! The routes: a token, the schema of an order, and orders page by page.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::json;

use crate::{
    faults::{Fate, Fates, LONGEST_WAIT},
    http::{Answer, Request},
    orders::{self, Orders},
    tokens::{Client, Tokens},
};

/// Orders on a page, if the client asks for no other number, and at most.
const USUAL_LIMIT: u64 = 100;
const MOST_LIMIT: u64 = 500;
/// Before the number of the next order, in a cursor. A client has no business reading it.
const CURSOR: &str = "after-";

/// What answers requests.
pub(crate) struct Service {
    /// The orders.
    pub(crate) orders: Orders,
    /// The version of their schema.
    pub(crate) schema_version: u64,
    /// Seconds to wait, for a client that comes too soon.
    pub(crate) retry_after_s: u64,
    /// Who is let in.
    pub(crate) client: Client,
    /// What they were given.
    pub(crate) tokens: Mutex<Tokens>,
    /// What goes wrong.
    pub(crate) fates: Mutex<Fates>,
}

/// What is done with a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It is answered.
    Whole(Answer),
    /// The first half of this is sent, then the connection is closed.
    Half(Answer),
    /// Nothing is sent until the client gives up.
    Nothing,
}

impl Service {
    /// What is done with a request, and what is logged of it.
    pub(crate) fn reply(&self, request: &Request) -> Reply {
        let answer = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/oauth/token") => self.token(request),
            ("GET", "/v1/orders/schema" | "/v1/orders") if !self.admits(request) => {
                Answer::json(401, &json!({ "error": "invalid_token" }))
                    .with("WWW-Authenticate", "Bearer error=\"invalid_token\"")
            }
            ("GET", "/v1/orders/schema") => self.schema(request),
            ("GET", "/v1/orders") => return self.page(request),
            _ => Answer::json(404, &json!({ "error": "there is nothing here" })),
        };
        Reply::Whole(answer)
    }

    fn admits(&self, request: &Request) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        request
            .header("authorization")
            .is_some_and(|authorization| tokens.admit(authorization))
    }

    fn token(&self, request: &Request) -> Answer {
        let known = request
            .header("authorization")
            .is_some_and(|authorization| self.client.is_named_by(authorization));
        if !known {
            return Answer::json(401, &json!({ "error": "invalid_client" }))
                .with("WWW-Authenticate", "Basic realm=\"erp\"");
        }
        let granted = form_urlencoded::parse(&request.body)
            .any(|(name, value)| name == "grant_type" && value == "client_credentials");
        if !granted {
            return Answer::json(400, &json!({ "error": "unsupported_grant_type" }));
        }
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.give() {
            Ok((token, seconds)) => Answer::json(
                200,
                &json!({ "access_token": token, "token_type": "Bearer", "expires_in": seconds }),
            )
            .with("Cache-Control", "no-store"),
            Err(_) => Answer::json(500, &json!({ "error": "no token could be made" })),
        }
    }

    fn schema(&self, request: &Request) -> Answer {
        let tag = format!("\"orders-{}\"", self.schema_version);
        if request.header("if-none-match") == Some(&tag) {
            return Answer {
                status: 304,
                headers: vec![("ETag", tag)],
                body: String::new(),
            };
        }
        Answer::json(200, &orders::schema(self.schema_version)).with("ETag", tag)
    }

    fn page(&self, request: &Request) -> Reply {
        let from = match request.parameter("after") {
            None => Some(0),
            Some(cursor) => cursor.strip_prefix(CURSOR).and_then(|n| n.parse().ok()),
        };
        let limit = match request.parameter("limit") {
            None => Some(USUAL_LIMIT),
            Some(limit) => limit.parse().ok().filter(|limit| *limit > 0),
        };
        let asked = match request.parameter("year") {
            None => Some(self.orders.all()),
            Some(year) => year.parse().ok().map(|year| self.orders.of_year(year)),
        };
        let (Some(from), Some(limit), Some(asked)) = (from, limit, asked) else {
            let wrong = json!({ "error": "`after`, `limit` or `year` is not one of ours" });
            return Reply::Whole(Answer::json(400, &wrong));
        };
        let limit = limit.min(MOST_LIMIT);
        let from = from.max(asked.start);
        let fate = {
            let mut fates = self.fates.lock().unwrap_or_else(PoisonError::into_inner);
            fates.of(from / limit + 1)
        };
        let next = from.saturating_add(limit).min(asked.end).max(from);
        let page = json!({
            "orders": self.orders.page(from..next),
            "cursor": format!("{CURSOR}{next}"),
            "more": next < asked.end,
        });
        match fate {
            Fate::Answered => Reply::Whole(Answer::json(200, &page)),
            Fate::Dropped => Reply::Half(Answer::json(200, &page)),
            Fate::Held => Reply::Nothing,
            Fate::Failed => Reply::Whole(Answer::json(500, &json!({ "error": "out of order" }))),
            Fate::Limited { as_date } => {
                let wait = Duration::from_secs(self.retry_after_s);
                let told = if as_date {
                    // A date has whole seconds: the next one, lest it be too early.
                    let wait = wait.min(LONGEST_WAIT) + Duration::from_secs(1);
                    let date = SystemTime::now() + wait;
                    httpdate::fmt_http_date(date)
                } else {
                    wait.as_secs().to_string()
                };
                let answer = Answer::json(429, &json!({ "error": "too many requests" }));
                Reply::Whole(answer.with("Retry-After", told))
            }
        }
    }
}
