"""Is one model better than another? Paired differences between models that were scored on the same images.

Everything is computed from the scores and labels of result folders. The patients are resampled once for all models,
so every difference is a paired one; its p value comes from the same resamples. One comparison is named before looking
(the primary one); Holm's correction is within it, and within each other set of comparisons that answer one question.
"""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.files import write_atomic
from chexmsn.core.limits import check_limits
from chexmsn.core.progress import progress
from chexmsn.evaluation.areas import area_of, family_of, over_families
from chexmsn.evaluation.cohort import LEVEL, MACRO, findings_of
from chexmsn.evaluation.conditions import CLEAN, Condition, chosen
from chexmsn.evaluation.measures import RANKING, Ranking
from chexmsn.evaluation.repetitions import Model, Pooled, Scores, TestSets, models_of
from chexmsn.evaluation.runs import SCHEMA_VERSION, ScoredRun, find_runs
from chexmsn.metrics.bootstrap import percentile_interval
from chexmsn.metrics.covariance import clustered_covariance, z_test
from chexmsn.metrics.degradation import above_chance_drop, absolute_drop, area_under_degradation, relative_drop
from chexmsn.metrics.multiple import holm
from chexmsn.metrics.paired import paired_difference
from chexmsn.training.run_folder import open_run

log = logging.getLogger(__name__)

DROPS = {"absolute_drop": absolute_drop, "relative_drop": relative_drop, "above_chance_drop": above_chance_drop}
AREA = "area"
MODELS = ("model", "group", "corruption", "severity", "finding", "metric", "value", "low", "high", "runs", "spread")
COMPARISON = (
    *("group", "a", "b", "corruption", "severity", "finding", "metric", "value_a", "value_b"),
    *("difference", "low", "high", "p", "p_holm", "delong_p", "family", "primary"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """A comparison of models.

    Attributes:
        runs: result folders of `chexmsn stress` or `chexmsn probe`, or folders that hold such folders. Runs of one name
            are repetitions of one model.
        out: folder of the comparison.
        reference: model that all others are compared with; every pair is compared when empty.
        within: separator in the models' names; only models that have the same text after it are compared, such as
            "msn, probe" and "mae, probe" with ", ".
        primary: the comparison decided on beforehand, of macro values: a metric, and after @ a condition or corruption,
            such as relative_drop@tokens-removed:0.7. The area under the degradation curve over each family of
            corruptions when empty, the clean AUROC where nothing else was tested.
        findings: those to compare on; all when empty.
        conditions: grids, corruptions or single conditions to compare under; all when empty.
        resamples: how often the patients are resampled; no p value is below 1 / (resamples + 1).
        seed: the resamples follow from it.
    """

    runs: tuple[Path, ...]
    out: Path
    reference: str | None = None
    within: str | None = None
    primary: str | None = None
    findings: tuple[str, ...] | None = None
    conditions: tuple[str, ...] | None = None
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, resamples="[1, inf)")


class Comparison(NamedTuple):
    """The two tables of a comparison, as docs/architecture.md describes them."""

    models: pd.DataFrame
    differences: pd.DataFrame


def compare(config: CompareConfig) -> Path:
    """Compare models that were tested on the same images; returns the folder of the comparison.

    The same models and options again: nothing to do.

    Raises:
        UserError: fewer than two models; runs on other images, labels, findings or conditions, saying which; a
            primary comparison or reference that is not there; a folder of another comparison.
    """
    plan = Plan.open(config)
    run = open_run(config.out, "comparison", plan.asked, plan.facts)
    if run.finished:
        log.info("%s is finished: nothing to do", run.path)
        return run.path
    with run.alone():
        tables = compared(plan)
        for name, table in (("models", tables.models), ("comparison", tables.differences)):
            write_atomic(run.path / f"{name}.parquet", lambda path, table=table: table.to_parquet(path, index=False))
            write_atomic(run.path / f"{name}.csv", lambda path, table=table: table.to_csv(path, index=False))
        families = families_of(tables.differences)
        run.update(status="finished", families=families, notes=notes(plan, families))
    return run.path


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration asks for, opened and checked.

    Attributes:
        config: the configuration.
        models: the models, each with its runs.
        sets: the test sets.
        conditions: those of all runs, the clean one first.
        primary: the comparison decided on beforehand.
    """

    config: CompareConfig
    models: tuple[Model, ...]
    sets: TestSets
    conditions: tuple[Condition, ...]
    primary: str

    @classmethod
    def open(cls, config: CompareConfig) -> "Plan":
        """Open everything. Raises UserError as `compare` does."""
        runs = find_runs(config.runs)
        _check_findings(config.findings, runs)
        runs = [run.only(config.findings, _wanted(config.conditions, runs)) for run in runs]
        models, tables = models_of(runs, config.within)
        _check_pairs(models, config)
        sets = TestSets.of(tables, resamples=config.resamples, seed=config.seed)
        conditions = tuple(dict.fromkeys([CLEAN, *runs[0].conditions]))
        primary = config.primary or (AREA if len(conditions) > 1 else "auroc@clean")
        _check_primary(primary, conditions)
        return cls(config, tuple(models), sets, conditions, primary)

    @property
    def pairs(self) -> list[tuple[Model, Model]]:
        """The pairs to compare: of the same group, with the reference second where there is one."""
        reference = self.config.reference
        pairs = (
            itertools.combinations(self.models, 2)
            if reference is None
            else ((model, other) for other in self.models if other.name == reference for model in self.models)
        )
        return [(a, b) for a, b in pairs if a.group == b.group and a is not b]

    @property
    def ladders(self) -> dict[str, list[Condition]]:
        """The conditions of each corruption, by severity."""
        ordered = sorted(self.conditions, key=lambda condition: condition.severity)
        names = dict.fromkeys(condition.corruption for condition in self.conditions)
        return {name: [condition for condition in ordered if condition.corruption == name] for name in names}

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the results: the options, and the runs by what they hold."""
        named = ("reference", "within", "findings", "conditions", "resamples", "seed")
        runs = {model.name: sorted(run.content for of_set in model.runs for run in of_set) for model in self.models}
        return {"runs": runs, "primary": self.primary, **{name: getattr(self.config, name) for name in named}}

    @property
    def facts(self) -> dict[str, Any]:
        """What the record says beyond the configuration."""
        return {
            "schema_version": SCHEMA_VERSION,
            "models": [
                {"name": m.name, "group": m.group, "runs": [_about(run) for of_set in m.runs for run in of_set]}
                for m in self.models
            ],
            "test_sets": [
                {
                    "images": len(cohort.table),
                    "patients": len(np.unique(cohort.patients)),
                    "findings": [f for f, used in zip(cohort.findings, cohort.in_macro, strict=True) if used],
                    "left_out": cohort.left_out,
                }
                for cohort in self.sets.cohorts
            ],
            "conditions": [vars(condition) for condition in self.conditions],
            "primary": self.primary,
            **{name: getattr(self.config, name) for name in ("resamples", "seed")},
            "level": LEVEL,
        }


def _check_findings(names: Sequence[str] | None, runs: Sequence[ScoredRun]) -> None:
    known = dict.fromkeys(name for run in runs for name in findings_of(run.labels))
    if unknown := [name for name in names or () if name not in known]:
        raise UserError(f"no run tells {', '.join(unknown)}: choose the findings from {', '.join(known)}")


def _wanted(names: Sequence[str] | None, runs: Sequence[ScoredRun]) -> tuple[Condition, ...] | None:
    """The conditions behind names; None for all."""
    if names is None:
        return None
    tested = dict.fromkeys(condition for run in runs for condition in run.conditions)
    return tuple(dict.fromkeys([CLEAN, *(condition for name in names for condition in _tested(name, tested))]))


def _tested(name: str, tested: Iterable[Condition]) -> list[Condition]:
    """The tested conditions of a name: a run's own, which may come from a table of scores, or that of a grid."""
    if own := [c for c in tested if name in (c.corruption, f"{c.corruption}:{c.severity:g}")]:
        return own
    if found := [c for c in chosen([name])[1:] if c in tested]:
        return found
    known = dict.fromkeys(condition.corruption for condition in tested)
    raise UserError(f"no run was tested under {name}: choose the conditions from {', '.join(known)}")


def _about(run) -> dict[str, Any]:
    told = {"folder": str(run.folder), "fingerprint": run.record["model"].get("fingerprint")}
    return told | {"data": run.record.get("data", {}), "seed": run.record.get("seed")}


def _check_pairs(models: Sequence[Model], config: CompareConfig) -> None:
    names = [model.name for model in models]
    if len(models) < 2:
        raise UserError(
            f"a comparison needs two models and all runs are of {names[0]!r}: name another model's folder, or give the "
            "runs names of their own (--name of stress and probe)"
        )
    if config.reference is not None and config.reference not in names:
        raise UserError(f"no model is called {config.reference!r}: choose the reference from {', '.join(names)}")
    groups = [model.group for model in models]
    if max(map(groups.count, groups)) < 2:
        raise UserError(f"no two of {', '.join(names)} have the same text after {config.within!r}: nothing to compare")


def _check_primary(primary: str, conditions: Sequence[Condition]) -> None:
    metric, _, place = primary.partition("@")
    degraded = [condition for condition in conditions if condition != CLEAN]
    single = {"", *(name for c in degraded for name in (c.corruption, f"{c.corruption}:{c.severity:g}"))}
    places = {metric: {*single, CLEAN.corruption} for metric in RANKING} | dict.fromkeys(DROPS, single)
    places[AREA] = {"", *(name for c in degraded for name in (c.corruption, family_of(c.corruption)))}
    if place not in places.get(metric, ()) or (metric not in RANKING and not degraded):
        known = dict.fromkeys(condition.corruption for condition in conditions)
        raise UserError(
            f"there is nothing to compare behind the primary comparison {primary!r}: take one of {', '.join(places)}, "
            f"and after @ one of {', '.join(known)}, or such a corruption at one severity, as in gaussian-blur:3"
        )


def compared(plan: Plan) -> Comparison:
    """Both tables of a comparison."""
    models, differences = [], []
    for measured in _measured(plan):
        models.append(_of_models(measured, plan))
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


def _measured(plan: Plan) -> Iterator[Measured]:
    """Everything that models are compared by, corruption by corruption, so that few scores are held at once."""
    areas = []
    bar = progress(plan.ladders.items(), total=len(plan.ladders), title="comparison", unit="corruption")
    for corruption, ladder in bar:
        under = _under(corruption, ladder, plan)
        yield from (measured for condition in ladder for measured in under[condition].values())
        rankings = [under[condition]["auroc"] for condition in ladder]
        if corruption == CLEAN.corruption:
            (clean,) = rankings
            continue
        yield from (drop for corrupted in rankings for drop in _drops(clean, corrupted))
        areas.append(_area(corruption, [clean, *rankings]))
        yield areas[-1]
    yield from _families(areas, plan)


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
        yield Measured(corrupted.corruption, corrupted.severity, name, of)


def _area(corruption: str, points: Sequence[Measured]) -> Measured:
    severities = [point.severity for point in points]
    of = {m: area_of(area_under_degradation, severities, [point.of[m] for point in points]) for m in points[0].of}
    return Measured(corruption, np.nan, AREA, of)


def _families(areas: Sequence[Measured], plan: Plan) -> Iterator[Measured]:
    """The areas over each family of corruptions."""
    of = {m.name: over_families({area.corruption: area.of[m.name] for area in areas}) for m in plan.models}
    for family in dict.fromkeys(family_of(area.corruption) for area in areas):
        yield Measured(family, np.nan, AREA, {name: families[family] for name, families in of.items()})


def _of_models(measured: Measured, plan: Plan) -> pd.DataFrame:
    """Rows of the table of models."""
    return pd.concat([_of_model(measured, model, plan) for model in plan.models], ignore_index=True)


def _of_model(measured: Measured, model: Model, plan: Plan) -> pd.DataFrame:
    estimate = measured.of[model.name]
    low, high = percentile_interval(estimate.samples, LEVEL, undefined_at_most=plan.sets.undefined_at_most)
    spread = np.full_like(estimate.value, np.nan) if model.repetitions == 1 else estimate.runs.std(axis=0, ddof=1)
    rows = _rows(measured, plan).assign(model=model.name, group=model.group, runs=model.repetitions)
    return rows.assign(value=estimate.value, low=low, high=high, spread=spread)


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
    return rows.assign(difference=found.value, low=found.low, high=found.high, p=found.p)


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
    """The table with the sets of comparisons that are corrected together, and Holm's p values within each."""
    chosen_before = _is_primary(table, primary)
    question = np.where(chosen_before, "primary", table["metric"] + np.where(_is_macro(table), ", macro", ", findings"))
    family = table["group"].where(table["group"] == "", table["group"] + ": ") + question
    adjusted = table.groupby(family)["p"].transform(lambda p: holm(p.to_numpy()))
    return table.assign(primary=chosen_before, family=family, p_holm=adjusted)


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


def notes(plan: Plan, families: Mapping[str, int]) -> list[str]:
    """What a reader of the tables must know, in sentences."""
    told = [
        "Intervals and p values are from resamples of the patients, shared by all models. They say how sure the "
        "difference of these trained models is, not what another training would give; that is the spread over runs.",
        "p_holm is corrected within each family of comparisons; everything outside the primary one is description.",
        "delong_p is DeLong's test for a single finding, in Obuchowski's form for several images of one patient.",
    ]
    short = [name for name, count in families.items() if count / (plan.config.resamples + 1) > 1 - LEVEL]
    if short:
        told.append(
            f"No p value is below 1 / {plan.config.resamples + 1}, so nothing can stay below {1 - LEVEL:.2g} after "
            f"correction in {', '.join(short)}: give more --resamples or compare less."
        )
    return told


def _rows(measured: Measured, plan: Plan) -> pd.DataFrame:
    about = {"corruption": measured.corruption, "severity": measured.severity, "metric": measured.metric}
    return pd.DataFrame({"finding": [MACRO, *plan.sets.findings]}).assign(**about)
