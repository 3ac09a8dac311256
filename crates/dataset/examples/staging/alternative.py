"""What staging is held against: ENGINE FORMAT FOLDER reads the same file on one thread into the same
types, fails where a column that must not be null is, or a country is not of two capitals, and writes
Parquet with the same codec at the same level. Prints one JSON line."""

import json
import pathlib
import resource
import sys
import time

engine, form, folder = sys.argv[1:]
folder = pathlib.Path(folder)
source = str(next((folder / form).glob("*." + form)))
target = folder / f"{engine}.parquet"
TYPES = {
    "id": "BIGINT", "account": "BIGINT", "country": "VARCHAR", "name": "VARCHAR",
    "amount": "DECIMAL(18,2)", "rate": "DOUBLE", "day": "DATE", "at": "TIMESTAMPTZ",
    "paid": "BOOLEAN", "note": "VARCHAR",
}
NULLABLE = {"rate", "note"}


def now():
    return time.monotonic(), time.process_time()


def elapsed(began):
    return tuple(end - begin for begin, end in zip(began, now()))


def duckdb_copy():
    import duckdb

    session = duckdb.connect()
    session.execute("SET enable_progress_bar = false; SET threads = 1; SET TimeZone = 'UTC'")
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in TYPES.items())
    read = {
        "csv": f"read_csv('{source}', header = true, auto_detect = false, columns = {{{types}}})",
        "ndjson": f"read_json('{source}', format = 'newline_delimited', columns = {{{types}}})",
        "parquet": f"read_parquet('{source}')",
    }[form]

    def checked(name):
        quoted = f'"{name}"'
        if name in NULLABLE:
            return quoted
        holds = f"{quoted} IS NOT NULL"
        if name == "country":
            holds += f" AND regexp_full_match({quoted}, '[A-Z]{{2}}')"
        return f"CASE WHEN {holds} THEN {quoted} ELSE error('{name}') END AS {quoted}"

    columns = ", ".join(checked(name) for name in TYPES)
    began = now()
    rows = session.execute(
        f"COPY (SELECT {columns} FROM {read}) TO '{target}'"
        " (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    ).fetchone()[0]
    return rows, elapsed(began)


def polars_copy():
    import polars

    types = {
        "id": polars.Int64, "account": polars.Int64, "country": polars.String,
        "name": polars.String, "amount": polars.Decimal(18, 2), "rate": polars.Float64,
        "day": polars.Date, "at": polars.Datetime("us", "UTC"), "paid": polars.Boolean,
        "note": polars.String,
    }
    began = now()
    if form == "csv":
        frame = polars.scan_csv(source, schema={**types, "at": polars.String}).with_columns(
            polars.col("at").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", time_zone="UTC")
        )
    elif form == "ndjson":
        # It reads no decimals from JSON, and so does less: the amount passes through a float.
        texts = {**types, "day": polars.String, "at": polars.String, "amount": polars.Float64}
        frame = polars.scan_ndjson(source, schema=texts).with_columns(
            polars.col("day").str.to_date("%Y-%m-%d"),
            polars.col("at").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", time_zone="UTC"),
            polars.col("amount").cast(polars.Decimal(18, 2)),
        )
    else:
        frame = polars.scan_parquet(source)
    required = [name for name in TYPES if name not in NULLABLE]
    wrong = polars.any_horizontal(
        *(polars.col(name).is_null() for name in required),
        ~polars.col("country").str.contains("^[A-Z]{2}$"),
    )
    # Both are computed in one pass over the file.
    written, counted = (
        frame.sink_parquet(target, compression="zstd", compression_level=1, lazy=True),
        frame.select(rows=polars.len(), wrong=wrong.sum()),
    )
    counted = polars.collect_all([written, counted], engine="streaming")[1]
    rows, wrong = counted.row(0)
    if wrong:
        sys.exit(f"{wrong} rows do not fit")
    return rows, elapsed(began)


rows, (seconds, cpu) = {"duckdb": duckdb_copy, "polars": polars_copy}[engine]()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({
    "case": form, "engine": engine, "rows": rows, "seconds": seconds, "cpu_seconds": cpu,
    "rows_per_cpu_second": rows / cpu, "peak_mib": peak, "written_bytes": target.stat().st_size,
}))
