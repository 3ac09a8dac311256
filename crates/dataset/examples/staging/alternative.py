"""What staging is held against: ENGINE FORMAT FOLDER reads the same file on one thread, with the
same types, and writes Parquet with the same compression. Prints one JSON line; nothing where the
engine is not installed."""

import json
import pathlib
import resource
import sys
import time

engine, form, folder = sys.argv[1:]
folder = pathlib.Path(folder)
source = str(next((folder / form).glob("*." + form)))
target = str(folder / f"{engine}.parquet")
TYPES = {
    "id": "BIGINT", "account": "BIGINT", "country": "VARCHAR", "name": "VARCHAR",
    "amount": "DECIMAL(18,2)", "rate": "DOUBLE", "day": "DATE", "at": "TIMESTAMPTZ",
    "paid": "BOOLEAN", "note": "VARCHAR",
}


def now():
    return time.monotonic(), time.process_time()


def elapsed(began):
    return tuple(end - begin for begin, end in zip(began, now()))


def duckdb_copy():
    import duckdb

    session = duckdb.connect()
    session.execute("SET threads = 1; SET TimeZone = 'UTC'")
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in TYPES.items())
    read = {
        "csv": f"read_csv('{source}', header = true, auto_detect = false, columns = {{{types}}})",
        "ndjson": f"read_json('{source}', format = 'newline_delimited', columns = {{{types}}})",
        "parquet": f"read_parquet('{source}')",
    }[form]
    began = now()
    rows = session.execute(
        f"COPY (SELECT * FROM {read}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
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
        frame = polars.scan_csv(source, schema=types)
    elif form == "ndjson":
        texts = {**types, "day": polars.String, "at": polars.String, "amount": polars.Float64}
        frame = polars.scan_ndjson(source, schema=texts).with_columns(
            polars.col("day").str.to_date(),
            polars.col("at").str.to_datetime(time_unit="us", time_zone="UTC"),
        )
    else:
        frame = polars.scan_parquet(source)
    frame.sink_parquet(target, compression="zstd", compression_level=1)
    seconds = elapsed(began)
    return polars.scan_parquet(target).select(polars.len()).collect().item(), seconds


try:
    rows, (seconds, cpu) = {"duckdb": duckdb_copy, "polars": polars_copy}[engine]()
except ModuleNotFoundError:
    sys.exit()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({
    "case": form, "engine": engine, "rows": rows, "seconds": seconds, "cpu_seconds": cpu,
    "rows_per_cpu_second": rows / cpu, "peak_mib": peak,
}))
