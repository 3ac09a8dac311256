#!/usr/bin/env python3
"""Compute the example's figures anew, from the same published file and the same ledger database, and
compare them with what the pipeline committed.

    check.py fx_monthly.csv fx_drawdown.csv invoices_eur.csv

The three files are exports of kpi.fx_monthly, kpi.fx_drawdown and gdp.invoices_eur as CSV. Nothing
but Python's standard library is used: fractions for what is rational, decimals of fifty digits for
logarithms and roots, floats nowhere. So nothing is shared with the SQL that is checked, neither the
engine nor the arithmetic. Each difference is a line; the exit status is 1 if there is any.
"""

import bisect
import csv
import datetime
import decimal
import io
import pathlib
import sqlite3
import sys
import zipfile
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction

DATA = pathlib.Path(__file__).resolve().parents[2] / "data"
RETURNS = 30
TRADING_DAYS = 252
MAX_AGE_OF_RATE = datetime.timedelta(days=10)
SHOWN = 20

decimal.getcontext().prec = 50


def published_rates() -> dict[str, list[tuple[datetime.date, Decimal]]]:
    """Every published rate by currency, in the order of the days."""
    with zipfile.ZipFile(DATA / "eurofxref-hist.zip") as archive:
        text = archive.read("eurofxref-hist.csv").decode("ascii")
    header, *rows = csv.reader(io.StringIO(text))
    rates = defaultdict(list)
    for row in sorted(rows):
        for currency, rate in zip(header[1:], row[1:]):
            if currency and rate != "N/A":
                rates[currency].append((datetime.date.fromisoformat(row[0]), Decimal(rate)))
    return dict(rates)


def rounded(value: Fraction | Decimal, places: int, mode: str) -> Decimal:
    """Round an exact fraction, or a decimal of fifty digits."""
    if isinstance(value, Decimal):
        return value.quantize(Decimal(1).scaleb(-places), mode)
    scaled = abs(value) * 10**places
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    twice = 2 * rest - scaled.denominator
    if twice > 0 or twice == 0 and (mode == decimal.ROUND_HALF_UP or whole % 2 == 1):
        whole += 1
    return Decimal(whole if value >= 0 else -whole).scaleb(-places)


def six(value: Fraction | Decimal) -> Decimal:
    """Six decimals, half away from zero: as the statistics are rounded."""
    return rounded(value, 6, decimal.ROUND_HALF_UP)


def volatility(rates: list[Decimal]) -> Decimal | None:
    """Sample deviation of the last thirty logarithmic returns, for a year."""
    if len(rates) <= RETURNS:
        return None
    last = rates[-RETURNS - 1 :]
    returns = [(after / before).ln() for before, after in zip(last, last[1:])]
    mean = sum(returns) / RETURNS
    variance = sum((value - mean) ** 2 for value in returns) / (RETURNS - 1)
    return six((variance * TRADING_DAYS).sqrt())


def monthly(rates: dict) -> dict[tuple, tuple]:
    """kpi.fx_monthly, by currency and month."""
    figures = {}
    for currency, days in rates.items():
        by_month = defaultdict(list)
        for day, rate in days:
            by_month[day.replace(day=1)].append(rate)
        so_far = []
        for month, of_month in by_month.items():
            so_far += of_month
            before = by_month.get(month.replace(year=month.year - 1))
            change = six(Fraction(of_month[-1]) / Fraction(before[-1]) - 1) if before else None
            figures[currency, month.isoformat()] = (
                str(month.year),
                six(of_month[-1]),
                six(Fraction(sum(of_month)) / len(of_month)),
                volatility(so_far),
                change,
            )
    return figures


def drawdowns(rates: dict) -> dict[tuple, tuple]:
    """kpi.fx_drawdown, by currency: the first of the deepest falls, from the first day at its peak."""
    figures = {}
    for currency, days in rates.items():
        peak_day, peak = days[0]
        worst = (Fraction(0), peak_day, peak_day)
        for day, rate in days:
            if rate > peak:
                peak_day, peak = day, rate
            fall = Fraction(rate) / Fraction(peak) - 1
            if fall < worst[0]:
                worst = (fall, peak_day, day)
        figures[(currency,)] = (six(worst[0]), worst[1].isoformat(), worst[2].isoformat())
    return figures


def invoices(rates: dict) -> dict[tuple, tuple]:
    """gdp.invoices_eur, by invoice; an invoice without a rate in force is not in it."""
    database = sqlite3.connect(f"{(DATA / 'invoices.sqlite').as_uri()}?mode=ro", uri=True)
    rows = database.execute("SELECT invoice_id, issued, currency, amount FROM invoices").fetchall()
    database.close()
    figures = {}
    for number, issued, currency, amount in rows:
        day = datetime.date.fromisoformat(issued)
        rate_day, rate = day, Decimal(1)
        if currency != "EUR":
            place = bisect.bisect_right(rates[currency], (day, Decimal("Infinity")))
            rate_day, rate = rates[currency][place - 1]
            if day - rate_day > MAX_AGE_OF_RATE:
                continue
        euro = rounded(Fraction(amount) / Fraction(rate), 2, decimal.ROUND_HALF_EVEN)
        figures[(number,)] = (
            issued[:4],
            issued,
            currency,
            Decimal(amount).quantize(Decimal("0.01")),
            rate_day.isoformat(),
            six(rate),
            euro,
        )
    return figures


# Table: its key, its other columns in the order of the functions above.
TABLES = {
    "kpi.fx_monthly": (
        ["currency", "month"],
        ["year", "month_end_rate", "mean_rate", "volatility_30d", "change_on_year"],
    ),
    "kpi.fx_drawdown": (["currency"], ["worst_drawdown", "peak_date", "trough_date"]),
    "gdp.invoices_eur": (
        ["invoice_id"],
        ["year", "issued", "currency", "amount", "rate_date", "rate", "amount_eur"],
    ),
}


def differences(table: str, path: str, expected: dict[tuple, tuple]) -> list[str]:
    """What the export has otherwise than it was computed here."""
    key_columns, columns = TABLES[table]
    found, problems = set(), []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := {*key_columns, *columns} - set(reader.fieldnames or []):
            return [f"{table}: no column {name}" for name in sorted(missing)]
        for row in reader:
            key = tuple(row[column] for column in key_columns)
            name = " ".join(key)
            if key in found:
                problems.append(f"{table} {name}: more than once")
            found.add(key)
            if key not in expected:
                problems.append(f"{table} {name}: not expected")
                continue
            for column, value in zip(columns, expected[key]):
                text = row[column]
                if isinstance(value, str) or value is None or not text:
                    same = text == (value or "")
                else:
                    same = Decimal(text) == value
                if not same:
                    problems.append(f"{table} {name}: {column} is {text or 'null'}, computed {value}")
    problems += [f"{table} {' '.join(key)}: missing" for key in sorted(expected.keys() - found)]
    return problems


def main(paths: list[str]) -> int:
    if len(paths) != len(TABLES):
        print(__doc__, file=sys.stderr)
        return 2
    rates = published_rates()
    failed = False
    for (table, path), compute in zip(zip(TABLES, paths), (monthly, drawdowns, invoices)):
        expected = compute(rates)
        problems = differences(table, path, expected)
        for problem in problems[:SHOWN]:
            print(problem)
        if len(problems) > SHOWN:
            print(f"{table}: and {len(problems) - SHOWN} more differences")
        figures = len(expected) * len(TABLES[table][1])
        print(f"{table}: {len(expected)} rows, {figures} figures, {len(problems)} differences")
        failed = failed or bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
