"""Write the report of stress tests, or of a comparison, or of both: one HTML file, its figures and its numbers.

Example:
    chexmsn report runs/msn-stress runs/mae-stress --out runs/report --title "MSN against MAE"
    chexmsn report runs/msn-stress runs/mae-stress runs/msn-against-mae --out runs/report

The second one holds the paired differences of `chexmsn compare` besides. Folders of an earlier version lack
calibration, operating points, subgroups and areas: `chexmsn judge` adds them. A report is made from the result folders
alone and holds no image and no patient, unless examples are asked for.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexmsn.core.limits import check_limits
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser
from chexmsn.report.build import build_report

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to report.

    Attributes:
        stress: result folders of stress tests, and at most one of a comparison.
        out: folder of the report: new, empty, or with nothing but an earlier report in it.
        title: headline.
        note: something every reader must know first.
        examples: how many tested images of the first folder to show degraded; they are images of patients.
        pack: the tested pack, for examples.
    """

    stress: tuple[Path, ...]
    out: Path
    title: str = "Robustness of chest radiograph classifiers"
    note: str | None = None
    examples: int = 0
    pack: Path | None = None

    def __post_init__(self) -> None:
        check_limits(self, examples="[0, inf)")


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of a report."""
    return dataclass_parser("report", Config, positional=["stress"])


def run(arguments: Any) -> Path:
    """Write it."""
    c = as_dataclass(Config, arguments)
    report = build_report(c.stress, c.out, title=c.title, note=c.note, pack=c.pack, count=c.examples)
    log.info("the report is %s", report)
    return report
