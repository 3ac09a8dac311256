"""Rows and sums of Delta tables, by DuckDB with its own reader of Delta tables."""

import pathlib

import answers
import duckdb
import duckdb_extension_delta

(extension,) = pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
duckdb.execute(f"LOAD '{extension}'")


def ask(uri: str, columns: str) -> tuple[int, str]:
    return duckdb.execute(f"SELECT {columns} FROM delta_scan(?)", [uri]).fetchone()


answers.answer(ask)
