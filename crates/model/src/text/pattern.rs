//! Patterns that the values of a column must match.

use super::InvalidText;

/// The largest compiled pattern, in bytes; matching is linear in the text whatever the pattern.
const MAX_PATTERN_BYTES: usize = 1 << 18;

/// Compiles a column's pattern so that it matches whole values only.
///
/// # Errors
/// If it is no regular expression, or grows too large.
pub fn whole_value_pattern(pattern: &str) -> Result<regex::Regex, InvalidText> {
    let compile = |text: &str| {
        regex::RegexBuilder::new(text)
            .size_limit(MAX_PATTERN_BYTES)
            .build()
    };
    // Compiled alone first: `a)|(b` would otherwise close the group that anchors it.
    compile(pattern)
        .and_then(|_| compile(&format!(r"\A(?:{pattern})\z")))
        .map_err(|error| {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            InvalidText::new(reason.trim().trim_start_matches("error: "))
        })
}
