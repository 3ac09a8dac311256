//! `+ - * / %` and unary minus.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, Datum, RecordBatch, RecordBatchOptions,
};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Schema,
};
use datafusion::arrow::error::ArrowError;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr_common::datum::apply;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::{finite, quotient};

/// Plans operators as functions that check their results.
#[derive(Debug)]
pub(crate) struct CheckedOperators;

impl ExprPlanner for CheckedOperators {
    fn plan_binary_op(
        &self,
        expression: RawBinaryExpr,
        _: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match expression.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Modulo,
            _ => return Ok(PlannerResult::Original(expression)),
        };
        let operands = vec![expression.left, expression.right];
        Ok(PlannerResult::Planned(call(
            CheckedOperator::new(operator),
            operands,
        )))
    }
}

/// Replaces a unary minus, which no planner is asked about.
pub(super) fn checked_negation(expression: Expr) -> Transformed<Expr> {
    match expression {
        Expr::Negative(operand) => Transformed::yes(call(Negation::new(), vec![*operand])),
        other => Transformed::no(other),
    }
}

/// Two operands with an operator between them that checks its results.
pub(super) fn checked(operator: Operator, left: Expr, right: Expr) -> Expr {
    call(CheckedOperator::new(operator), vec![left, right])
}

fn call(function: impl ScalarUDFImpl + 'static, operands: Vec<Expr>) -> Expr {
    let function = Arc::new(ScalarUDF::from(function));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, operands))
}

/// A binary operator as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedOperator {
    operator: Operator,
    signature: Signature,
}

impl CheckedOperator {
    fn new(operator: Operator) -> Self {
        Self {
            operator,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    fn infix(&self, operands: &[Expr], name: impl Fn(&Expr) -> String) -> String {
        let operand = |expression: &Expr| match expression {
            Expr::ScalarFunction(function) if is_operator(function) => {
                format!("({})", name(expression))
            }
            other => name(other),
        };
        let operands = operands.iter().map(operand).collect::<Vec<_>>();
        operands.join(&format!(" {} ", self.operator))
    }
}

fn is_operator(function: &ScalarFunction) -> bool {
    function
        .func
        .inner()
        .downcast_ref::<CheckedOperator>()
        .is_some()
}

impl ScalarUDFImpl for CheckedOperator {
    fn name(&self) -> &str {
        match self.operator {
            Operator::Plus => "+",
            Operator::Minus => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            _ => "%",
        }
    }

    fn display_name(&self, operands: &[Expr]) -> Result<String> {
        Ok(self.infix(operands, Expr::to_string))
    }

    /// The name that a column gets whose author gave it none.
    fn schema_name(&self, operands: &[Expr]) -> Result<String> {
        Ok(self.infix(operands, |operand| operand.schema_name().to_string()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = types else {
            return plan_err!("{} takes two operands", self.operator);
        };
        let coercer = BinaryTypeCoercer::new(left, &self.operator, right);
        let (left, right) = coercer.get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [left, right] = types else {
            return plan_err!("{} takes two operands", self.operator);
        };
        if self.operator == Operator::Divide
            && let (&DataType::Decimal128(_, left), &DataType::Decimal128(_, right)) = (left, right)
        {
            return Ok(quotient::data_type(left, right));
        }
        BinaryTypeCoercer::new(left, &self.operator, right).get_result_type()
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types = args
            .arg_fields
            .iter()
            .map(|field| field.data_type().clone());
        let data_type = self.return_type(&types.collect::<Vec<_>>())?;
        let is_nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), data_type, is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else {
            return exec_err!("{} takes two operands", self.operator);
        };
        let is_number = |operand: &ColumnarValue| operand.data_type().is_numeric();
        if is_number(left) && is_number(right) {
            return apply(left, right, |left, right| {
                numbers(self.operator, left, right)
            });
        }
        temporal(self.operator, left, right, args.number_rows)
    }
}

/// Days, instants and intervals: DataFusion's own operator, in its checked form.
fn temporal(
    operator: Operator,
    left: &ColumnarValue,
    right: &ColumnarValue,
    rows: usize,
) -> Result<ColumnarValue> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    let mut operand = |value: &ColumnarValue| -> Arc<dyn PhysicalExpr> {
        match value {
            ColumnarValue::Scalar(scalar) => Arc::new(Literal::new(scalar.clone())),
            ColumnarValue::Array(array) => {
                let place = columns.len();
                fields.push(Field::new("operand", array.data_type().clone(), true));
                columns.push(Arc::clone(array));
                Arc::new(Column::new("operand", place))
            }
        }
    };
    let (left, right) = (operand(left), operand(right));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Schema::new(fields).into(), columns, &options)?;
    BinaryExpr::new(left, operator, right)
        .with_fail_on_overflow(true)
        .evaluate(&batch)
}

/// Numbers, of one type but for decimals.
fn numbers(
    operator: Operator,
    left: &dyn Datum,
    right: &dyn Datum,
) -> Result<ArrayRef, ArrowError> {
    let types = (left.get().0.data_type(), right.get().0.data_type());
    if operator == Operator::Divide
        && matches!(types, (DataType::Decimal128(..), DataType::Decimal128(..)))
    {
        return quotient::divide(left, right);
    }
    let result = match operator {
        Operator::Plus => numeric::add(left, right),
        Operator::Minus => numeric::sub(left, right),
        Operator::Multiply => numeric::mul(left, right),
        Operator::Divide => numeric::div(left, right),
        _ => numeric::rem(left, right),
    }?;
    match result.data_type() {
        DataType::Decimal128(precision, _) => result
            .as_primitive::<Decimal128Type>()
            .validate_decimal_precision(*precision)?,
        DataType::Float64 => {
            finite::check::<Float64Type>(&operator.to_string(), &result, &[left, right])?;
        }
        DataType::Float32 => {
            finite::check::<Float32Type>(&operator.to_string(), &result, &[left, right])?;
        }
        _ => {}
    }
    Ok(result)
}

/// A unary minus as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Negation {
    signature: Signature,
}

impl Negation {
    fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Negation {
    fn name(&self) -> &'static str {
        "-"
    }

    fn display_name(&self, operands: &[Expr]) -> Result<String> {
        Ok(format!("(- {})", operands[0]))
    }

    fn schema_name(&self, operands: &[Expr]) -> Result<String> {
        Ok(format!("(- {})", operands[0].schema_name()))
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
            ColumnarValue::Array(array) if array.data_type() == &DataType::Null => {
                Ok(ColumnarValue::Array(Arc::clone(array)))
            }
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(numeric::neg(array)?)),
            ColumnarValue::Scalar(scalar) if scalar.is_null() => {
                Ok(ColumnarValue::Scalar(scalar.clone()))
            }
            ColumnarValue::Scalar(scalar) => {
                let negated = numeric::neg(&scalar.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                    &negated, 0,
                )?))
            }
        }
    }
}
