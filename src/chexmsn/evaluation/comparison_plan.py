"""What a comparison is asked for, opened and checked: which models, on which test sets, under which conditions."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.data.labels import canonical
from chexmsn.evaluation.areas import family_of
from chexmsn.evaluation.cohort import LEVEL, findings_of
from chexmsn.evaluation.common_ground import Ground, ground_of
from chexmsn.evaluation.conditions import CLEAN, Condition, chosen
from chexmsn.evaluation.measures import RANKING
from chexmsn.evaluation.repetitions import Model, TestSets, models_of
from chexmsn.evaluation.runs import SCHEMA_VERSION, ScoredRun, find_runs
from chexmsn.metrics.degradation import above_chance_drop, absolute_drop, relative_drop

DROPS = {"absolute_drop": absolute_drop, "relative_drop": relative_drop, "above_chance_drop": above_chance_drop}
AREA = "area"


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
        findings = _findings(config.findings, runs)
        runs = [run.only(findings, _wanted(config.conditions, runs)) for run in runs]
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


def _findings(names: Sequence[str] | None, runs: Sequence[ScoredRun]) -> list[str] | None:
    """The asked ones as the runs call them; None for all."""
    known = dict.fromkeys(name for run in runs for name in findings_of(run.labels))
    if names is None:
        return None
    called = {name: name if name in known else canonical(name) for name in names}
    if unknown := [name for name, label in called.items() if label not in known]:
        raise UserError(f"no run tells {', '.join(unknown)}: choose the findings from {', '.join(known)}")
    return list(called.values())


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
