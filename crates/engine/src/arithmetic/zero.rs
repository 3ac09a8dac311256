//! Both zeros of a float are one number.
//!
//! IEEE 754 has a zero with a minus, as the product of zero and a negative number. Comparisons,
//! groups and joins take both for the same. Where DataFusion looks a float up among others, by its
//! bits, they would be two: there the minus is taken off before.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, InList, ScalarFunction};
use datafusion::logical_expr::{Expr, ExprSchemable as _, Operator, lit};

use super::operator::checked;

/// Takes the minus off zeros that are looked up: `IN`, `CASE x WHEN`, `nullif`. Comes after type
/// coercion, which makes what is compared of one type.
pub(super) fn same_zeros(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_float = |expr: &Expr| {
        Ok::<_, datafusion::error::DataFusionError>(expr.get_type(schema)?.is_floating())
    };
    match part {
        Expr::InList(found) if is_float(&found.expr)? => {
            let list = found.list.into_iter().map(|item| plus_zero(item, schema));
            Ok(Transformed::yes(Expr::InList(InList {
                expr: Box::new(plus_zero(*found.expr, schema)?),
                list: list.collect::<Result<_>>()?,
                negated: found.negated,
            })))
        }
        Expr::Case(Case {
            expr: Some(operand),
            when_then_expr,
            else_expr,
        }) if is_float(&operand)? => {
            let branches = when_then_expr
                .into_iter()
                .map(|(when, then)| Ok((Box::new(plus_zero(*when, schema)?), then)));
            Ok(Transformed::yes(Expr::Case(Case {
                expr: Some(Box::new(plus_zero(*operand, schema)?)),
                when_then_expr: branches.collect::<Result<_>>()?,
                else_expr,
            })))
        }
        Expr::ScalarFunction(found) if found.name() == "nullif" && is_float(&found.args[0])? => {
            let args = found.args.into_iter().map(|item| plus_zero(item, schema));
            let args = args.collect::<Result<_>>()?;
            let call = ScalarFunction::new_udf(found.func, args);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        part => Ok(Transformed::no(part)),
    }
}

/// The number, without the minus if it is zero.
fn plus_zero(number: Expr, schema: &DFSchema) -> Result<Expr> {
    match number.get_type(schema)? {
        DataType::Float64 | DataType::Float32 if is_other_than_zero(&number) => Ok(number),
        float @ (DataType::Float64 | DataType::Float32) => {
            let zero = lit(ScalarValue::new_zero(&float)?);
            Ok(checked(Operator::Plus, number, zero))
        }
        _ => Ok(number),
    }
}

fn is_other_than_zero(number: &Expr) -> bool {
    match number {
        Expr::Literal(ScalarValue::Float64(Some(number)), _) => *number != 0.0,
        Expr::Literal(ScalarValue::Float32(Some(number)), _) => *number != 0.0,
        _ => false,
    }
}
