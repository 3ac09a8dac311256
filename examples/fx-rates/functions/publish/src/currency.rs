//! The names of the currencies, for people.

/// The currencies with a chart of their own.
pub(crate) const CHARTED: [&str; 6] = ["USD", "JPY", "GBP", "CHF", "CNY", "PLN"];

const NAMES: [(&str, &str); 41] = [
    ("AUD", "Australian dollar"),
    ("BGN", "Bulgarian lev"),
    ("BRL", "Brazilian real"),
    ("CAD", "Canadian dollar"),
    ("CHF", "Swiss franc"),
    ("CNY", "Chinese yuan renminbi"),
    ("CYP", "Cyprus pound"),
    ("CZK", "Czech koruna"),
    ("DKK", "Danish krone"),
    ("EEK", "Estonian kroon"),
    ("GBP", "Pound sterling"),
    ("HKD", "Hong Kong dollar"),
    ("HRK", "Croatian kuna"),
    ("HUF", "Hungarian forint"),
    ("IDR", "Indonesian rupiah"),
    ("ILS", "Israeli shekel"),
    ("INR", "Indian rupee"),
    ("ISK", "Icelandic krona"),
    ("JPY", "Japanese yen"),
    ("KRW", "South Korean won"),
    ("LTL", "Lithuanian litas"),
    ("LVL", "Latvian lats"),
    ("MTL", "Maltese lira"),
    ("MXN", "Mexican peso"),
    ("MYR", "Malaysian ringgit"),
    ("NOK", "Norwegian krone"),
    ("NZD", "New Zealand dollar"),
    ("PHP", "Philippine peso"),
    ("PLN", "Polish zloty"),
    ("ROL", "Romanian leu (old)"),
    ("RON", "Romanian leu"),
    ("RUB", "Russian rouble"),
    ("SEK", "Swedish krona"),
    ("SGD", "Singapore dollar"),
    ("SIT", "Slovenian tolar"),
    ("SKK", "Slovak koruna"),
    ("THB", "Thai baht"),
    ("TRL", "Turkish lira (old)"),
    ("TRY", "Turkish lira"),
    ("USD", "US dollar"),
    ("ZAR", "South African rand"),
];

/// The name of a currency; its code again for one that is not known.
pub(crate) fn name(code: &str) -> &str {
    NAMES
        .iter()
        .find(|(known, _)| *known == code)
        .map_or(code, |(_, name)| name)
}
