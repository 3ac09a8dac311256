//! Quotients of decimals.
//!
//! PostgreSQL gives a quotient at least sixteen significant digits; a column has one scale for all
//! of its values, so here a quotient has sixteen digits after the point, or as many as an operand
//! has, if that is more. The last digit is rounded, half away from zero.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray as _, Datum, Decimal128Array, PrimitiveArray,
};
use datafusion::arrow::compute::kernels::arity::try_binary;
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType as _, i256,
};
use datafusion::arrow::error::ArrowError;

/// The least number of digits after the point.
const LEAST_SCALE: i8 = 16;

/// The type of a quotient, by the scales of its operands.
pub(super) fn data_type(left: i8, right: i8) -> DataType {
    DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale(left, right))
}

fn scale(left: i8, right: i8) -> i8 {
    LEAST_SCALE.max(left).max(right)
}

/// Divides decimals, of which either may be a scalar.
pub(super) fn divide(left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    let (left, is_left_scalar) = left.get();
    let (right, is_right_scalar) = right.get();
    let scales = (scale_of(left), scale_of(right));
    let scale = scale(scales.0, scales.1);
    let shift = u32::try_from(scale - scales.0 + scales.1).unwrap_or(0);
    let factor = i256::from_i128(10).wrapping_pow(shift);
    let one = |dividend: i128, divisor: i128| {
        if divisor == 0 {
            return Err(ArrowError::DivideByZero);
        }
        // What overflows even here has a quotient of more digits than a decimal can have.
        let quotient = i256::from_i128(dividend)
            .checked_mul(factor)
            .and_then(|dividend| rounded(dividend, i256::from_i128(divisor)).to_i128())
            .filter(|quotient| {
                Decimal128Type::is_valid_decimal_precision(*quotient, DECIMAL128_MAX_PRECISION)
            });
        quotient.ok_or_else(|| {
            ArrowError::ArithmeticOverflow(format!(
                "the quotient of {} and {} has more than {DECIMAL128_MAX_PRECISION} digits",
                Decimal128Type::format_decimal(dividend, DECIMAL128_MAX_PRECISION, scales.0),
                Decimal128Type::format_decimal(divisor, DECIMAL128_MAX_PRECISION, scales.1),
            ))
        })
    };
    let (left, right) = (
        left.as_primitive::<Decimal128Type>(),
        right.as_primitive::<Decimal128Type>(),
    );
    let quotients: Decimal128Array = match (is_left_scalar, is_right_scalar) {
        (true, false) if left.is_null(0) => PrimitiveArray::new_null(right.len()),
        (false, true) if right.is_null(0) => PrimitiveArray::new_null(left.len()),
        (true, false) => right.try_unary(|divisor| one(left.value(0), divisor))?,
        (false, true) => left.try_unary(|dividend| one(dividend, right.value(0)))?,
        _ => try_binary(left, right, one)?,
    };
    let quotients = quotients.with_precision_and_scale(DECIMAL128_MAX_PRECISION, scale)?;
    Ok(Arc::new(quotients))
}

fn scale_of(array: &dyn Array) -> i8 {
    match array.data_type() {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

/// A quotient without a fraction, rounded half away from zero. The divisor is not zero, and at
/// most half of what its type holds.
pub(crate) fn rounded(dividend: i256, divisor: i256) -> i256 {
    let quotient = dividend.wrapping_div(divisor);
    let rest = dividend.wrapping_rem(divisor).wrapping_abs();
    let is_half = rest.wrapping_add(rest) >= divisor.wrapping_abs();
    let is_negative = (dividend < i256::ZERO) != (divisor < i256::ZERO);
    match (is_half, is_negative) {
        (false, _) => quotient,
        (true, false) => quotient.wrapping_add(i256::ONE),
        (true, true) => quotient.wrapping_sub(i256::ONE),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::i256;

    use super::rounded;

    #[test]
    fn halves_are_rounded_away_from_zero() {
        for (dividend, divisor, quotient) in [
            (7, 2, 4),
            (-7, 2, -4),
            (7, -2, -4),
            (-7, -2, 4),
            (1, 3, 0),
            (-2, 3, -1),
            (0, -5, 0),
        ] {
            let found = rounded(i256::from_i128(dividend), i256::from_i128(divisor));
            assert_eq!(found, i256::from_i128(quotient), "{dividend} / {divisor}");
        }
    }
}
