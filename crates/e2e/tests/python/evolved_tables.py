"""All rows of a Delta table, as two engines that others wrote have them, as sorted JSON."""

import json
import pathlib
import sys

import deltalake
import duckdb
import duckdb_extension_delta

(extension,) = pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
duckdb.execute(f"LOAD '{extension}'")

uri, columns = sys.argv[1], sys.argv[2].split(",")
listed = ", ".join(f"CAST({column} AS VARCHAR)" for column in columns)
ours = duckdb.execute(f"SELECT {listed} FROM delta_scan(?)", [uri]).fetchall()
table = deltalake.DeltaTable(uri)
engine = deltalake.QueryBuilder().register("committed", table)
theirs = engine.execute(f"SELECT {listed} FROM committed").read_all()
rows = lambda found: sorted([["" if cell is None else cell for cell in row] for row in found])
names = [field.name for field in table.schema().fields]
theirs = [
    [theirs.column(place)[row].as_py() for place in range(len(columns))]
    for row in range(theirs.num_rows)
]
print(json.dumps({"columns": names, "duckdb": rows(ours), "deltalake": rows(theirs)}))
