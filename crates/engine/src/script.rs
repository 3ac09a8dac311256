//! Job scripts: which statements there are, where they begin, and that they stay within bounds.

mod bounds;

use datafusion::sql::sqlparser::ast::{Insert, ObjectName, Statement, TableObject};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::EngineError;
use crate::parameters::{Parameters, fill};

/// The longest script, in bytes.
const MAX_SCRIPT_BYTES: usize = 1 << 20;
/// The most statements.
const MAX_STATEMENTS: usize = 500;
/// The deepest nesting of brackets, which the parser follows by calling itself.
const MAX_NESTING: usize = 64;
/// The stack of the thread that parses, and what each byte of the script adds to it. The parser
/// builds chains of operators, such as sums, as trees as deep as they are long, before anything can
/// look how deep they are.
const LEAST_STACK_BYTES: usize = 64 << 20;
const MOST_STACK_BYTES: usize = 512 << 20;
const STACK_BYTES_PER_BYTE: usize = 4096;

/// What a statement does.
#[derive(Debug)]
pub(crate) enum Action {
    /// `CREATE VIEW name AS query`.
    View,
    /// `INSERT INTO layer.name [(columns)] query`.
    Insert {
        dataset: String,
        columns: Vec<String>,
    },
}

/// One statement of a job.
#[derive(Debug)]
pub(crate) struct JobStatement {
    pub(crate) place: Place,
    pub(crate) action: Action,
    /// The view's statement, or the query of an insert.
    pub(crate) statement: Statement,
}

/// Where a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// The line it begins on.
    pub(crate) line: u64,
}

/// Reads a script; whatever a job may not do is refused here, before anything runs.
pub(crate) fn parse(sql: &str, parameters: &Parameters) -> Result<Vec<JobStatement>, EngineError> {
    on_deep_stack(sql, || {
        let scripts = split(sql)?;
        if scripts.is_empty() {
            return Err(syntax("there are no statements"));
        }
        if scripts.len() > MAX_STATEMENTS {
            return Err(syntax(format!(
                "it has {} statements, {MAX_STATEMENTS} are allowed",
                scripts.len()
            )));
        }
        let statement = |(index, tokens): (usize, Vec<TokenWithSpan>)| {
            let place = Place {
                number: index + 1,
                line: tokens.first().map_or(0, |token| token.span.start.line),
            };
            let forbidden = |reason| EngineError::Forbidden {
                number: place.number,
                line: place.line,
                reason,
            };
            let tokens = fill(tokens, parameters).map_err(forbidden)?;
            let parsed = parse_one(tokens)?;
            bounds::check(&parsed).map_err(forbidden)?;
            let (action, statement) = classify(parsed).map_err(forbidden)?;
            Ok(JobStatement {
                place,
                action,
                statement,
            })
        };
        scripts.into_iter().enumerate().map(statement).collect()
    })
}

/// Reads a single query.
pub(crate) fn parse_query(sql: &str) -> Result<Statement, EngineError> {
    on_deep_stack(sql, || {
        let mut statements = split(sql)?;
        let (Some(tokens), None) = (statements.pop(), statements.pop()) else {
            return Err(syntax("exactly one query is expected"));
        };
        let parsed = parse_one(tokens)?;
        bounds::check(&parsed).map_err(syntax)?;
        match parsed {
            query @ Statement::Query(_) => Ok(query),
            other => Err(syntax(format!("a query is expected, not {}", kind(&other)))),
        }
    })
}

/// Parses where neither a deep tree nor its end overflows the stack; what comes back is bounded.
fn on_deep_stack<T: Send>(
    sql: &str,
    parse: impl FnOnce() -> Result<T, EngineError> + Send,
) -> Result<T, EngineError> {
    let stack_bytes =
        LEAST_STACK_BYTES.saturating_add(sql.len().saturating_mul(STACK_BYTES_PER_BYTE));
    let stack_bytes = stack_bytes.min(MOST_STACK_BYTES);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("parse".to_owned())
            .stack_size(stack_bytes)
            .spawn_scoped(scope, parse);
        let thread = thread.map_err(|error| EngineError::Setup {
            reason: format!("no thread to parse on: {error}"),
        })?;
        thread
            .join()
            .unwrap_or_else(|_| Err(syntax("the parser gave up on it")))
    })
}

fn syntax(reason: impl Into<String>) -> EngineError {
    EngineError::Syntax {
        reason: crate::error::shortened(&reason.into()),
    }
}

/// The tokens of each statement, without those between statements.
fn split(sql: &str) -> Result<Vec<Vec<TokenWithSpan>>, EngineError> {
    if sql.len() > MAX_SCRIPT_BYTES {
        return Err(syntax(format!("it has more than {MAX_SCRIPT_BYTES} bytes")));
    }
    if sql.contains('\0') {
        return Err(syntax("it contains a NUL byte"));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| syntax(error.to_string()))?;
    let mut statements = vec![Vec::new()];
    for token in tokens {
        match &token.token {
            Token::SemiColon => statements.push(Vec::new()),
            Token::Whitespace(_) | Token::EOF => {}
            _ => statements
                .last_mut()
                .into_iter()
                .for_each(|s| s.push(token.clone())),
        }
    }
    statements.retain(|tokens| !tokens.is_empty());
    Ok(statements)
}

fn parse_one(tokens: Vec<TokenWithSpan>) -> Result<Statement, EngineError> {
    let line = tokens.first().map_or(0, |token| token.span.start.line);
    bounds::check_tokens(&tokens).map_err(|reason| syntax(format!("line {line}: {reason}")))?;
    let failed = |error: ParserError| match error {
        ParserError::RecursionLimitExceeded => {
            syntax(format!("the statement at line {line} is nested too deeply"))
        }
        ParserError::ParserError(reason) | ParserError::TokenizerError(reason) => syntax(reason),
    };
    let mut parser = Parser::new(&GenericDialect {})
        .with_recursion_limit(MAX_NESTING)
        .with_tokens_with_locations(tokens);
    let statement = parser.parse_statement().map_err(failed)?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let (line, column) = (rest.span.start.line, rest.span.start.column);
        return Err(syntax(format!(
            "`{}` is unexpected at line {line}, column {column}",
            rest.token
        )));
    }
    Ok(statement)
}

fn classify(statement: Statement) -> Result<(Action, Statement), String> {
    match statement {
        Statement::CreateView(view) => {
            if view.materialized || view.temporary || view.to.is_some() {
                return Err("only plain views can be created".to_owned());
            }
            if view.name.0.len() != 1 {
                return Err(format!(
                    "view `{}` must have a name without a dot",
                    view.name
                ));
            }
            Ok((Action::View, Statement::CreateView(view)))
        }
        Statement::Insert(insert) => insertion(insert),
        other => Err(format!(
            "a job consists of CREATE VIEW and INSERT INTO statements, not of {}",
            kind(&other)
        )),
    }
}

fn insertion(insert: Insert) -> Result<(Action, Statement), String> {
    let is_plain = insert.into
        && !insert.overwrite
        && !insert.replace_into
        && !insert.ignore
        && insert.or.is_none()
        && insert.on.is_none()
        && insert.partitioned.is_none()
        && insert.returning.is_none()
        && insert.table_alias.is_none()
        && insert.assignments.is_empty();
    if !is_plain {
        return Err(
            "only INSERT INTO layer.name [(columns)] followed by a query is supported; what \
             happens to present rows is declared in the manifest"
                .to_owned(),
        );
    }
    let TableObject::TableName(name) = insert.table else {
        return Err("INSERT INTO needs the name of a declared output".to_owned());
    };
    let Some(query) = insert.source else {
        return Err("INSERT INTO needs a query".to_owned());
    };
    let columns = insert.columns.iter().map(plain_name).collect();
    Ok((
        Action::Insert {
            dataset: plain_name(&name),
            columns,
        },
        Statement::Query(query),
    ))
}

/// A name as it is compared: parts that are not quoted in lower case, joined by dots.
fn plain_name(name: &ObjectName) -> String {
    let part = |part: &datafusion::sql::sqlparser::ast::ObjectNamePart| match part.as_ident() {
        Some(ident) if ident.quote_style.is_none() => ident.value.to_lowercase(),
        Some(ident) => ident.value.clone(),
        None => part.to_string(),
    };
    name.0.iter().map(part).collect::<Vec<_>>().join(".")
}

/// The statement's first two words.
fn kind(statement: &Statement) -> String {
    let text = statement.to_string();
    let words = text.split_whitespace().take(2).collect::<Vec<_>>();
    words.join(" ").chars().take(60).collect()
}

#[cfg(test)]
mod tests;
