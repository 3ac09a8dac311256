"""What a SQL stage is held against. `make FOLDER ROWS` writes the rows; `query FOLDER` reads a query
from standard input, and writes what it gives as one Parquet file, on one thread, with the same codec
at the same level; `sorted FOLDER` sorts the rows by all columns, too. Prints one JSON line."""

import json
import pathlib
import resource
import sys
import time

import duckdb

verb, folder, *rest = sys.argv[1:]
folder = pathlib.Path(folder)
source = folder / "raw.payments" / "part-00000.parquet"
codec = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
session = duckdb.connect()
session.execute("SET enable_progress_bar = false; SET threads = 1; SET TimeZone = 'UTC'")
if verb == "make":
    source.parent.mkdir()
    session.execute(
        f"""COPY (SELECT
            i AS id,
            CAST(hash(i) % 1000003 AS BIGINT) AS account,
            ['DE', 'FR', 'IT', 'ES', 'PL', 'NL', 'SE'][1 + CAST(hash(i) % 7 AS BIGINT)] AS country,
            'Customer ' || (hash(i) % 90001) || ' of ' || (hash(i) % 97) AS name,
            CAST((CAST(hash(i) % 100000000 AS BIGINT) - 20000000) / 100 AS DECIMAL(18, 2)) AS amount,
            CASE WHEN hash(i) % 10 <> 0 THEN CAST(hash(i) % 9999991 AS DOUBLE) / 1e6 END AS rate,
            DATE '2000-01-01' + CAST(hash(i) % 9855 AS INTEGER) AS day,
            TIMESTAMPTZ '2000-01-01 00:00:00+00' + to_milliseconds(CAST(hash(i) % 851472000000 AS BIGINT)) AS at,
            hash(i) % 3 = 0 AS paid,
            CASE WHEN hash(i) % 4 = 0 THEN 'paid late, by ' || (hash(i) % 30) || ' days' END AS note
        FROM range({rest[0]}) AS t (i)) TO '{source}' {codec}"""
    )
    sys.exit()
target = folder / "duckdb.parquet"
session.execute(f"CREATE SCHEMA raw; CREATE VIEW raw.payments AS SELECT * FROM read_parquet('{source}')")
query = sys.stdin.read()
if verb == "sorted":
    query = f"SELECT * FROM ({query}) ORDER BY ALL"
began, cpu = time.monotonic(), time.process_time()
rows = session.execute(f"COPY ({query}) TO '{target}' {codec}").fetchone()[0]
print(json.dumps({
    "engine": "duckdb, sorted" if verb == "sorted" else "duckdb", "rows": rows, "seconds": time.monotonic() - began,
    "cpu_seconds": time.process_time() - cpu,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "written_bytes": target.stat().st_size,
}))
