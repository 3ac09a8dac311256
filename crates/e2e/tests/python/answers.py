"""What the scripts beside this one share: their arguments, and how they answer."""

import json
import sys
from collections.abc import Callable
from decimal import Decimal


def columns(expression: str) -> str:
    """What is asked of each table: its rows, and the sum of an expression, exactly."""
    return f"count(*) AS found, CAST(sum(CAST({expression} AS DECIMAL(38, 6))) AS VARCHAR) AS total"


def answer(ask: Callable[[str, str], tuple[int, str]]) -> None:
    """Ask for each argument `NAME=PLACE=EXPRESSION`, and print the answers by name as JSON."""
    answers = {}
    for argument in sys.argv[1:]:
        name, place, expression = argument.split("=", 2)
        rows, total = ask(place, columns(expression))
        answers[name] = {"rows": rows, "sum": str(Decimal(total).normalize())}
    json.dump(answers, sys.stdout)
