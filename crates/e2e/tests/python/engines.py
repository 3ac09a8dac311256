"""Holds the engine's figures beside DuckDB's and PostgreSQL's: engines.py ENGINE COUNT SEED

`ENGINE` is the example `figures` of the engine's crate. PostgreSQL is started in a folder of its own,
on a socket in it; it refuses to be root, who makes it nobody. What the three make of each expression
is compared as values: floats may differ by a billionth or by what cancelling leaves, decimals have as many zeros as they like.

Prints how many are equal, and each kind of difference with some of its expressions. The exit status
is 1 if anything differs otherwise than `KNOWN` says of PostgreSQL, and `KNOWN_OF_DUCKDB` of DuckDB.
"""

import contextlib
import itertools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict

import expressions

SHOWN = 5
# Others round at every step: where numbers around one cancel each other, that much of them is left.
CANCELLED = 1e-15

# What PostgreSQL is known to make something else of, as `docs/sql.md` tells: what is looked for in its
# answer and, behind that, in the expression. The first that is found counts.
KNOWN = {
    "PostgreSQL rounds no float to so many digits": r"^error: function round\(double precision, integer\)",
    "PostgreSQL computes what makes no difference, too": r"^error: (bigint out of range|numeric field overflow)",
    "PostgreSQL takes 15 digits of a float for a decimal": r"^'(?s:.*)AS DOUBLE(?s:.*) AS DECIMAL\(20,3\)",
}

# And DuckDB: an operand that makes no difference, as any beside a null, is not computed there.
KNOWN_OF_DUCKDB = {
    "DuckDB does not compute what makes no difference": r"is error: .*(Overflow happened|too large|does not fit)",
}


def as_postgres(expression):
    """The same expression in the words of PostgreSQL."""
    expression = expression.replace("AS DOUBLE)", "AS DOUBLE PRECISION)")
    return re.sub(r"median\((.*?)\) FROM", r"percentile_cont(0.5) WITHIN GROUP (ORDER BY \1) FROM", expression)


@contextlib.contextmanager
def postgres():
    """Answers a function from SQL to the text that `psql` prints of it."""
    newest = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))[-1].parent
    nobody = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        if nobody:
            os.chmod(folder, 0o755)
        home = pathlib.Path(folder) / "home"
        home.mkdir()
        if nobody:
            import pwd

            os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
        data = home / "data"
        quiet = {"stdout": subprocess.DEVNULL, "cwd": home, "env": {"PATH": os.environ["PATH"]}}
        initdb = [newest / "initdb", "-D", data, "-A", "trust", "-U", "figures", "--no-sync"]
        subprocess.run([*initdb, "-E", "UTF8", "--locale", "C.UTF-8"], check=True, **nobody, **quiet)
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "timezone=UTC", "-k", home]
        server = subprocess.Popen(
            [newest / "postgres", "-D", data, *settings], **nobody, **quiet, stderr=subprocess.DEVNULL
        )
        ask = [newest / "psql", "-h", home, "-U", "figures", "-d", "postgres", "-qAtX", "-v", "ON_ERROR_STOP=1"]

        def psql(sql):
            told = subprocess.run(ask, input=sql, check=True, capture_output=True, text=True, cwd=home)
            return told.stdout

        try:
            deadline = time.monotonic() + 60
            while subprocess.run([newest / "pg_isready", "-q", "-h", home]).returncode != 0:
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit("PostgreSQL does not start")
                time.sleep(0.05)
            yield psql
        finally:
            server.terminate()
            server.wait()


VALUE_OF = """
CREATE FUNCTION value_of(expression text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE value text;
BEGIN
    EXECUTE 'SELECT CAST((' || expression || ') AS text)' INTO value;
    RETURN json_build_object('value', value);
EXCEPTION WHEN OTHERS THEN
    RETURN json_build_object('error', SQLERRM);
END $$;
CREATE TABLE expressions (number bigint, expression text);
"""


def of_postgres(figures):
    """PostgreSQL's answers, by two statements for all of them."""

    def copied(text):
        return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")

    rows = enumerate(as_postgres(figure["expression"]) for figure in figures)
    data = "".join(f"{number}\t{copied(expression)}\n" for number, expression in rows)
    with postgres() as psql:
        psql(f"{VALUE_OF}COPY expressions FROM STDIN;\n{data}\\.\n")
        told = psql("SELECT value_of(expression) FROM expressions ORDER BY number;")
    return [json.loads(line) for line in told.splitlines()]


def of_engine(program, figures):
    asked = "".join(json.dumps(figure["expression"]) + "\n" for figure in figures)
    told = subprocess.run([program], input=asked, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in told.splitlines()]


def same(one, other, is_float):
    """Whether two texts are one value."""
    if one is None or other is None:
        return one is other
    if one == other:
        return True
    try:
        first, second = float(one), float(other)
    except ValueError:
        return False
    if is_float:
        apart = abs(first - second)
        return apart <= max(1e-9 * abs(first), CANCELLED) or (math.isnan(first) and math.isnan(second))

    def plain(text):
        return text.rstrip("0").rstrip(".") if "." in text and "e" not in text.lower() else text

    return plain(one) == plain(other)


def said(answer):
    return f"error: {answer['error']}" if "error" in answer else repr(answer["value"])


def compare(name, figures, ours, theirs, known):
    """Prints what differs; answers with how many differ otherwise than is known."""
    equal, kinds = 0, defaultdict(list)
    for figure, own, other in zip(figures, ours, theirs, strict=True):
        answered = "value" in own and "value" in other
        if answered and same(other["value"], own["value"], figure["is_float"]):
            equal += 1
            continue
        if "error" in own and "error" in other:
            equal += 1
            continue
        told = f"{figure['expression']}\n      is {said(own)} here, and {said(other)} there"
        found = (word for word, pattern in known.items() if re.search(pattern, said(other) + "\n" + told))
        kinds[next(found, "")].append(told)
    print(f"{name}: {equal} of {len(figures)} are equal")
    for kind, differing in sorted(kinds.items()):
        print(f"  {len(differing)} differ: {kind or 'NOT KNOWN'}")
        for told in sorted(differing, key=len)[: 1 if kind else SHOWN]:
            print(f"    {told}")
    return len(kinds.get("", []))


def main():
    program, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    figures = list(itertools.islice(expressions.figures(seed), count))
    ours = of_engine(program, figures)
    duckdb = [{"value": figure["value"]} for figure in figures]
    different = compare("DuckDB", figures, ours, duckdb, KNOWN_OF_DUCKDB)
    different += compare("PostgreSQL", figures, ours, of_postgres(figures), KNOWN)
    failed = Counter(answer["error"][:60] for answer in ours if "error" in answer)
    for error, times in failed.most_common(SHOWN):
        print(f"fails here {times} times: {error}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
