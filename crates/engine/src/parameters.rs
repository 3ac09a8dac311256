//! What a job's SQL may name with a `$`: the window and the partition that it is run for.
//!
//! A name is replaced by its value before anything is parsed, so that whatever the dialect does with
//! a literal it does with a parameter, and the optimiser sees no difference.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use serde::{Deserialize, Serialize};

/// Values by name, without the `$`.
pub type Parameters = BTreeMap<String, Parameter>;

/// A value that a job's SQL may name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameter {
    /// A moment (RFC 3339): of the type `timestamp`.
    Timestamp(String),
    /// Text.
    Text(String),
}

/// How the type `timestamp` is called where a type is named by text.
const TIMESTAMP: &str = "Timestamp(Microsecond, Some(\"UTC\"))";

impl Parameter {
    fn tokens(&self) -> Vec<Token> {
        let text = |text: &str| Token::SingleQuotedString(text.to_owned());
        match self {
            Self::Text(value) => vec![text(value)],
            Self::Timestamp(moment) => vec![
                Token::make_word("arrow_cast", None),
                Token::LParen,
                text(moment),
                Token::Comma,
                text(TIMESTAMP),
                Token::RParen,
            ],
        }
    }
}

/// Whether a job's SQL names the window of a run. What cannot be told apart into words is refused
/// before it runs, and may name anything.
pub fn names_window(sql: &str) -> bool {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    tokens.map_or(true, |tokens| {
        tokens.iter().any(|token| match token {
            Token::Placeholder(name) => name.starts_with("$window_"),
            _ => false,
        })
    })
}

/// Puts values in the place of names.
///
/// # Errors
/// The first name that has no value, in words, with where it is.
pub(crate) fn fill(
    tokens: Vec<TokenWithSpan>,
    parameters: &Parameters,
) -> Result<Vec<TokenWithSpan>, String> {
    let mut filled = Vec::with_capacity(tokens.len());
    for token in tokens {
        let Token::Placeholder(name) = &token.token else {
            filled.push(token);
            continue;
        };
        let parameter = name.strip_prefix('$').and_then(|name| parameters.get(name));
        let parameter = parameter.ok_or_else(|| {
            let (line, column) = (token.span.start.line, token.span.start.column);
            format!(
                "`{name}` at line {line}, column {column} has no value: a job may name \
                 `$window_start` and `$window_end` where the run has a window (`--window`), and \
                 `$partition` where the task has one"
            )
        })?;
        let at = token.span;
        let tokens = parameter.tokens().into_iter();
        filled.extend(tokens.map(|token| TokenWithSpan::new(token, at)));
    }
    Ok(filled)
}
