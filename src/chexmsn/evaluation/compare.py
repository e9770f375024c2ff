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
from chexmsn.core.files import new_folder, refuse_filled, write_atomic
from chexmsn.core.limits import check_limits
from chexmsn.core.progress import progress
from chexmsn.evaluation.areas import area_of, families, family_of, mean_of
from chexmsn.evaluation.cohort import LEVEL, MACRO, findings_of
from chexmsn.evaluation.common_ground import Ground, ground_of
from chexmsn.evaluation.conditions import CLEAN, Condition, chosen
from chexmsn.evaluation.measures import RANKING, Ranking
from chexmsn.evaluation.repetitions import Model, Pooled, Scores, TestSets, models_of
from chexmsn.evaluation.runs import SCHEMA_VERSION, ScoredRun, find_runs
from chexmsn.metrics.bootstrap import percentile_interval
from chexmsn.metrics.covariance import clustered_covariance, z_test
from chexmsn.metrics.degradation import (
    above_chance_drop,
    absolute_drop,
    area_under_degradation,
    corruption_error,
    relative_corruption_error,
    relative_drop,
)
from chexmsn.metrics.multiple import benjamini_hochberg, holm
from chexmsn.metrics.paired import paired_difference
from chexmsn.training.run_folder import open_run, write_record

log = logging.getLogger(__name__)

DROPS = {"absolute_drop": absolute_drop, "relative_drop": relative_drop, "above_chance_drop": above_chance_drop}
KIND = "comparison"
AREA = "area"
ERRORS = {
    "corruption_error": lambda curve, reference: corruption_error(curve[..., 1:], reference[..., 1:]),
    "relative_corruption_error": relative_corruption_error,
}
MODELS = ("model", "group", "corruption", "severity", "finding", "metric", "value", "low", "high", "runs", "spread")
COMPARISON = (
    *("group", "a", "b", "corruption", "severity", "finding", "metric", "value_a", "value_b"),
    *("difference", "low", "high", "p", "p_holm", "q", "delong_p", "family", "primary"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """A comparison of models.

    Attributes:
        runs: result folders of `chexmsn stress` or `chexmsn probe`, or folders that hold such folders. Runs of one name
            are repetitions of one model.
        out: folder of the comparison.
        reference: model that all others are compared with, and whose errors theirs are told as multiples of; every
            pair is compared when empty.
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


def _is_there(plan: "Plan") -> bool:
    """Whether this comparison was made before. Raises UserError for another one, and for half a one."""
    out = plan.config.out
    if not (out / "run.json").is_file():
        return False
    if not open_run(out, KIND, plan.asked, plan.facts).finished:
        raise UserError(f"{out} holds a comparison that an earlier version left unfinished: remove it, or name another")
    return True


def _write(tables: Comparison, plan: "Plan", place: Path) -> None:
    for name, table in (("models", tables.models), ("comparison", tables.differences)):
        write_atomic(place / f"{name}.parquet", lambda path, table=table: table.to_parquet(path, index=False))
        write_atomic(place / f"{name}.csv", lambda path, table=table: table.to_csv(path, index=False))
    sizes = families_of(tables.differences)
    facts = plan.facts | {"families": sizes, "notes": notes(plan, sizes)}
    write_record(place, KIND, plan.asked, facts, status="finished")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration asks for, opened and checked.

    Attributes:
        config: the configuration.
        models: the models, each with its runs.
        sets: the test sets.
        conditions: those of all runs, the clean one first.
        grounds: what the areas are over, of each group of models.
        primary: the comparison decided on beforehand.
    """

    config: CompareConfig
    models: tuple[Model, ...]
    sets: TestSets
    conditions: tuple[Condition, ...]
    grounds: Mapping[str, Ground]
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
        grounds = _grounds(models, conditions)
        some = any(kept for ground in grounds.values() for kept in ground.families.values())
        primary = config.primary or (AREA if some else "auroc@clean")
        _check_primary(primary, conditions)
        return cls(config, tuple(models), sets, conditions, grounds, primary)

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
        return _ladders(self.conditions)

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
            "areas_over": {group: ground.families for group, ground in self.grounds.items()},
            "primary": self.primary,
            **{name: getattr(self.config, name) for name in ("resamples", "seed")},
            "level": LEVEL,
        }


def _ladders(conditions: Sequence[Condition]) -> dict[str, list[Condition]]:
    ordered = sorted(conditions, key=lambda condition: condition.severity)
    names = dict.fromkeys(condition.corruption for condition in conditions)
    return {name: [condition for condition in ordered if condition.corruption == name] for name in names}


def _grounds(models: Sequence[Model], conditions: Sequence[Condition]) -> dict[str, Ground]:
    """What the models of each group share."""
    ladders = _ladders([condition for condition in conditions if condition != CLEAN])
    groups = dict.fromkeys(model.group for model in models)
    return {group: ground_of([model for model in models if model.group == group], ladders) for group in groups}


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
