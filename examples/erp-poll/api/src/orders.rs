//! The orders: made from a seed, the same ones each time, each by its number alone.

use std::{num::NonZeroU64, ops::Range};

use serde_json::{Value, json};

const CUSTOMERS: u64 = 24;
/// Every month has them, so that every date that is made exists.
const DAYS_A_MONTH: u64 = 28;
/// One a day.
const ORDERS_A_YEAR: u64 = 12 * DAYS_A_MONTH;
const STATUSES: [&str; 3] = ["open", "shipped", "invoiced"];
const FIRST_YEAR: u64 = 2024;

/// All orders that the system has.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    /// What they are made from.
    pub(crate) seed: u64,
    /// How many there are; the oldest is number 0.
    pub(crate) count: u64,
    /// Each so-manieth is not as the schema says.
    pub(crate) spoil_every: Option<NonZeroU64>,
}

impl Orders {
    /// The numbers of those of a year; none where the system did not exist yet.
    pub(crate) fn of_year(&self, year: u64) -> Range<u64> {
        let start = match year.checked_sub(FIRST_YEAR) {
            Some(years) => years.saturating_mul(ORDERS_A_YEAR),
            None => return 0..0,
        };
        start
            ..start
                .saturating_add(ORDERS_A_YEAR)
                .min(self.count)
                .max(start)
    }

    /// The numbers of all of them.
    pub(crate) fn all(&self) -> Range<u64> {
        0..self.count
    }

    /// The orders with these numbers, the oldest first.
    pub(crate) fn page(&self, numbers: Range<u64>) -> Vec<Value> {
        numbers.map(|number| self.order(number)).collect()
    }

    fn order(&self, number: u64) -> Value {
        let mut random = SplitMix(self.seed ^ number.wrapping_mul(0x9e37_79b9));
        let month = number / DAYS_A_MONTH;
        let cents = 1_000 + random.below(2_000_000);
        let mut order = json!({
            "order_id": format!("SO-{:07}", number + 1),
            "customer": format!("C-{:03}", 1 + random.below(CUSTOMERS)),
            "ordered_on": format!(
                "{:04}-{:02}-{:02}",
                FIRST_YEAR + month / 12,
                month % 12 + 1,
                number % DAYS_A_MONTH + 1
            ),
            "status": STATUSES[random.below(3) as usize],
            "lines": 1 + random.below(12),
            "currency": "EUR",
            "amount": format!("{}.{:02}", cents / 100, cents % 100),
        });
        let spoilt = self
            .spoil_every
            .filter(|every| (number + 1).is_multiple_of(every.get()));
        match spoilt.map(|every| (number + 1) / every % 3) {
            None => {}
            Some(0) => order["lines"] = json!("twelve"),
            Some(1) => order["ordered_on"] = json!("31.12.2024"),
            Some(_) => order["customer"] = Value::Null,
        }
        order
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What an order looks like, for those who read them. A later version adds a field.
pub(crate) fn schema(version: u64) -> Value {
    let mut fields = vec![
        json!({ "name": "order_id", "type": "string" }),
        json!({ "name": "customer", "type": "string" }),
        json!({ "name": "ordered_on", "type": "date" }),
        json!({ "name": "status", "type": "string" }),
        json!({ "name": "lines", "type": "integer" }),
        json!({ "name": "currency", "type": "string" }),
        json!({ "name": "amount", "type": "decimal" }),
    ];
    if version > 1 {
        fields.push(json!({ "name": "channel", "type": "string", "optional": true }));
    }
    json!({ "version": version, "fields": fields })
}
