"""Makes typed rows of what was landed: `NA` is nothing, numbers are numbers, days are days.

An airport without a time zone is set aside: the coordinates of those that there are lie elsewhere.
"""

import csv
import json
import os
import pathlib

# In miles. Flights that go less far are not looked at.
SHORTEST = 0

inputs = pathlib.Path(os.environ["BARECOUNT_INPUT_DIR"])
outputs = pathlib.Path(os.environ["BARECOUNT_OUTPUT_DIR"])
set_aside = []


def known(text):
    return "" if text == "NA" else text


def day(row):
    return f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"


def flight(row):
    if int(row["distance"]) < SHORTEST:
        return None
    return {
        "month": day(row)[:7],
        "day": day(row),
        "hour": row["time_hour"],
        "carrier": row["carrier"],
        "flight": row["flight"],
        "tailnum": known(row["tailnum"]),
        "origin": row["origin"],
        "dest": row["dest"],
        "dep_delay": known(row["dep_delay"]),
        "arr_delay": known(row["arr_delay"]),
        "air_time": known(row["air_time"]),
        "distance": row["distance"],
        "cancelled": "true" if row["dep_time"] == "NA" else "false",
    }


def airline(row):
    return row


def airport(row):
    if row["tzone"] == "NA":
        set_aside.append({"dataset": "gdp.airports", "record": row, "error": "it has no time zone"})
        return None
    return {"faa": row["faa"], "name": row["name"], "altitude": row["alt"], "zone": row["tzone"]}


def plane(row):
    return {
        "tailnum": row["tailnum"],
        "year": known(row["year"]),
        "manufacturer": row["manufacturer"],
        "model": row["model"],
        "seats": row["seats"],
    }


def weather(row):
    names = {"precip": "precipitation", "visib": "visibility", "temp": "temperature"}
    return {
        "origin": row["origin"],
        "hour": row["time_hour"],
        **{name: known(row[short]) for short, name in names.items()},
    }


for table, clean in {
    "flights": flight,
    "airlines": airline,
    "airports": airport,
    "planes": plane,
    "weather": weather,
}.items():
    target = outputs / f"gdp.{table}" / f"{table}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = None
        for source in sorted((inputs / f"raw.{table}").rglob("*.csv")):
            with open(source, encoding="utf-8", newline="") as landed:
                for row in csv.DictReader(landed, strict=True):
                    row = clean(row)
                    if row is None:
                        continue
                    if writer is None:
                        writer = csv.DictWriter(file, row.keys())
                        writer.writeheader()
                    writer.writerow(row)

if set_aside:
    letters = outputs / "_dead_letters" / "airports.jsonl"
    letters.parent.mkdir(parents=True, exist_ok=True)
    letters.write_text("".join(json.dumps(letter) + "\n" for letter in set_aside), encoding="utf-8")
