//! Casts to whole numbers, which round as PostgreSQL's do.
//!
//! A cast that does not fit is an error already. What remains is the fraction, which DataFusion
//! cuts off: a decimal is rounded half away from zero, a float half to even.

use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _};
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Float32Type, Float64Type,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable as _, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};
use datafusion::optimizer::AnalyzerRule;

use super::{operator::checked_negation, zero::same_zeros};

/// Makes casts round, negations fail on overflow, and both zeros one where floats are looked up.
/// Comes after type coercion, whose casts are the work of this rule too; types stay as they are.
#[derive(Debug)]
pub(crate) struct CheckedCasts;

impl AnalyzerRule for CheckedCasts {
    fn name(&self) -> &'static str {
        "checked_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&node);
            let node = node.map_expressions(|expression| {
                let name = names.save(&expression);
                let checked = expression.transform_up(|part| check(part, &schema))?;
                Ok(checked.update_data(|expression| name.restore(expression)))
            })?;
            node.map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(plan.data)
    }
}

fn check(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match part {
        Expr::Cast(found) if found.field.data_type().is_integer() => {
            let rounded = round(*found.expr, schema)?;
            Ok(rounded.update_data(|expr| {
                Expr::Cast(Cast {
                    expr: Box::new(expr),
                    ..found
                })
            }))
        }
        Expr::TryCast(found) if found.field.data_type().is_integer() => {
            let rounded = round(*found.expr, schema)?;
            Ok(rounded.update_data(|expr| {
                Expr::TryCast(TryCast {
                    expr: Box::new(expr),
                    ..found
                })
            }))
        }
        part => checked_negation(part).transform_data(|part| same_zeros(part, schema)),
    }
}

/// A number without a fraction, of its own kind.
fn round(number: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match number.get_type(schema)? {
        DataType::Decimal128(precision, scale) if scale > 0 => {
            let precision = precision.saturating_add(1).min(DECIMAL128_MAX_PRECISION);
            let whole = cast(number, DataType::Decimal128(precision, 0));
            Ok(Transformed::yes(whole))
        }
        DataType::Float64 | DataType::Float32 => {
            let function = Arc::new(ScalarUDF::from(RoundHalfEven::new()));
            let whole = ScalarFunction::new_udf(function, vec![number]);
            Ok(Transformed::yes(Expr::ScalarFunction(whole)))
        }
        _ => Ok(Transformed::no(number)),
    }
}

/// Rounds floats to whole numbers, halves to the even one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundHalfEven {
    signature: Signature,
}

impl RoundHalfEven {
    fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }

    fn round(numbers: &ArrayRef) -> ArrayRef {
        match numbers.data_type() {
            DataType::Float32 => {
                let numbers = numbers.as_primitive::<Float32Type>();
                Arc::new(numbers.unary::<_, Float32Type>(f32::round_ties_even))
            }
            _ => {
                let numbers = numbers.as_primitive::<Float64Type>();
                Arc::new(numbers.unary::<_, Float64Type>(f64::round_ties_even))
            }
        }
    }
}

impl ScalarUDFImpl for RoundHalfEven {
    fn name(&self) -> &'static str {
        "round half even"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let operand = &args.arg_fields[0];
        let field = Field::new(
            self.name(),
            operand.data_type().clone(),
            operand.is_nullable(),
        );
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(numbers) => Ok(ColumnarValue::Array(Self::round(numbers))),
            ColumnarValue::Scalar(number) => {
                let rounded = Self::round(&number.to_array()?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                    &rounded, 0,
                )?))
            }
        }
    }
}
