//! Secrets in what an attempt's end tells: a function's words, and names that were asked for.
//!
//! Metrics, exit statuses and what holds of the boundary are not the work's to write.

use barecount_secrets::Redactor;
use serde_json::Value;

use crate::launch::{End, Ended};

/// Replaces secrets by their names, before anybody hears of the end or anything of it is kept.
pub(super) fn redact(ended: &mut Ended, redactor: &Redactor) {
    match &mut ended.end {
        End::HandlerError {
            error_type,
            message,
        } => {
            *error_type = told(redactor, error_type.raw()).into();
            *message = told(redactor, message.raw()).into();
        }
        End::Answered { response } => {
            // As it is written: a number may be a secret, too.
            let text = response.to_string();
            let redacted = redactor.redact_str(&text);
            if redacted != text {
                *response = Value::String(redacted.into_owned());
            }
        }
        End::Exited { .. } | End::Signalled { .. } | End::OutOfMemory | End::Stopped => {}
    }
    for record in ended.flows.iter_mut().flat_map(|flows| &mut flows.records) {
        if let Some(name) = &mut record.name {
            *name = redactor.redact_excerpt(name.raw()).into();
        }
        if let Some(reason) = &mut record.reason {
            reason.text = redactor.redact_excerpt(reason.text.raw()).into();
        }
    }
}

/// What a function said: cut by us where a mark says so, or by the function at its end.
fn told(redactor: &Redactor, text: &str) -> String {
    redactor.redact_beginning(&redactor.redact_excerpt(text))
}

#[cfg(test)]
mod tests {
    use barecount_secrets::Secret;
    use serde_json::json;

    use super::*;
    use crate::local::never_begun;

    fn redacted(end: End) -> Result<End, Box<dyn std::error::Error>> {
        let (token, pin) = (Secret::new(b"canary-token"), Secret::new(b"47114711"));
        let redactor = Redactor::new([("token", &token), ("pin", &pin)])?;
        let mut ended = Ended {
            end,
            ..never_begun()
        };
        redact(&mut ended, &redactor);
        Ok(ended.end)
    }

    #[test]
    fn what_a_function_answers_or_fails_with_tells_no_secret()
    -> Result<(), Box<dyn std::error::Error>> {
        let harmless = End::Answered {
            response: json!({"m": 1}),
        };
        assert_eq!(redacted(harmless.clone())?, harmless);
        let answer = json!({"a": "not canary-token", "n": 47_114_711});
        let expected = r#"{"a":"not [redacted:token]","n":[redacted:pin]}"#;
        let answered = redacted(End::Answered { response: answer })?;
        let response = Value::from(expected);
        assert_eq!(answered, End::Answered { response });
        let failed = End::HandlerError {
            error_type: "canary-token".into(),
            message: "refused: Y2FuYXJ5LXRva2Vu, then canary-tok".into(),
        };
        let expected = End::HandlerError {
            error_type: "[redacted:token]".into(),
            message: "refused: [redacted:token], then [redacted]".into(),
        };
        assert_eq!(redacted(failed)?, expected);
        Ok(())
    }
}
