#!/usr/bin/env python3
"""Make `invoices.sqlite`, the synthetic ledger database of the example.

Every run makes the same invoices: the seed is fixed, and nothing depends on the clock. With
`--check` nothing is written; the invoices of the file that is there are compared instead.
"""

import argparse
import datetime
import pathlib
import random
import sqlite3
import sys

FILE = pathlib.Path(__file__).with_name("invoices.sqlite")
SEED = 19990104
CUSTOMERS = 120
FIRST, LAST = datetime.date(2022, 1, 1), datetime.date(2025, 12, 31)

# Currency: how often it occurs, the middle of its amounts, its decimals.
CURRENCIES = {
    "EUR": (30, 1800, 2),
    "USD": (22, 2100, 2),
    "GBP": (14, 1500, 2),
    "CHF": (10, 1700, 2),
    "PLN": (8, 7600, 2),
    "SEK": (6, 19000, 2),
    "JPY": (6, 260000, 0),
    "CNY": (4, 13000, 2),
}

SCHEMA = """
CREATE TABLE invoices (
    invoice_id TEXT PRIMARY KEY,
    customer   TEXT NOT NULL,
    issued     TEXT NOT NULL,
    currency   TEXT NOT NULL,
    amount     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX invoices_by_day ON invoices (issued);
"""


def amount(chance: random.Random, middle: int, decimals: int) -> str:
    """An amount around `middle`; one in forty is a credit note and negative."""
    minor = round(middle * 10**decimals * chance.lognormvariate(0, 0.8))
    sign = "-" if chance.random() < 1 / 40 else ""
    whole, fraction = divmod(max(minor, 1), 10**decimals)
    return f"{sign}{whole}.{fraction:0{decimals}d}" if decimals else f"{sign}{whole}"


def invoices() -> list[tuple[str, str, str, str, str]]:
    """All invoices, by number; weekends have some too, as a web shop's would."""
    chance = random.Random(SEED)
    weights = [weight for weight, _, _ in CURRENCIES.values()]
    rows = []
    day, number = FIRST, 0
    while day <= LAST:
        busy = 1 if day.weekday() >= 5 else 3
        for _ in range(chance.randint(0, busy) + (day.weekday() < 5)):
            number += 1
            currency = chance.choices(list(CURRENCIES), weights)[0]
            _, middle, decimals = CURRENCIES[currency]
            # The European Central Bank published no rouble rate after 1 March 2022: these two have
            # no rate in force, and end as dead letters.
            if day.isoformat() in ("2022-03-21", "2022-04-04") and rows[-1][2] != day.isoformat():
                currency, middle, decimals = "RUB", 150000, 2
            customer = f"Example Customer {chance.randint(1, CUSTOMERS):03d}"
            rows.append((
                f"INV-{day.year}-{number:05d}",
                customer,
                day.isoformat(),
                currency,
                amount(chance, middle, decimals),
            ))
        day += datetime.timedelta(days=1)
    return rows


def write(path: pathlib.Path) -> None:
    """Write the database file anew."""
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    with database:
        database.executescript(SCHEMA)
        database.executemany("INSERT INTO invoices VALUES (?, ?, ?, ?, ?)", invoices())
    database.execute("VACUUM")
    database.close()


def stored(path: pathlib.Path) -> list[tuple[str, str, str, str, str]]:
    """The invoices in the database file, by number."""
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    rows = database.execute("SELECT * FROM invoices ORDER BY invoice_id").fetchall()
    database.close()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if not parser.parse_args().check:
        write(FILE)
    same = stored(FILE) == sorted(invoices())
    print(f"{FILE.name}: {len(stored(FILE))} invoices,", "as made" if same else "NOT as made")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
