//! Bounds on a statement, so that no later step can run out of stack over it.
//!
//! Planning, optimising and evaluating follow a tree by calling themselves, so its depth is what
//! they need of the stack. The parser bounds brackets; chains of operators, sets and joins are
//! bounded here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, SetExpr, Statement, TableFactor, Visit as _, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// The most tokens in a statement.
const MAX_TOKENS: usize = 200_000;
/// The deepest expression.
const MAX_DEPTH: usize = 200;
/// Types that hold other types.
const NESTED_TYPES: [&str; 9] = [
    "array",
    "lowcardinality",
    "map",
    "nested",
    "nullable",
    "setof",
    "struct",
    "tuple",
    "union",
];
/// The most queries that one UNION, INTERSECT or EXCEPT combines.
const MAX_SETS: usize = 100;
/// The most tables and subqueries in FROM clauses of a statement.
const MAX_TABLES: usize = 100;

/// Refuses a statement that would take the parser itself too long, or too deep.
pub(super) fn check_tokens(tokens: &[TokenWithSpan]) -> Result<(), String> {
    if tokens.len() > MAX_TOKENS {
        return Err(format!(
            "the statement has {} words and signs, {MAX_TOKENS} are allowed",
            tokens.len()
        ));
    }
    // Types are nested without end too, which the walk below does not see: `INT[][3]`, and types
    // that take others in brackets.
    let is_nesting = |pair: &&[TokenWithSpan]| match (&pair[0].token, &pair[1].token) {
        (Token::LBracket, Token::RBracket | Token::Number(..)) => true,
        (Token::Word(word), Token::Lt | Token::LParen) => {
            let word = word.value.to_lowercase();
            NESTED_TYPES.contains(&word.as_str())
        }
        _ => false,
    };
    if tokens.windows(2).filter(is_nesting).count() > MAX_DEPTH {
        return Err(format!("there are more than {MAX_DEPTH} types of types"));
    }
    Ok(())
}

/// Refuses a statement that is deeper than allowed, or that names a file.
pub(super) fn check(statement: &Statement) -> Result<(), String> {
    let mut walk = Walk::default();
    match statement.visit(&mut walk) {
        ControlFlow::Break(reason) => Err(reason),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Walk {
    depth: usize,
    tables: usize,
}

impl Visitor for Walk {
    type Break = String;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<String> {
        self.depth += 1;
        let chain = match expression {
            Expr::CompoundFieldAccess { access_chain, .. } => access_chain.len(),
            Expr::CompoundIdentifier(parts) => parts.len(),
            _ => 0,
        };
        if self.depth + chain > MAX_DEPTH {
            return ControlFlow::Break(format!(
                "an expression is nested, or chained, more than {MAX_DEPTH} times; use a view \
                 in between"
            ));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<String> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let mut sets = 0;
        let mut body = query.body.as_ref();
        while let SetExpr::SetOperation { left, .. } = body {
            body = left;
            sets += 1;
        }
        if sets >= MAX_SETS {
            return ControlFlow::Break(format!("more than {MAX_SETS} queries are combined"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        if select.into.is_some() {
            return ControlFlow::Break(
                "SELECT INTO makes a table; use CREATE VIEW or INSERT INTO".to_owned(),
            );
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<String> {
        self.tables += 1;
        if self.tables > MAX_TABLES {
            return ControlFlow::Break(format!("there are more than {MAX_TABLES} tables in it"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<String> {
        let is_path = relation
            .0
            .iter()
            .filter_map(|part| part.as_ident())
            .any(|ident| ident.quote_style == Some('\'') || ident.value.contains(['/', '\\']));
        if is_path {
            return ControlFlow::Break(format!(
                "{relation} is a path; tables are named as declared, `layer.name`"
            ));
        }
        ControlFlow::Continue(())
    }
}
