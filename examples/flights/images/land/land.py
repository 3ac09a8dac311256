"""Lands the published files as they are: each row of each, every value the text that it was.

What is absent is `NA` there, and stays it. A file whose header is another one is refused whole.
"""

import csv
import os
import pathlib
import sys

EX_DATAERR = 65

COLUMNS = {
    "flights": "year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay carrier "
    "flight tailnum origin dest air_time distance hour minute time_hour",
    "airlines": "carrier name",
    "airports": "faa name lat lon alt tz dst tzone",
    "planes": "tailnum year type manufacturer model engines seats speed engine",
    "weather": "origin year month day hour temp dewp humid wind_dir wind_speed wind_gust precip pressure "
    "visib time_hour",
}

inputs = pathlib.Path(os.environ["BARECOUNT_INPUT_DIR"])
outputs = pathlib.Path(os.environ["BARECOUNT_OUTPUT_DIR"])

for name, columns in COLUMNS.items():
    landed = outputs / f"raw.{name}" / f"{name}.csv"
    landed.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(inputs / name / f"{name}.csv", encoding="utf-8", newline="") as source,
        open(landed, "w", encoding="utf-8", newline="") as target,
    ):
        rows = csv.reader(source, strict=True)
        header = next(rows, [])
        if header != columns.split():
            print(f"{name}.csv begins with {header}", file=sys.stderr)
            sys.exit(EX_DATAERR)
        writer = csv.writer(target)
        writer.writerow(header)
        writer.writerows(rows)
    print(f'{{"message": "landed", "table": "{name}", "rows": {rows.line_num - 1}}}')
