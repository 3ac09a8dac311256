"""Rows and sums of Delta tables, by the Python package `deltalake`."""

import answers
import deltalake


def ask(uri: str, columns: str) -> tuple[int, str]:
    engine = deltalake.QueryBuilder().register("committed", deltalake.DeltaTable(uri))
    answer = engine.execute(f"SELECT {columns} FROM committed").read_all()
    return answer["found"][0].as_py(), answer["total"][0].as_py()


answers.answer(ask)
