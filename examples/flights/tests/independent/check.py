#!/usr/bin/env python3
"""Computes the example's figures anew with DuckDB, from the published files, and compares.

    check.py [--data FOLDER] kpi.carriers=carriers.csv kpi.days=days.csv …

Each file is an export of the dataset as CSV. What is counted, summed, ranked or a share is exact, and
has to be equal; percentiles are floats, and may differ by a billionth. Nothing is shared with the
pipeline, neither its cleaning nor its SQL. Each difference is a line; the exit status is 1 if there
is any.
"""

import argparse
import csv
import dataclasses
import pathlib
import sys
from decimal import Decimal

import duckdb

FILES = ["flights", "airlines", "airports", "planes", "weather"]
SHOWN = 20

# A quotient of whole numbers, rounded half away from zero, without any float on the way.
RATIO = """
CREATE MACRO ratio(n, d, places) AS
    CASE WHEN d > 0 THEN sign(n)::HUGEINT
        * ((2 * abs(n)::HUGEINT * (10::HUGEINT ** places)::HUGEINT + d) // (2 * d)) END
"""


@dataclasses.dataclass
class Figures:
    """A dataset: its key, what of it is a float, what is a number of so many places, and its SQL."""

    key: list[str]
    sql: str
    places: dict[str, int | str] = dataclasses.field(default_factory=dict)
    floats: set[str] = dataclasses.field(default_factory=set)


# What stands for the words in braces, as long as nobody changes the pipeline.
USUAL = {"late": 15, "digits": 4, "days": 7, "least": 1, "high": 0.95, "shown": 2013}
USUAL |= {"shortest": 0, "where": "true"}

DATASETS = {
    "kpi.carriers": Figures(
        key=["month", "carrier"],
        places={"cancelled_share": 6, "mean_dep_delay": "digits", "mean_arr_delay": "digits"},
        floats={"p90_arr_delay"},
        sql="""
            SELECT period AS month, carrier, any_value(name) AS name, count(*) AS flights,
                count(*) FILTER (WHERE dep_time IS NULL) AS cancelled,
                count(*) FILTER (WHERE arr_delay > {late}) AS late,
                ratio(count(*) FILTER (WHERE dep_time IS NULL), count(*), 6) AS cancelled_share,
                ratio(sum(dep_delay), count(dep_delay), {digits}) AS mean_dep_delay,
                ratio(sum(arr_delay), count(arr_delay), {digits}) AS mean_arr_delay,
                quantile_cont(arr_delay::DOUBLE, 0.9) AS p90_arr_delay
            FROM chosen JOIN airlines USING (carrier)
            GROUP BY period, carrier""",
    ),
    "kpi.days": Figures(
        key=["day"],
        places={"mean_delay_of_days": 4},
        sql="""
            WITH daily AS (
                SELECT period, make_date(year, chosen.month, day) AS date, count(*) AS flights,
                    count(*) FILTER (WHERE dep_time IS NULL) AS cancelled,
                    sum(dep_delay) AS delay, count(dep_delay) AS departed
                FROM chosen GROUP BY ALL
            )
            SELECT one.period AS month, one.date AS day, one.flights, one.cancelled,
                (SELECT sum(flights) FROM daily AS two
                 WHERE two.period = one.period AND two.date <= one.date) AS flights_so_far,
                one.flights - lag(one.flights) OVER (PARTITION BY one.period ORDER BY one.date) AS change,
                ratio(
                    sum(one.delay) OVER lately, sum(one.departed) OVER lately, 4
                ) AS mean_delay_of_days,
                row_number() OVER (
                    PARTITION BY one.period ORDER BY one.cancelled DESC, one.date
                ) AS place
            FROM daily AS one
            WINDOW lately AS (
                PARTITION BY one.period ORDER BY one.date ROWS {days} - 1 PRECEDING
            )""",
    ),
    "kpi.routes": Figures(
        key=["origin", "dest"],
        places={"share": 6, "mean_air_time": 2, "miles_an_hour": 2},
        sql="""
            WITH counted AS (
                SELECT origin, dest, count(*) AS flights, count(DISTINCT carrier) AS carriers,
                    max(distance) AS distance, sum(air_time) AS minutes, count(air_time) AS arrived,
                    sum(CASE WHEN air_time IS NOT NULL THEN distance END) AS miles
                FROM chosen GROUP BY origin, dest
            )
            SELECT origin, dest, airports.name AS airport, flights, carriers, distance,
                row_number() OVER (PARTITION BY origin ORDER BY flights DESC, dest) AS place,
                ratio(flights, sum(flights) OVER (PARTITION BY origin), 6) AS share,
                ratio(minutes, arrived, 2) AS mean_air_time,
                ratio(miles * 60, minutes, 2) AS miles_an_hour
            FROM counted LEFT JOIN airports ON faa = dest AND tzone IS NOT NULL
            WHERE flights >= {least}""",
    ),
    "kpi.weather": Figures(
        key=["origin", "weather"],
        places={"cancelled_share": 6, "mean_dep_delay": 4, "coldest": 2},
        floats={"median_dep_delay", "p95_dep_delay"},
        sql="""
            SELECT chosen.origin,
                CASE WHEN precip IS NULL THEN 'unknown' WHEN visib < 2 THEN 'fog'
                    WHEN precip = 0 THEN 'dry' WHEN precip < 0.1 THEN 'rain' ELSE 'heavy rain'
                END AS weather,
                count(*) AS flights,
                count(*) FILTER (WHERE dep_time IS NULL) AS cancelled,
                ratio(count(*) FILTER (WHERE dep_time IS NULL), count(*), 6) AS cancelled_share,
                ratio(sum(dep_delay), count(dep_delay), 4) AS mean_dep_delay,
                quantile_cont(dep_delay::DOUBLE, 0.5) AS median_dep_delay,
                quantile_cont(dep_delay::DOUBLE, {high}) AS p95_dep_delay,
                (min(temp) * 100)::BIGINT AS coldest
            FROM chosen LEFT JOIN weather
                ON weather.origin = chosen.origin AND weather.time_hour = chosen.time_hour
            GROUP BY ALL""",
    ),
    "kpi.fleet": Figures(
        key=["manufacturer"],
        places={"mean_age": 2},
        sql="""
            SELECT ifnull(manufacturer, 'unknown') AS manufacturer,
                count(DISTINCT tailnum) AS planes, count(*) AS flights, sum(seats) AS seats,
                ratio(sum({shown} - planes.year), count(planes.year), 2) AS mean_age
            FROM chosen LEFT JOIN planes USING (tailnum)
            GROUP BY ALL""",
    ),
}


def connect(data: pathlib.Path, **others: str) -> duckdb.DuckDBPyConnection:
    """The published files as tables, or others in their place; decimals where the pipeline has them."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    connection.execute(RATIO)
    exact = "types={'temp': 'DECIMAL(6,2)', 'precip': 'DECIMAL(6,2)', 'visib': 'DECIMAL(6,2)'}"
    for name in FILES:
        options = f", {exact}" if name == "weather" else ""
        path = others.get(name, str(data / f"{name}.csv")).replace("'", "''")
        connection.execute(
            f"CREATE TABLE {name} AS FROM read_csv('{path}', header=true, nullstr='NA'{options})"
        )
    return connection


def computed(connection: duckdb.DuckDBPyConnection, dataset: str, **words) -> dict[tuple, dict]:
    """The rows of a dataset by their key, values as they are exported; None for null."""
    figures, words = DATASETS[dataset], USUAL | words
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW chosen AS SELECT *, printf('%d-%02d', year, flights.month) AS period"
        f" FROM flights WHERE distance >= {words['shortest']} AND {words['where']}"
    )
    found = connection.execute(figures.sql.format(**words))
    columns = [column[0] for column in found.description]
    rows = {}
    for row in found.fetchall():
        named = dict(zip(columns, row))
        for column, places in figures.places.items():
            places = words.get(places, places)
            if named[column] is not None:
                named[column] = Decimal(int(named[column])).scaleb(-places)
        rows[tuple(str(named[column]) for column in figures.key)] = named
    return rows


def same(dataset: str, column: str, text: str | None, value) -> bool:
    """Whether an exported value is the one that was computed."""
    if value is None or not text:
        return not text and (value is None or value == "")
    if column in DATASETS[dataset].floats:
        return abs(float(text) - value) <= 1e-9 * abs(value)
    if isinstance(value, (int, Decimal)):
        return Decimal(text) == value
    return text == str(value)


def differences(dataset: str, rows: list[dict], expected: dict[tuple, dict]) -> list[str]:
    """What the rows have otherwise than it was computed."""
    key, found, problems = DATASETS[dataset].key, set(), []
    for row in rows:
        name = tuple(row[column] for column in key)
        if name in found:
            problems.append(f"{dataset} {' '.join(name)}: more than once")
        found.add(name)
        if name not in expected:
            problems.append(f"{dataset} {' '.join(name)}: not expected")
            continue
        for column, value in expected[name].items():
            if not same(dataset, column, row.get(column), value):
                shown = f"{column} is {row.get(column)!r}, computed {value}"
                problems.append(f"{dataset} {' '.join(name)}: {shown}")
    problems += [f"{dataset} {' '.join(name)}: missing" for name in sorted(expected.keys() - found)]
    return problems


def main() -> int:
    arguments = argparse.ArgumentParser(usage="check.py [--data FOLDER] DATASET=FILE…")
    own = pathlib.Path(__file__).resolve().parents[2] / "data"
    arguments.add_argument("--data", type=pathlib.Path, default=own)
    arguments.add_argument("exports", nargs="+")
    asked = arguments.parse_args()
    connection = connect(asked.data)
    failed = False
    for export in asked.exports:
        dataset, _, path = export.partition("=")
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        expected = computed(connection, dataset)
        problems = differences(dataset, rows, expected)
        for problem in problems[:SHOWN]:
            print(problem)
        if len(problems) > SHOWN:
            print(f"{dataset}: and {len(problems) - SHOWN} more differences")
        columns = sum(len(row) for row in expected.values())
        print(f"{dataset}: {len(expected)} rows, {columns} figures, {len(problems)} differences")
        failed = failed or bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
