"""Judge finished result folders anew, from their scores and labels."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.tables import read_table
from chexmsn.data.labels import Policy, apply_policy
from chexmsn.evaluation.cohort import Cohort, Kind, Resampling, findings_of
from chexmsn.evaluation.conditions import Condition
from chexmsn.evaluation.judgement import judged, write_table, write_tables
from chexmsn.evaluation.result_folder import RAW, check_policy
from chexmsn.evaluation.results import without_interval
from chexmsn.evaluation.runs import ANEW, ScoredRun, find_runs
from chexmsn.training.run_folder import RunFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """A new judgement of scores that are there.

    Attributes:
        runs: result folders of `chexmsn stress` or `chexmsn probe`, or folders that hold such folders.
        resamples: how often the patients are resampled; as recorded when empty.
        interval: percentile or bca (bias-corrected and accelerated: for values near 1, with some 2000 resamples).
        findings: those to judge, and to take the macro from; all that were scored when empty.
        labels: what uncertain (-1) and blank labels count as; as recorded when empty.
    """

    runs: tuple[Path, ...]
    resamples: int | None = None
    interval: Kind = "percentile"
    findings: tuple[str, ...] | None = None
    labels: Policy | None = None

    def __post_init__(self) -> None:
        if self.labels is not None:
            check_policy(self.labels)
        if self.resamples is not None:
            check_limits(self, resamples="[1, inf)")


def judge(config: JudgeConfig) -> list[Path]:
    """Replace the tables of result folders; returns the folders.

    Raises UserError for a folder that is unfinished or not to be read, findings that it does not have, nothing to rank,
    and, where another policy is asked for, a folder of before raw labels were kept.
    """
    found = [_relabelled(run, config.labels) for run in find_runs(config.runs)]
    runs = [run.only(_known(run, config.findings), None) for run in found]
    for run, whole in zip(runs, found, strict=True):
        with RunFolder(run.folder).alone():
            _judge(run, config)
            if config.labels is not None:
                write_table(whole.labels, run.folder / "labels.parquet")
                RunFolder(run.folder).update(policy=config.labels)
        log.info("%s is judged anew", run.folder)
    return [run.folder for run in runs]


def _relabelled(run: ScoredRun, policy: Policy | None) -> ScoredRun:
    """The same run under another policy. Raises UserError where the labels before the policy are not known."""
    if policy is None:
        return run
    findings = findings_of(run.labels)
    if missing := [finding for finding in findings if RAW + finding not in run.labels]:
        raise UserError(
            f"{run.folder} does not hold the raw labels of {missing[0]} that another policy needs: an earlier version "
            "wrote it, so test anew with --labels, in a new folder"
        )
    targets = apply_policy(run.labels[[RAW + f for f in findings]].to_numpy(np.float32), findings, policy)
    named = {f"label:{finding}": column for finding, column in zip(findings, targets.T, strict=True)}
    return replace(run, labels=run.labels.assign(**named))


def _judge(run: ScoredRun, config: JudgeConfig) -> None:
    record = run.record
    resampling = Resampling(
        resamples=config.resamples or record["resamples"], seed=record["seed"], interval=config.interval
    )
    scores = read_table(run.folder / "scores.parquet", ANEW)
    tables = judged(
        scores,
        run.labels,
        resampling,
        model=run.name,
        conditions=run.conditions,
        not_applicable=_not_applicable(run, scores),
        seen=record["seen_in_training"],
        thresholds=record.get("thresholds", {}),
    )
    cohort = Cohort.of(run.labels, Resampling(resamples=1))
    write_tables(run.folder, tables)
    RunFolder(run.folder).update(
        resamples=resampling.resamples,
        interval=resampling.interval,
        findings=[finding for finding in cohort.findings if finding not in cohort.left_out],
        left_out=cohort.left_out,
        without_interval=without_interval(tables["results"]),
    )


def _not_applicable(run: ScoredRun, scores: pd.DataFrame) -> dict[Condition, str]:
    """The conditions without scores, each with the reason that the earlier results gave."""
    tested = _conditions_of(scores.drop_duplicates(["corruption", "severity"]))
    missing = [condition for condition in run.conditions if condition not in tested]
    if not missing:
        return {}
    earlier = read_table(run.folder / "results.parquet", ANEW).drop_duplicates(["corruption", "severity"])
    told = dict(zip(_conditions_of(earlier), earlier["status"], strict=True))
    return {condition: told[condition] for condition in missing}


def _conditions_of(rows: pd.DataFrame) -> list[Condition]:
    return [Condition(str(name), at) for name, at in zip(rows["corruption"], rows["severity"], strict=True)]


def _known(run: ScoredRun, findings: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The findings asked for. Raises UserError where the run does not have one."""
    there = findings_of(run.labels)
    if unknown := [finding for finding in findings or () if finding not in there]:
        raise UserError(f"{run.folder} has no {', '.join(unknown)}: choose from {', '.join(there)}")
    return findings
