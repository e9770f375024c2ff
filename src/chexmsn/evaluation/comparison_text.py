"""A comparison as a table to read in a terminal."""

import pandas as pd

from chexmsn.evaluation.cohort import MACRO


def in_text(models: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The primary comparison: the models' values, the best first, and below them their differences, surest first."""
    primary = differences[differences["primary"]]
    asked = primary[["group", "metric", "corruption", "severity"]].drop_duplicates()
    return "\n\n".join(_one(models, primary, question) for question in asked.to_dict("records"))


def _one(models: pd.DataFrame, primary: pd.DataFrame, question: dict) -> str:
    values, pairs = (_answering(table, question) for table in (models[models["finding"] == MACRO], primary))
    values = values.sort_values("value", ascending=False)
    pairs = pairs.sort_values(["p", "a", "b"])
    where = question["corruption"] + ("" if pd.isna(question["severity"]) else f" {question['severity']:g}")
    title = f"macro {question['metric']}, {where}" + (f", {question['group']}" if question["group"] else "")
    return "\n".join([title, _shown(_values(values)), _shown(_pairs(pairs))])


def _answering(table: pd.DataFrame, question: dict) -> pd.DataFrame:
    same = [(table[name] == value) | (pd.isna(value) & table[name].isna()) for name, value in question.items()]
    return table[pd.concat(same, axis=1).all(axis=1)]


def _values(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {"model": table["model"], "value": table["value"].map(_number), "95 % interval": _interval(table)}
        | {"runs": table["runs"].astype(str), "spread": table["spread"].map(_number)}
        | _note(table)
    )


def _pairs(table: pd.DataFrame) -> pd.DataFrame:
    names = table["a"] + " - " + table["b"]
    return pd.DataFrame(
        {"difference": names, "value": table["difference"].map(_signed), "95 % interval": _interval(table, _signed)}
        | {"p": table["p"].map(_p), "p (Holm)": table["p_holm"].map(_p)}
        | _note(table)
    )


def _note(table: pd.DataFrame) -> dict[str, pd.Series]:
    """The column that says why something is missing, where something is."""
    return {"note": table["note"]} if (table["note"] != "").any() else {}


def _interval(table: pd.DataFrame, number=None) -> list[str]:
    number = number or _number
    return [
        "none" if pd.isna(low) else f"{number(low)} to {number(high)}"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}"


def _signed(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:+.3f}"


def _p(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.4f}"


def _shown(table: pd.DataFrame) -> str:
    """Columns as wide as they must be, the first to the left."""
    rows = [list(table.columns), *table.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join(lines)
