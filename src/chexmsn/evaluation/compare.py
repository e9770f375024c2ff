"""Is one model better than another? Paired differences between models that were scored on the same images.

Everything is computed from the scores and labels of result folders. The patients are resampled once for all models,
so every difference is a paired one; its p value comes from the same resamples. One comparison is named before looking
(the primary one); Holm's correction is within it, and within each other set of comparisons that answer one question.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.files import new_folder, refuse_filled, write_atomic
from chexmsn.core.progress import progress
from chexmsn.evaluation.areas import area_of, families, family_of, mean_of
from chexmsn.evaluation.cohort import LEVEL, MACRO
from chexmsn.evaluation.comparison_plan import AREA, DROPS, CompareConfig, Plan
from chexmsn.evaluation.conditions import CLEAN, Condition
from chexmsn.evaluation.measures import RANKING, Ranking, where_skilled
from chexmsn.evaluation.notes import FEW, NO_LOSS, RARE, UNSKILLED
from chexmsn.evaluation.repetitions import Model, Pooled, Scores
from chexmsn.metrics.bootstrap import FEWEST_PATIENTS, percentile_interval
from chexmsn.metrics.covariance import clustered_covariance, z_test
from chexmsn.metrics.degradation import (
    above_chance_drop,
    area_under_degradation,
    corruption_error,
    relative_corruption_error,
)
from chexmsn.metrics.multiple import benjamini_hochberg, holm
from chexmsn.metrics.paired import paired_difference
from chexmsn.training.run_folder import open_run, write_record

log = logging.getLogger(__name__)

KIND = "comparison"
ERRORS = {
    "corruption_error": lambda curve, reference: corruption_error(curve[..., 1:], reference[..., 1:]),
    "relative_corruption_error": relative_corruption_error,
}
MODELS = (
    *("model", "group", "corruption", "severity", "finding", "metric", "value", "low", "high"),
    *("runs", "spread", "note"),
)
COMPARISON = (
    *("group", "a", "b", "corruption", "severity", "finding", "metric", "value_a", "value_b"),
    *("difference", "low", "high", "p", "p_holm", "q", "delong_p", "family", "primary", "note"),
)


class Comparison(NamedTuple):
    """The two tables of a comparison, as docs/architecture.md describes them."""

    models: pd.DataFrame
    differences: pd.DataFrame


def compare(config: CompareConfig) -> Path:
    """Compare models that were tested on the same images; returns the folder of the comparison.

    The same models and options again: nothing to do. The folder is there when it is whole, and not before.

    Raises:
        UserError: fewer than two models; runs on other images, labels, findings or conditions, saying which; a
            primary comparison or reference that is not there; a folder of another comparison.
    """
    plan = Plan.open(config)
    if _is_there(plan):
        log.info("%s is finished: nothing to do", config.out)
        return config.out
    refuse_filled(config.out)
    tables = compared(plan)
    with new_folder(config.out) as place:
        _write(tables, plan, place)
    return config.out


def _is_there(plan: Plan) -> bool:
    """Whether this comparison was made before. Raises UserError for another one, and for half a one."""
    out = plan.config.out
    if not (out / "run.json").is_file():
        return False
    if not open_run(out, KIND, plan.asked, plan.facts).finished:
        raise UserError(f"{out} holds a comparison that an earlier version left unfinished: remove it, or name another")
    return True


def _write(tables: Comparison, plan: Plan, place: Path) -> None:
    for name, table in (("models", tables.models), ("comparison", tables.differences)):
        write_atomic(place / f"{name}.parquet", lambda path, table=table: table.to_parquet(path, index=False))
        write_atomic(place / f"{name}.csv", lambda path, table=table: table.to_csv(path, index=False))
    sizes = families_of(tables.differences)
    facts = plan.facts | {"families": sizes, "notes": notes(plan, sizes)}
    write_record(place, KIND, plan.asked, facts, status="finished")


def compared(plan: Plan) -> Comparison:
    """Both tables of a comparison."""
    models, differences = [], []
    for measured in _measured(plan):
        models.append(_of_models(measured, plan))
        if measured.metric in ERRORS:  # they are told against the reference already
            continue
        delong = _delong(measured, plan)
        differences += [_difference(measured, a, b, plan).assign(delong_p=delong(a, b)) for a, b in plan.pairs]
    table = _corrected(pd.concat(differences, ignore_index=True), plan.primary)
    return Comparison(pd.concat(models, ignore_index=True)[list(MODELS)], table[list(COMPARISON)])


class Measured(NamedTuple):
    """One metric under one condition, or over a ladder of them (severity NaN), of every model."""

    corruption: str
    severity: float
    metric: str
    of: dict[str, Pooled]
    rankings: Mapping[str, Ranking] = MappingProxyType({})  # of models of one run, for DeLong's test

    def holds(self, condition: Condition) -> bool:
        """Whether it is about this condition, or about its corruption or its family."""
        if pd.notna(self.severity):
            return condition == Condition(self.corruption, self.severity)
        return condition != CLEAN and self.corruption in (condition.corruption, family_of(condition.corruption))


def _measured(plan: Plan) -> Iterator[Measured]:
    """Everything that models are compared by, corruption by corruption, so that few scores are held at once."""
    over_ladders = []
    bar = progress(plan.ladders.items(), total=len(plan.ladders), title="comparison", unit="corruption")
    for corruption, ladder in bar:
        under = _under(corruption, ladder, plan)
        yield from (measured for condition in ladder for measured in under[condition].values())
        rankings = [under[condition]["auroc"] for condition in ladder]
        if corruption == CLEAN.corruption:
            (clean,) = rankings
            continue
        yield from (drop for corrupted in rankings for drop in _drops(clean, corrupted))
        of_ladder = [_area(corruption, [clean, *rankings], plan), *_errors(corruption, [clean, *rankings], plan)]
        yield from of_ladder
        over_ladders += of_ladder
    yield from _families(over_ladders, plan)


def _under(corruption: str, ladder: Sequence[Condition], plan: Plan) -> dict[Condition, dict[str, Measured]]:
    """The ranking metrics under each condition of a corruption."""
    scores = {model.name: model.scores(corruption, plan.sets) for model in plan.models}
    return {condition: {metric: _metric(condition, metric, scores) for metric in RANKING} for condition in ladder}


def _metric(condition: Condition, metric: str, scores: Mapping[str, Scores]) -> Measured:
    of = {name: of_model.pooled(condition, RANKING[metric]) for name, of_model in scores.items()}
    alone = {name: array for name, of_model in scores.items() if (array := of_model.alone(condition)) is not None}
    return Measured(condition.corruption, condition.severity, metric, of, alone if metric == "auroc" else {})


def _drops(clean: Measured, corrupted: Measured) -> Iterator[Measured]:
    for name, drop in DROPS.items():
        of = {model: Pooled(*map(drop, clean.of[model], corrupted.of[model])) for model in clean.of}
        if drop is above_chance_drop:
            of = {model: where_skilled(found, clean.of[model], 0.5) for model, found in of.items()}
        yield Measured(corrupted.corruption, corrupted.severity, name, of)


def _curve(corruption: str, points: Sequence[Measured], model: Model, plan: Plan) -> dict[float, Pooled]:
    """A model's values by severity, where the corruption applies to all of its group that it applies to at all."""
    shared = plan.grounds[model.group].conditions[corruption]
    clean, *degraded = points
    kept = [point for point in degraded if Condition(corruption, point.severity) in shared] if shared else degraded
    return {point.severity: point.of[model.name] for point in (clean, *kept)}


def _area(corruption: str, points: Sequence[Measured], plan: Plan) -> Measured:
    of = {}
    for model in plan.models:
        curve = _curve(corruption, points, model, plan)
        of[model.name] = area_of(area_under_degradation, list(curve), list(curve.values()))
    return Measured(corruption, np.nan, AREA, of)


def _errors(corruption: str, points: Sequence[Measured], plan: Plan) -> Iterator[Measured]:
    """The errors under a corruption as multiples of the reference's; none where no reference is named."""
    for reference in (model for model in plan.models if model.name == plan.config.reference):
        curves = {
            m.name: _stacked(_curve(corruption, points, m, plan)) for m in plan.models if m.group == reference.group
        }
        theirs = curves[reference.name]
        for name, error in ERRORS.items():
            of = {
                model: Pooled(
                    error(c.value, theirs.value), error(c.samples, theirs.samples), error(c.runs, theirs.value)
                )
                for model, c in curves.items()
            }
            yield Measured(corruption, np.nan, name, of)


def _stacked(curve: Mapping[float, Pooled]) -> Pooled:
    """The parts of a curve's estimates, the severities on the last axis."""
    return Pooled(*(np.stack(parts, axis=-1) for parts in zip(*curve.values(), strict=True)))


def _families(over_ladders: Sequence[Measured], plan: Plan) -> Iterator[Measured]:
    """The means over each family of corruptions, of those that apply to all models of a group."""
    for metric in dict.fromkeys(measured.metric for measured in over_ladders):
        of = {measured.corruption: measured.of for measured in over_ladders if measured.metric == metric}
        for family, names in families(of).items():
            told = [model for model in plan.models if model.name in of[names[0]]]
            means = {model.name: _mean(model, [of[name][model.name] for name in names], names, plan) for model in told}
            yield Measured(family, np.nan, metric, means)


def _mean(model: Model, members: Sequence[Pooled], names: Sequence[str], plan: Plan) -> Pooled:
    """The mean over the corruptions that a group shares; NaN throughout where it shares none."""
    shared = plan.grounds[model.group].families[family_of(names[0])]
    kept = [member for name, member in zip(names, members, strict=True) if name in shared]
    return mean_of(kept) if kept else Pooled(*(np.full_like(part, np.nan) for part in members[0]))


def _of_models(measured: Measured, plan: Plan) -> pd.DataFrame:
    """Rows of the table of models."""
    told = [_of_model(measured, model, plan) for model in plan.models if model.name in measured.of]
    return pd.concat(told, ignore_index=True)


def _of_model(measured: Measured, model: Model, plan: Plan) -> pd.DataFrame:
    estimate = measured.of[model.name]
    low, high = percentile_interval(estimate.samples, LEVEL, undefined_at_most=plan.sets.undefined_at_most)
    spread = np.full_like(estimate.value, np.nan) if model.repetitions == 1 else estimate.runs.std(axis=0, ddof=1)
    rows = _rows(measured, plan).assign(model=model.name, group=model.group, runs=model.repetitions)
    return rows.assign(
        value=estimate.value, low=low, high=high, spread=spread, note=_notes(measured, (model,), plan, low)
    )


def _difference(measured: Measured, a: Model, b: Model, plan: Plan) -> pd.DataFrame:
    """Rows of the table of differences."""
    first, second = measured.of[a.name], measured.of[b.name]
    found = paired_difference(
        first.value - second.value,
        first.samples - second.samples,
        LEVEL,
        undefined_at_most=plan.sets.undefined_at_most,
    )
    rows = _rows(measured, plan).assign(group=a.group, a=a.name, b=b.name, value_a=first.value, value_b=second.value)
    note = _notes(measured, (a, b), plan, found.low)
    return rows.assign(difference=found.value, low=found.low, high=found.high, p=found.p, note=note)


def _notes(measured: Measured, models: Sequence[Model], plan: Plan, low: np.ndarray) -> list[str]:
    """Why a number of these models or its interval is missing, macro first; empty where nothing is."""
    no_interval = np.where(plan.sets.patients_of < FEWEST_PATIENTS, FEW, NO_LOSS if measured.metric in ERRORS else RARE)
    each = zip(*(_without_value(measured, model, plan) for model in models), strict=True)
    no_value = ["; ".join(dict.fromkeys(filter(None, reasons))) for reasons in each]
    return ["" if pd.notna(end) else why or bare for end, why, bare in zip(low, no_value, no_interval, strict=True)]


def _without_value(measured: Measured, model: Model, plan: Plan) -> list[str]:
    values = zip(measured.of[model.name].value, plan.sets.has_value.tolist(), strict=True)
    return ["" if pd.notna(value) else _no_value(measured, model, plan, ranks) for value, ranks in values]


def _no_value(measured: Measured, model: Model, plan: Plan, ranks: bool) -> str:
    tested = [condition for condition in plan.conditions if measured.holds(condition)]
    if not any(model.applies(condition) for condition in tested):
        return f"does not apply to {model.name}"
    if not ranks:
        return "no positives or no negatives among the labelled images"
    if measured.metric == "above_chance_drop":
        return f"{UNSKILLED} ({model.name})"
    if measured.metric in ERRORS:
        return f"the reference {plan.config.reference} loses nothing there, or it does not apply to all models"
    return "no condition of it applies to all models" if measured.metric == AREA else ""


def _delong(measured: Measured, plan: Plan) -> Callable[[Model, Model], np.ndarray]:
    """The p values of two models: NaN for macro, which needs the covariance of findings, and for repeated runs."""
    order = {name: k for k, name in enumerate(measured.rankings)}
    nothing = np.full(1 + len(plan.sets.findings), np.nan)
    if len(order) < 2:
        return lambda a, b: nothing
    (cohort,) = plan.sets.cohorts
    covariance = clustered_covariance(np.stack(list(measured.rankings.values())), cohort.labels, cohort.patients)

    def p(a: Model, b: Model) -> np.ndarray:
        if {a.name, b.name} - set(order):
            return nothing
        return np.append(np.nan, z_test(covariance, order[a.name], order[b.name]).p)

    return p


def _corrected(table: pd.DataFrame, primary: str) -> pd.DataFrame:
    """The table with the sets of comparisons that are corrected together, by Holm and by Benjamini and Hochberg."""
    chosen_before = _is_primary(table, primary)
    question = np.where(chosen_before, "primary", table["metric"] + np.where(_is_macro(table), ", macro", ", findings"))
    family = table["group"].where(table["group"] == "", table["group"] + ": ") + question
    p = table.groupby(family)["p"]
    adjusted = {"p_holm": p.transform(_by(holm)), "q": p.transform(_by(benjamini_hochberg))}
    return table.assign(primary=chosen_before, family=family, **adjusted)


def _by(correction: Callable[[np.ndarray], np.ndarray]) -> Callable[[pd.Series], np.ndarray]:
    return lambda p: correction(p.to_numpy())


def _is_macro(table: pd.DataFrame) -> pd.Series:
    return table["finding"] == MACRO


def _is_primary(table: pd.DataFrame, primary: str) -> pd.Series:
    """The rows that a primary comparison such as relative_drop@tokens-removed:0.7 is about."""
    metric, _, place = primary.partition("@")
    corruption, _, severity = place.partition(":")
    rows = _is_macro(table) & (table["metric"] == metric)
    if place:
        rows &= table["corruption"] == corruption
    elif metric == AREA:
        rows &= table["corruption"].isin([family_of(name) for name in table["corruption"].unique()])
    if severity:
        rows &= np.isclose(table["severity"], pd.to_numeric(severity, errors="coerce"))
    return rows


def families_of(differences: pd.DataFrame) -> dict[str, int]:
    """How many comparisons each set that is corrected together holds."""
    return {str(name): int(p.notna().sum()) for name, p in differences.groupby("family", sort=False)["p"]}


def notes(plan: Plan, sizes: Mapping[str, int]) -> list[str]:
    """What a reader of the tables must know, in sentences."""
    told = [
        "Intervals and p values are from resamples of the patients, shared by all models. They say how sure the "
        "difference of these trained models is, not what another training would give; that is the spread over runs.",
        "p_holm is corrected within each family of comparisons; everything outside the primary one is description.",
        "q, for exploring a family, bounds the share of false claims in it (Benjamini and Hochberg).",
        "delong_p is DeLong's test for a single finding, in Obuchowski's form for several images of one patient.",
    ]
    told += [_of_group(group) + note for group, ground in plan.grounds.items() for note in ground.notes]
    if plan.config.reference is not None:
        told.append(
            f"corruption_error is 1 - AUROC over the severities as a multiple of that of {plan.config.reference}; the "
            "relative one is so of what is added to the clean error, and means little where the reference hardly drops."
        )
    short = [name for name, count in sizes.items() if count / (plan.config.resamples + 1) > 1 - LEVEL]
    if short:
        told.append(
            f"No p value is below 1 / {plan.config.resamples + 1}, so nothing can stay below {1 - LEVEL:.2g} after "
            f"correction in {'; '.join(short)}: give more --resamples or compare less."
        )
    return told


def _of_group(group: str) -> str:
    return f"{group}: " if group else ""


def _rows(measured: Measured, plan: Plan) -> pd.DataFrame:
    about = {"corruption": measured.corruption, "severity": measured.severity, "metric": measured.metric}
    return pd.DataFrame({"finding": [MACRO, *plan.sets.findings]}).assign(**about)
