"""From scores and labels to every table of results.

Everything is computed from two tables, so that results can be repeated, and other resamples, intervals or findings be
tried, without the model.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from chexmsn.core.files import write_atomic
from chexmsn.core.progress import progress
from chexmsn.evaluation.areas import areas_table
from chexmsn.evaluation.bands import bands_table
from chexmsn.evaluation.calibration import are_probabilities, calibration_table, reliability_table
from chexmsn.evaluation.cohort import Cohort, Resampling
from chexmsn.evaluation.conditions import Condition
from chexmsn.evaluation.measures import RANKING, read_cells
from chexmsn.evaluation.operating import operating_table
from chexmsn.evaluation.results import results_table
from chexmsn.evaluation.subgroups import differences_table, groups_of, subgroups_table

TABLES = ("results", "calibration", "reliability", "operating", "subgroups", "group_differences", "areas", "bands")


def judged(
    scores: pd.DataFrame,
    labels: pd.DataFrame,
    resampling: Resampling,
    *,
    model: str,
    conditions: Sequence[Condition],
    not_applicable: Mapping[Condition, str],
    seen: Collection[str],
    thresholds: Mapping[str, float],
) -> dict[str, pd.DataFrame]:
    """Every table that there can be, by its name; docs/architecture.md describes them.

    Calibration needs probabilities, operating points need thresholds.

    Args:
        scores: `scores.parquet`: image_key, corruption, severity, repeat, one `score:<Finding>` per finding.
        labels: `labels.parquet`: image_key, patient_id, one `label:<Finding>` per finding (1, 0; NaN is left out).
        resampling: how the intervals come about.
        model: what tables and figures call the model.
        conditions: those of the table of results, the clean one among them.
        not_applicable: conditions that do not apply to this model, each with the reason.
        seen: the corruptions that the model was trained on.
        thresholds: from which score on each finding counts as present; a finding may have none.

    Raises:
        UserError: scores and labels are not of the same images and findings; nothing to rank.
    """
    cohort = Cohort.of(labels, resampling)
    cells = read_cells(scores, cohort)
    bar = progress(cells.items(), total=len(cells), title="statistics", unit="condition")
    estimates = {c: {name: measure.estimate(r, cohort) for name, measure in RANKING.items()} for c, r in bar}
    about = {"model": model, "not_applicable": not_applicable, "seen": seen}
    auroc, groups = {c: of["auroc"] for c, of in estimates.items()}, cache(lambda: groups_of(cells, cohort))
    tables: dict[str, Callable[[], pd.DataFrame]] = {
        "results": lambda: results_table(estimates, cohort, conditions, **about)
    }
    if are_probabilities(cells):
        tables["calibration"] = lambda: calibration_table(cells, cohort, model)
        tables["reliability"] = lambda: reliability_table(cells, cohort, model)
    if thresholds:
        tables["operating"] = lambda: operating_table(cells, cohort, model, thresholds)
    tables["subgroups"] = lambda: subgroups_table(groups(), model)
    tables["group_differences"] = lambda: differences_table(groups(), cohort, model)
    tables["areas"] = lambda: areas_table(auroc, cohort, model)
    tables["bands"] = lambda: bands_table(auroc, cohort, model)
    made = progress(tables.items(), total=len(tables), title="tables", unit="table")
    return {name: make() for name, make in made}


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the tables of a result folder; a table of an earlier judgement that is not among them goes."""
    for name in TABLES:
        if name in tables:
            write_table(tables[name], folder / f"{name}.parquet")
        else:
            (folder / f"{name}.parquet").unlink(missing_ok=True)
    write_atomic(folder / "results.csv", lambda path: tables["results"].to_csv(path, index=False))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write one table, whole or not at all."""
    write_atomic(path, lambda temporary: table.to_parquet(temporary, index=False))
