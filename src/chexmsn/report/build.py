"""One HTML file that opens without a network, its figures as PNG and SVG, its numbers as Parquet and CSV."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from chexmsn.core.errors import UserError
from chexmsn.core.files import write_atomic
from chexmsn.report.conditions import CLEAN, Condition, corruption_title, in_sentence, is_hard, is_headline, is_missing
from chexmsn.report.curves import pretraining_panels, stage_curves, training_panels
from chexmsn.report.figures import curves_figure, findings_figure, losses_figure, missing_figure, severity_figure
from chexmsn.report.results import CURVES, StressRun, read_runs, stack
from chexmsn.report.style import inline, keys, looks, to_png, to_svg
from chexmsn.report.summary import cautions, summary
from chexmsn.report.tables import by_condition, drop_rows, facts, findings_by_run, parameters, scores, test_size
from chexmsn.report.words import HARD_SPACE, listed, percent, three_digits


class Plan(NamedTuple):
    """A figure of the report: its words, the numbers in it, and how it is drawn for a number of columns."""

    name: str
    title: str
    caption: str
    numbers: pd.DataFrame
    columns: int
    draw: Callable[..., Figure | None]


class Plate(NamedTuple):
    """A figure as the page holds it: for a wide page and for a phone."""

    name: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup


def build_report(stress_folders: Sequence[Path], out: Path, *, title: str, note: str | None = None) -> Path:
    """Write `report.html`, `figures/` and `numbers/` into `out` from stress folders alone; returns the HTML file.

    `note` is set off on top of the page: what the reader must know first. Running it again replaces the
    report. Raises UserError for folders that cannot be reported (`results.read_runs`) and for an `out`
    that is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file and a report is a folder: choose another place for it")
    runs = read_runs(stress_folders)
    plans = plan_figures(runs)
    _remove_earlier(plans, out)
    plates = [plate for plan in plans if (plate := _write_figure(plan, out / "figures"))]
    numbers = {"results": stack(runs), **{plan.name: plan.numbers for plan in plans if not plan.numbers.empty}}
    for name, table in numbers.items():
        _write_numbers(table, out / "numbers" / name)
    html = _page(runs, title=title, note=note, plates=plates, numbers=sorted(numbers))
    write_atomic(out / "report.html", lambda path: path.write_text(html, encoding="utf-8"))
    return out / "report.html"


def plan_figures(runs: Sequence[StressRun]) -> list[Plan]:
    """The figures of these runs, in the order of the page."""
    table, models = stack(runs), looks(run.label for run in runs)
    macro = scores(table)
    missing = macro[(macro.corruption == CLEAN) | macro.corruption.map(is_missing)]
    degraded = macro[~macro.corruption.map(is_missing)]
    hardest = _hardest(macro)[lambda rows: rows.corruption != CLEAN]
    clean_and_hard = _hardest(scores(table, finding=None))
    pretraining, training = (stage_curves(runs, stage) for stage in CURVES)
    return [
        Plan(
            "losses",
            "What is lost",
            f"Drop of macro AUROC from the clean images, with 70{HARD_SPACE}% of the patches gone and at severity 5. "
            "Lines are intervals over patients; a hollow marker is a condition the model saw in training.",
            hardest,
            2,
            partial(losses_figure, hardest, models),
        ),
        Plan(
            "missing-regions",
            "When regions of the image are missing",
            f"Macro AUROC against the share of patches that is gone. {_BANDS}{_absent(missing)}",
            missing,
            2,
            partial(missing_figure, missing, models),
        ),
        Plan(
            "severity",
            "When the image is noisy or blurred",
            f"Macro AUROC against severity, where 0 is the clean image. {_BANDS}{_absent(degraded)}",
            degraded,
            3,
            partial(severity_figure, degraded, models),
        ),
        Plan(
            "findings",
            "Finding by finding",
            f"AUROC of every finding on clean images, with 70{HARD_SPACE}% of the patches gone and at severity 5. "
            "A dash stands where there is no number.",
            clean_and_hard,
            2,
            partial(findings_figure, clean_and_hard, models),
        ),
        Plan(
            "pretraining-curves",
            "Pretraining",
            "Each method's own loss on its own scale: losses of different methods cannot be compared. Where they were "
            "logged, the effective rank of the features and what their nearest neighbours say of them.",
            pretraining,
            3,
            partial(curves_figure, pretraining_panels(pretraining), models),
        ),
        Plan(
            "training-curves",
            "Training of the classifiers",
            "What was logged while training on labels, the mean of each epoch.",
            training,
            2,
            partial(curves_figure, training_panels(training), models),
        ),
    ]


_BANDS = "Bands are intervals over patients; a hollow marker is a condition the model saw in training."


def _hardest(rows: pd.DataFrame) -> pd.DataFrame:
    wanted = [c == CLEAN or is_hard(Condition(c, s)) for c, s in zip(rows.corruption, rows.severity, strict=True)]
    return rows[wanted]


def _absent(rows: pd.DataFrame) -> str:
    """A sentence for each reason why a model has no number somewhere in a figure."""
    gone = rows[rows.status != "ok"].groupby(["model", "status"], sort=False).corruption.unique()
    named = {key: listed([in_sentence(corruption_title(name)) for name in names]) for key, names in gone.items()}
    return "".join(f" No value of {model} for {what}: {why.rstrip('.')}." for (model, why), what in named.items())


def _remove_earlier(plans: Sequence[Plan], out: Path) -> None:
    """Files of an earlier report that had figures which this one lacks would tell of other runs."""
    for plan in plans:
        for file in [*out.glob(f"figures/{plan.name}.*"), *out.glob(f"numbers/{plan.name}.*")]:
            file.unlink()


def _write_figure(plan: Plan, folder: Path) -> Plate | None:
    figure = plan.draw(plan.columns)
    if figure is None:
        return None
    svg = to_svg(figure)
    figure.set_layout_engine("none")  # the PNG keeps the layout of the SVG
    _write_bytes(folder / f"{plan.name}.svg", svg.encode())
    _write_bytes(folder / f"{plan.name}.png", to_png(figure))
    narrow = to_svg(plan.draw(1))
    description = f"{plan.title}. {plan.caption} The numbers are in the tables."
    return Plate(
        plan.name,
        plan.title,
        plan.caption,
        inline(svg, f"{plan.name}-wide", description),
        inline(narrow, f"{plan.name}-narrow", description),
    )


def _write_bytes(path: Path, content: bytes) -> None:
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def _write_numbers(table: pd.DataFrame, stem: Path) -> None:
    write_atomic(stem.with_suffix(".parquet"), lambda path: table.to_parquet(path, index=False))
    write_atomic(stem.with_suffix(".csv"), lambda path: table.to_csv(path, index=False))


def _page(
    runs: Sequence[StressRun], *, title: str, note: str | None, plates: Sequence[Plate], numbers: Sequence[str]
) -> str:
    table = stack(runs)
    macro, precision = scores(table), scores(table, metric="average_precision")
    labels = [run.label for run in runs]
    return _template().render(
        title=title,
        note=note,
        runs=runs,
        labels=labels,
        points=summary(runs),
        cautions=cautions(runs),
        lede=_lede(runs),
        contents=_contents(plates),
        keys=keys(labels),
        version=version("chexmsn"),
        facts=facts(runs),
        findings=findings_by_run(runs),
        headline=by_condition(macro, labels, keep=is_headline),
        drops=drop_rows(macro, is_hard),
        all_drops=drop_rows(macro, lambda condition: condition.corruption != CLEAN),
        grid_rows=by_condition(macro, labels),
        precision=by_condition(precision, labels),
        per_finding={run.label: _finding_grid(run) for run in runs},
        plates={plate.name: plate for plate in plates},
        parameters={run.label: parameters(run.info) for run in runs},
        numbers=numbers,
        level=_levels(runs),
    )


def _lede(runs: Sequence[StressRun]) -> str:
    tested = stack(runs)[["corruption", "severity"]].drop_duplicates()
    counts = list(dict.fromkeys(test_size(run) for run in runs))
    models = f"{len(runs)} models" if len(runs) > 1 else runs[0].label
    return f"{models} under {len(tested)} conditions, on {listed(counts)}."


def _contents(plates: Sequence[Plate]) -> list[tuple[str, str]]:
    """Anchors and names of the sections that this page has."""
    drawn = [_SECTIONS[plate.name] for plate in plates if plate.name in _SECTIONS]
    before = [
        ("summary", "In plain words"),
        ("runs", "What was run"),
        ("results", "Results"),
        ("drops", "What is lost"),
    ]
    return [*before, *dict.fromkeys(drawn), ("numbers", "All numbers"), ("methods", "Methods")]


_SECTIONS = {
    "missing-regions": ("missing-regions", "Missing regions"),
    "severity": ("severity", "Noise and blur"),
    "findings": ("findings", "Findings"),
    "pretraining-curves": ("curves", "Learning curves"),
    "training-curves": ("curves", "Learning curves"),
}


def _finding_grid(run: StressRun) -> dict[str, Any]:
    rows = scores(run.results, finding=None)
    names = list(dict.fromkeys(rows.finding))
    return {"names": names, "rows": by_condition(rows, names, over="finding")}


def _levels(runs: Sequence[StressRun]) -> str:
    """The confidence levels of the intervals, as text: one, as a rule."""
    return listed(
        [f"{100 * level:g}{HARD_SPACE}%" for level in sorted({run.get("level", default=0.95) for run in runs})]
    )


def _template() -> Template:
    loader = PackageLoader("chexmsn.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(three_digits=three_digits)
    environment.globals.update(three_digits=three_digits, percent=percent)
    return environment.get_template("report.html.j2")
