"""What DuckDB makes of the files of the flights: walk.py CHECK DATA VARIANTS

`CHECK` is the folder of the example's own `check.py`, `VARIANTS` one with files `flights-0.csv`,
`airlines-0.csv` and so on: recipes name them by number. A line of standard input is a question, a line
of standard output its answer:

    {"content": RECIPE}            what tells its rows from others: {"content": TEXT}
    {"tables": [TABLE, …]}         what Delta tables have otherwise: {"differences": [TEXT, …]}

A recipe names a dataset and everything that its rows follow from; a table has its place, the number
of its version, its columns and the recipes of its parts.
"""

import functools
import hashlib
import json
import pathlib
import sys

import duckdb
import duckdb_extension_delta

sys.path.insert(0, sys.argv[1])
import check

DATA, VARIANTS = map(pathlib.Path, sys.argv[2:])
(extension,) = pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
duckdb.execute(f"LOAD '{extension}'")

# Columns that the pipeline gets on the way, and is without at first.
carriers, routes = check.DATASETS["kpi.carriers"], check.DATASETS["kpi.routes"]
carriers.sql = carriers.sql.replace("SELECT period", "SELECT max(arr_delay) AS worst, period", 1)
routes.sql = routes.sql.replace("SELECT origin, dest, airports.name", "SELECT arrived, origin, dest, airports.name")


@functools.cache
def files(flights, airlines):
    variants = {"flights": flights, "airlines": airlines}
    others = {name: str(VARIANTS / f"{name}-{number}.csv") for name, number in variants.items()}
    return check.connect(DATA, **others)


@functools.cache
def rows(recipe):
    """The rows of a recipe by their key."""
    recipe = json.loads(recipe)
    words = dict(recipe["words"])
    if month := recipe.get("month"):
        words["where"] = f"period = '{month}'"
    connection = files(recipe["flights"], recipe["airlines"])
    if recipe["dataset"] == "gdp.flights":
        where = f"distance >= {words['shortest']}"
        if month:
            where += f" AND printf('%d-%02d', year, month) = '{month}'"
        found = connection.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM flights WHERE {where}").fetchall()
        return {tuple(map(str, row)): {} for row in found}
    found = check.computed(connection, recipe["dataset"], **words)
    return {key: {name: row[name] for name in recipe["columns"]} for key, row in found.items()}


def written(recipe):
    return json.dumps(recipe, sort_keys=True)


def content(recipe):
    if recipe["dataset"] != "gdp.flights" and not recipe["dataset"].startswith("kpi."):
        return hashlib.sha256(written(recipe).encode()).hexdigest()
    if recipe["dataset"] == "kpi.log":
        return written(logged(recipe))
    text = repr(sorted((key, sorted(row.items())) for key, row in rows(written(recipe)).items()))
    return hashlib.sha256((text + repr(recipe.get("columns"))).encode()).hexdigest()


def logged(recipe):
    """The row that is appended after the airlines' figures have changed."""
    figures = [row for part in recipe["of"] for row in rows(written(part)).values()]
    return [str(sum(row[name] for row in figures)) for name in ("flights", "late")]


def differences(table):
    dataset, columns = table["dataset"], table["columns"]
    history = sorted(pathlib.Path(table["folder"], "_delta_log").glob("*.json"))
    if int(history[-1].stem) != table["version"]:
        yield f"{dataset} is at version {int(history[-1].stem)}, and not at {table['version']}"
    listed = ", ".join(f'CAST("{column}" AS VARCHAR) AS "{column}"' for column in columns)
    scan = "delta_scan(?)"
    has = duckdb.execute(f"DESCRIBE SELECT * FROM {scan}", [table["folder"]]).fetchall()
    if {column[0] for column in has} != set(columns):
        yield f"{dataset} has the columns {[column[0] for column in has]}, and not {columns}"
        return
    found = duckdb.execute(f"SELECT {listed} FROM {scan}", [table["folder"]]).fetchall()
    if dataset == "kpi.log":
        expected = sorted(logged(part) for part in table["parts"])
        if sorted(map(list, found)) != expected:
            yield f"{dataset} holds {sorted(map(list, found))}, and not {expected}"
        return
    expected = {}
    for part in table["parts"]:
        of_part = rows(written(part)).items()
        expected |= {key: dict.fromkeys(columns) | row for key, row in of_part}
    yield from check.differences(dataset, [dict(zip(columns, row)) for row in found], expected)


for line in sys.stdin:
    asked = json.loads(line)
    if "content" in asked:
        answer = {"content": content(asked["content"])}
    else:
        answer = {"differences": [told for table in asked["tables"] for told in differences(table)]}
    print(json.dumps(answer), flush=True)
