//! Floats: computing with finite numbers gives a finite number, or fails.
//!
//! IEEE 754 says infinity for what is too large and for division by zero, and NaN for what has no
//! result; from there on every figure that depends on it is one too. As in PostgreSQL this is an
//! error here. Infinities and NaN that the data hold are computed with.

use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, Datum};
use datafusion::arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

/// Functions that have no finite result for some finite arguments.
const FUNCTIONS: [&str; 19] = [
    "acos", "acosh", "asin", "atanh", "cosh", "cot", "degrees", "exp", "ln", "log", "log10",
    "log2", "power", "radians", "round", "sinh", "sqrt", "tan", "trunc",
];

/// A float, whatever its width.
pub(super) trait Float: Copy {
    fn is_finite(self) -> bool;
}

impl Float for f64 {
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

impl Float for f32 {
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

/// Fails if a result is not finite though all that it was computed from is.
pub(super) fn check<T>(
    what: &str,
    results: &ArrayRef,
    operands: &[&dyn Datum],
) -> Result<(), ArrowError>
where
    T: ArrowPrimitiveType,
    T::Native: Float,
{
    let values = results.as_primitive::<T>();
    if values.values().iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let is_finite = |operand: &&dyn Datum, row: usize| {
        let (array, is_scalar) = operand.get();
        let row = if is_scalar { 0 } else { row };
        match array.as_primitive_opt::<T>() {
            Some(numbers) => numbers.is_null(row) || numbers.value(row).is_finite(),
            None => true,
        }
    };
    for row in 0..values.len() {
        let is_wrong = values.is_valid(row)
            && !values.value(row).is_finite()
            && operands.iter().all(|operand| is_finite(operand, row));
        if is_wrong {
            return Err(no_result(what, operands, row));
        }
    }
    Ok(())
}

fn no_result(what: &str, operands: &[&dyn Datum], row: usize) -> ArrowError {
    let text = |operand: &&dyn Datum| {
        let (array, is_scalar) = operand.get();
        let row = if is_scalar { 0 } else { row };
        ScalarValue::try_from_array(array, row).map_or(String::new(), |value| value.to_string())
    };
    let operands = operands.iter().map(text).collect::<Vec<_>>();
    match (what, &operands[..]) {
        ("/" | "%", [dividend, divisor]) if divisor.parse() == Ok(0.0) => ArrowError::ComputeError(
            format!("{dividend} {what} {divisor}: division by zero; use nullif for the divisor"),
        ),
        ("+" | "-" | "*" | "/" | "%", [left, right]) => {
            ArrowError::ComputeError(format!("{left} {what} {right} is out of range"))
        }
        _ => ArrowError::ComputeError(format!("{what}({}) is out of range", operands.join(", "))),
    }
}

/// Puts functions that check their results in the place of DataFusion's.
pub(crate) fn replace_float_functions(state: &mut SessionState) -> Result<()> {
    for name in FUNCTIONS {
        let inner = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(FiniteFunction { inner })))?;
    }
    Ok(())
}

/// A function that is DataFusion's, and whose results are checked.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FiniteFunction {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for FiniteFunction {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    /// The type of a rounded decimal must not depend on how its digits are written: that they are a
    /// literal is seen only once they are folded, when others rely on the type already.
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let [number, _] = args.arg_fields else {
            return self.inner.return_field_from_args(args);
        };
        let unknown = [None, None];
        let scalar_arguments = match number.data_type().is_decimal() {
            true => &unknown,
            false => args.scalar_arguments,
        };
        self.inner.return_field_from_args(ReturnFieldArgs {
            arg_fields: args.arg_fields,
            scalar_arguments,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let operands = args.args.clone();
        let found = self.inner.invoke_with_args(args)?;
        let results = found.to_array(1)?;
        let operands = operands
            .into_iter()
            .map(Operand::new)
            .collect::<Result<Vec<_>>>()?;
        let operands = operands.iter().map(|o| o as &dyn Datum).collect::<Vec<_>>();
        match results.data_type() {
            DataType::Float64 => check::<Float64Type>(self.name(), &results, &operands)?,
            DataType::Float32 => check::<Float32Type>(self.name(), &results, &operands)?,
            _ => {}
        }
        Ok(found)
    }
}

/// An argument as an operand.
struct Operand {
    array: ArrayRef,
    is_scalar: bool,
}

impl Operand {
    fn new(value: ColumnarValue) -> Result<Self> {
        let is_scalar = matches!(value, ColumnarValue::Scalar(_));
        let array = value.into_array(1)?;
        if is_scalar && array.len() != 1 {
            return exec_err!("a scalar is not a single value");
        }
        Ok(Self { array, is_scalar })
    }
}

impl Datum for Operand {
    fn get(&self) -> (&dyn datafusion::arrow::array::Array, bool) {
        (self.array.as_ref(), self.is_scalar)
    }
}
