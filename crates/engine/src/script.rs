//! Job scripts: which statements there are, and where they begin.

use datafusion::sql::sqlparser::ast::{Insert, ObjectName, Statement, TableObject};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::EngineError;

/// The longest script, in bytes.
const MAX_SCRIPT_BYTES: usize = 1 << 20;
/// The deepest nesting of expressions.
const MAX_DEPTH: usize = 64;

/// What a statement does.
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
pub(crate) struct JobStatement {
    pub(crate) number: usize,
    pub(crate) line: u64,
    pub(crate) action: Action,
    /// The view's statement, or the query of an insert.
    pub(crate) statement: Statement,
}

/// Reads a script; whatever a job may not do is refused here, before anything runs.
pub(crate) fn parse(sql: &str) -> Result<Vec<JobStatement>, EngineError> {
    let mut statements = Vec::new();
    for (number, tokens) in split(sql)?.into_iter().enumerate() {
        let line = tokens.first().map_or(0, |token| token.span.start.line);
        let parsed = parse_one(tokens)?;
        let (action, statement) = classify(parsed).map_err(|reason| EngineError::Forbidden {
            number: number + 1,
            line,
            reason,
        })?;
        statements.push(JobStatement {
            number: number + 1,
            line,
            action,
            statement,
        });
    }
    if statements.is_empty() {
        return Err(EngineError::Syntax {
            reason: "there are no statements".to_owned(),
        });
    }
    Ok(statements)
}

/// Reads a single query.
pub(crate) fn parse_query(sql: &str) -> Result<Statement, EngineError> {
    let mut statements = split(sql)?;
    match (statements.pop(), statements.pop()) {
        (Some(tokens), None) => match parse_one(tokens)? {
            query @ Statement::Query(_) => Ok(query),
            other => Err(EngineError::Syntax {
                reason: format!("a query is expected, not {}", kind(&other)),
            }),
        },
        _ => Err(EngineError::Syntax {
            reason: "exactly one query is expected".to_owned(),
        }),
    }
}

/// The tokens of each statement, without those between statements.
fn split(sql: &str) -> Result<Vec<Vec<TokenWithSpan>>, EngineError> {
    if sql.len() > MAX_SCRIPT_BYTES {
        let reason = format!("it has more than {MAX_SCRIPT_BYTES} bytes");
        return Err(EngineError::Syntax { reason });
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| EngineError::Syntax {
            reason: error.to_string(),
        })?;
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
    let syntax = |error: datafusion::sql::sqlparser::parser::ParserError| EngineError::Syntax {
        reason: error
            .to_string()
            .trim_start_matches("sql parser error: ")
            .to_owned(),
    };
    let mut parser = Parser::new(&GenericDialect {})
        .with_recursion_limit(MAX_DEPTH)
        .with_tokens_with_locations(tokens);
    let statement = parser.parse_statement().map_err(syntax)?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let (line, column) = (rest.span.start.line, rest.span.start.column);
        let reason = format!(
            "`{}` is unexpected at line {line}, column {column}",
            rest.token
        );
        return Err(EngineError::Syntax { reason });
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
            "only INSERT INTO layer.name [(columns)] followed by a query is supported; \
                    what happens to present rows is declared in the manifest"
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
    text.split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}
