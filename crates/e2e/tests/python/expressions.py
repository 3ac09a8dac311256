"""Prints expressions and what DuckDB makes of them: expressions.py SEED COUNT

One JSON object a line: the expression as a job writes it, whether it is a float, and DuckDB's text
of its value, which is null for a null. Expressions for which DuckDB fails are left out. A quarter of
them are aggregates over a few rows.
"""

import itertools
import json
import random
import sys

import duckdb

chance = random.Random()

INTS = [0, 1, -1, 2, 3, 7, -10, 99, 2147483647, -2147483648, 4611686018427387904]
DECIMALS = ["0.00", "0.01", "-0.01", "1.50", "2.50", "-2.50", "99.99", "12345.67", "-0.05"]
FLOATS = ["0.0", "0.5", "1.5", "2.5", "-2.5", "1e10", "-3.75", "1e-7", "123456.789"]
TEXTS = ["", "a", "Straßen", "  b ", "42", "abc,def", "ÄÖ"]
DATES = ["2024-02-29", "2023-12-31", "1970-01-01", "1999-03-01"]


def pick(*makers):
    return chance.choice(makers)()


def whole(depth):
    if depth == 0:
        return chance.choice([f"CAST({n} AS BIGINT)" for n in INTS] + ["CAST(NULL AS BIGINT)"])
    a, b = (lambda: whole(depth - 1)), (lambda: whole(depth - 1))
    return pick(
        lambda: f"({a()} + {b()})",
        lambda: f"({a()} - {b()})",
        lambda: f"({a()} * {b()})",
        lambda: f"({a()} [/] nullif({b()}, 0))",
        lambda: f"({a()} % nullif({b()}, 0))",
        lambda: f"(- {a()})",
        lambda: f"abs({a()})",
        lambda: f"CAST({exact(depth - 1)} AS BIGINT)",
        lambda: f"CAST({real(depth - 1)} AS BIGINT)",
        lambda: f"length({text(depth - 1)})",
        lambda: f"CASE WHEN {truth(depth - 1)} THEN {a()} ELSE {b()} END",
        lambda: f"coalesce({a()}, {b()})",
        lambda: f"CAST(extract(day FROM {day(depth - 1)}) AS BIGINT)",
        lambda: f"CAST(extract(dow FROM {day(depth - 1)}) AS BIGINT)",
        lambda: f"CAST(extract(week FROM {day(depth - 1)}) AS BIGINT)",
    )


def exact(depth):
    if depth == 0:
        return f"CAST({chance.choice(DECIMALS)} AS DECIMAL(12,2))"
    a, b = (lambda: exact(depth - 1)), (lambda: exact(depth - 1))
    return pick(
        lambda: f"({a()} + {b()})",
        lambda: f"({a()} - {b()})",
        lambda: f"({a()} * CAST({b()} AS DECIMAL(9,2)))",
        lambda: f"CAST({a()} AS DECIMAL(14,1))",
        lambda: f"CAST({a()} AS DECIMAL(20,4))",
        lambda: f"CAST({whole(depth - 1)} AS DECIMAL(30,2))",
        lambda: f"CAST({real(depth - 1)} AS DECIMAL(20,3))",
        lambda: f"abs({a()})",
        lambda: f"(- {a()})",
        lambda: f"round({a()}, {chance.randint(0, 2)})",
        lambda: f"CASE WHEN {truth(depth - 1)} THEN {a()} ELSE {b()} END",
    )


def real(depth):
    if depth == 0:
        return f"CAST({chance.choice(FLOATS)} AS DOUBLE)"
    a, b = (lambda: real(depth - 1)), (lambda: real(depth - 1))
    return pick(
        lambda: f"({a()} + {b()})",
        lambda: f"({a()} - {b()})",
        lambda: f"({a()} * {b()})",
        lambda: f"({a()} / nullif({b()}, 0))",
        lambda: f"sqrt(abs({a()}))",
        lambda: f"floor({a()})",
        lambda: f"ceil({a()})",
        lambda: f"round({a()}, {chance.randint(0, 3)})",
        lambda: f"abs({a()})",
        lambda: f"CAST({whole(depth - 1)} AS DOUBLE)",
        lambda: f"CAST({exact(depth - 1)} AS DOUBLE)",
    )


def truth(depth):
    makers = [whole, exact, real, text, day]
    make = chance.choice(makers)
    a, b = make(max(depth - 1, 0)), make(max(depth - 1, 0))
    operator = chance.choice(["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"])
    if depth == 0:
        return f"({a} {operator} {b})"
    return pick(
        lambda: f"({a} {operator} {b})",
        lambda: f"({a} IS NULL)",
        lambda: f"({a} BETWEEN {b} AND {make(depth - 1)})",
        lambda: f"({a} IN ({b}, {make(depth - 1)}))",
        lambda: f"({truth(depth - 1)} AND {truth(depth - 1)})",
        lambda: f"({truth(depth - 1)} OR {truth(depth - 1)})",
        lambda: f"(NOT {truth(depth - 1)})",
        lambda: f"({text(depth - 1)} LIKE '{chance.choice(['a%', '%b%', '_', '%', '4_'])}')",
    )


def text(depth):
    if depth == 0:
        return "'" + chance.choice(TEXTS) + "'"
    a = lambda: text(depth - 1)
    return pick(
        lambda: f"({a()} || {a()})",
        lambda: f"upper(replace({a()}, 'ß', 'ss'))",
        lambda: f"lower({a()})",
        lambda: f"trim({a()})",
        lambda: f"replace({a()}, 'a', 'xy')",
        lambda: f"substr({a()}, {chance.randint(1, 4)}, {chance.randint(0, 3)})",
        lambda: f"left({a()}, {chance.randint(0, 3)})",
        lambda: f"right({a()}, {chance.randint(0, 3)})",
        lambda: f"lpad({a()}, {chance.randint(0, 6)}, '*')",
        lambda: f"split_part({a()}, ',', {chance.randint(1, 2)})",
        lambda: f"CAST({whole(depth - 1)} AS VARCHAR)",
        lambda: f"CAST({day(depth - 1)} AS VARCHAR)",
        lambda: f"coalesce({a()}, 'none')",
    )


def day(depth):
    if depth == 0:
        return f"DATE '{chance.choice(DATES)}'"
    a = lambda: day(depth - 1)
    unit = chance.choice(["month", "year", "week", "quarter"])
    span = f"INTERVAL '{chance.randint(-40, 40)}' {chance.choice(['DAY', 'MONTH', 'YEAR'])}"
    return pick(
        lambda: f"CAST({a()} + {span} AS DATE)",
        lambda: f"CAST({a()} - {span} AS DATE)",
        lambda: f"CAST(date_trunc('{unit}', {a()}) AS DATE)",
        lambda: f"CAST(CAST({a()} AS VARCHAR) AS DATE)",
        lambda: f"greatest({a()}, {a()})",
    )


def aggregate():
    rows = ", ".join(
        f"(CAST({chance.choice(INTS[:9])} AS BIGINT), {exact(0)}, {real(0)})" for _ in range(chance.randint(1, 9))
    )
    column = chance.choice(["i", "d", "f"])
    share = chance.choice(["0", "0.1111111", "0.25", "0.5", "0.75", "1"])
    makers = {
        "sum(@)": column,
        "avg(CAST(@ AS DOUBLE))": "f",
        "min(@)": column,
        "max(@)": column,
        "count(@)": "i",
        "count(DISTINCT @)": "i",
        "median(CAST(@ AS DOUBLE))": "f",
        "stddev(CAST(@ AS DOUBLE))": "f",
        "var_pop(CAST(@ AS DOUBLE))": "f",
        "sum(@) FILTER (WHERE i > 0)": column,
        f"percentile_cont({share}) WITHIN GROUP (ORDER BY CAST(@ AS DOUBLE))": "f",
        # DuckDB takes the share 0 from the top for 0 from the bottom.
        f"percentile_cont({'1' if share == '0' else share}) WITHIN GROUP (ORDER BY CAST(@ AS DOUBLE) DESC)": "f",
    }
    name, kind = chance.choice(list(makers.items()))
    return f"(SELECT {name.replace('@', column)} FROM (VALUES {rows}) AS t (i, d, f))", kind


KINDS = {"whole": whole, "exact": exact, "real": real, "truth": truth, "text": text, "day": day}


def figures(seed):
    """Expressions without end, each with whether it is a float, and DuckDB's value of it."""
    chance.seed(seed)
    connection = duckdb.connect()
    while True:
        if chance.random() < 0.25:
            expression, kind = aggregate()
            is_float = kind == "f"
        else:
            kind = chance.choice(list(KINDS))
            expression, is_float = KINDS[kind](chance.randint(1, 3)), kind == "real"
        try:
            theirs = expression.replace("[/]", "//")
            (value,) = connection.execute(f"SELECT CAST({theirs} AS VARCHAR)").fetchone()
        except duckdb.Error:
            continue
        yield {"expression": expression.replace("[/]", "/"), "is_float": is_float, "value": value}


if __name__ == "__main__":
    for figure in itertools.islice(figures(int(sys.argv[1])), int(sys.argv[2])):
        print(json.dumps(figure))
