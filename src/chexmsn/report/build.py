"""One HTML file that opens without a network, its figures as PNG and SVG, its numbers as Parquet and CSV."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from chexmsn.core.errors import UserError
from chexmsn.core.files import write_atomic
from chexmsn.report import sheets
from chexmsn.report.comparison import Comparison, is_comparison, read_comparison
from chexmsn.report.conditions import CLEAN, conditions, hard, headline
from chexmsn.report.examples import Strip, check_asked, examples
from chexmsn.report.pages import template
from chexmsn.report.place import check_place
from chexmsn.report.plans import Plan, plan_comparison, plan_figures
from chexmsn.report.results import FURTHER, StressRun, read_runs, stack, stack_further
from chexmsn.report.style import inline, keys, to_png, to_svg
from chexmsn.report.summary import Point, cautions, compared, summary
from chexmsn.report.tables import by_condition, drop_rows, facts, findings_by_run, parameters, scores, test_size
from chexmsn.report.words import HARD_SPACE, listed


class Plate(NamedTuple):
    """A figure as the page holds it: for a wide page and for a phone."""

    name: str
    section: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup


def build_report(
    folders: Sequence[Path],
    out: Path,
    *,
    title: str,
    note: str | None = None,
    pack: Path | None = None,
    count: int = 0,
) -> Path:
    """Write `report.html`, `figures/` and `numbers/` into `out` from result folders alone; returns the HTML file.

    `folders` are stress folders, whose models stand beside each other, and at most one folder of a comparison.
    `note` is set off on top of the page: what the reader must know first. `count` images of `pack` are shown degraded,
    none unless asked for. Running it again replaces the report. Raises UserError for folders that cannot be reported
    (`results.read_runs`, `comparison.read_comparison`), for examples that cannot be shown (`examples.examples`), and
    for an `out` that is a file or holds anything but a report.
    """
    check_place(out)
    runs, comparison = _read([Path(folder) for folder in folders])
    plans = [*([plan_comparison(comparison)] if comparison else []), *(plan_figures(runs) if runs else [])]
    check_asked(runs, pack, count)
    strips = examples(runs[0], pack, count) if count else []
    _remove_earlier(out)
    plates = [plate for plan in plans if (plate := _write_figure(plan, out / "figures"))]
    numbers = _numbers(runs, comparison, plans)
    for name, table in numbers.items():
        _write_numbers(table, out / "numbers" / name)
    html = _page(runs, comparison, title=title, note=note, plates=plates, numbers=sorted(numbers), strips=strips)
    write_atomic(out / "report.html", lambda path: path.write_text(html, encoding="utf-8"))
    return out / "report.html"


def _read(folders: Sequence[Path]) -> tuple[list[StressRun], Comparison | None]:
    compared = [folder for folder in folders if is_comparison(folder)]
    if len(compared) > 1:
        raise UserError(f"a report holds one comparison and {listed(list(map(str, compared)))} are several: choose one")
    stressed = [folder for folder in folders if folder not in compared]
    runs = [] if compared and not stressed else read_runs(stressed)
    return runs, read_comparison(compared[0]) if compared else None


def _numbers(
    runs: Sequence[StressRun], comparison: Comparison | None, plans: Sequence[Plan]
) -> dict[str, pd.DataFrame]:
    """Every table that the page is made of, by the name of its files."""
    tables = {plan.name: plan.numbers for plan in plans}
    if runs:
        tables |= {"results": stack(runs)} | {name: stack_further(runs, name) for name in FURTHER}
    if comparison:
        tables |= {"models": comparison.models}
    return {name: table for name, table in tables.items() if not table.empty}


def _remove_earlier(out: Path) -> None:
    """Files of an earlier report that had figures which this one lacks would tell of other runs."""
    written = {"figures": (".svg", ".png"), "numbers": (".parquet", ".csv")}
    for folder, kinds in written.items():
        for file in (out / folder).glob("*"):
            if file.suffix in kinds:
                file.unlink()


def _write_figure(plan: Plan, folder: Path) -> Plate | None:
    figure = None if plan.numbers.empty else plan.draw(plan.columns)
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
        plan.section,
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
    runs: Sequence[StressRun],
    comparison: Comparison | None,
    *,
    title: str,
    note: str | None,
    plates: Sequence[Plate],
    numbers: Sequence[str],
    strips: Sequence[Strip],
) -> str:
    of_runs = _of_runs(runs) if runs else {}
    tables = _sheets(runs)
    sections = {name: [plate for plate in plates if plate.section == name] for name in SECTIONS}
    return template("report.html.j2").render(
        title=title,
        note=note,
        runs=runs,
        comparison=_of_comparison(comparison) if comparison else None,
        points=_points(runs, comparison),
        cautions=cautions(runs) if runs else [],
        lede=_lede(runs, comparison),
        contents=_contents(runs, comparison, {plate.section for plate in plates} | set(tables), bool(strips)),
        sections=sections,
        headings=HEADINGS,
        strips=strips,
        sheets=tables,
        labels=[run.label for run in runs],
        keys=keys([run.label for run in runs]),
        version=version("chexmsn"),
        numbers=numbers,
        level=_levels([*(run.get("level", default=0.95) for run in runs), *_level_of(comparison)]),
        **({"intervals": INTERVALS["percentile"]} | of_runs),  # a comparison alone has these
    )


def _of_runs(runs: Sequence[StressRun]) -> dict[str, Any]:
    """What the sections about single runs are made of."""
    table, labels = stack(runs), [run.label for run in runs]
    macro, precision = scores(table), scores(table, metric="average_precision")
    every = conditions(macro)
    return {
        "facts": facts(runs),
        "findings": findings_by_run(runs),
        "headline": by_condition(macro, headline(macro), labels),
        "drops": drop_rows(macro, hard(macro)),
        "all_drops": drop_rows(macro, [condition for condition in every if condition.corruption != CLEAN]),
        "grid_rows": by_condition(macro, every, labels),
        "precision": by_condition(precision, conditions(precision), labels),
        "per_finding": {run.label: _finding_grid(run) for run in runs},
        "parameters": {run.label: parameters(run.info) for run in runs},
        "intervals": listed(sorted({INTERVALS[run.get("interval", default="percentile")] for run in runs})),
    }


def _sheets(runs: Sequence[StressRun]) -> dict[str, list[sheets.Sheet]]:
    """The tables of each further section, where there is something in them."""
    made = {
        "calibration": ("calibration", sheets.calibration_sheet),
        "operating": ("operating", sheets.operating_sheet),
        "subgroups": ("subgroups", sheets.subgroups_sheet),
        "group_differences": ("subgroups", sheets.group_differences_sheet),
    }
    told = [("areas", sheets.areas_sheet(runs))] if len(stack_further(runs, "areas")) else []
    told += [(section, make(t)) for name, (section, make) in made.items() if len(t := stack_further(runs, name))]
    found: dict[str, list[sheets.Sheet]] = {}
    for section, sheet in told:
        if sheet.rows:
            found.setdefault(section, []).append(sheet)
    return found


def _of_comparison(comparison: Comparison) -> dict[str, Any]:
    """What the sections of a comparison are made of."""
    return {
        "primary": sheets.primary_sheet(comparison),
        "models": sheets.models_sheet(comparison),
        "further": sheets.further_sheet(comparison),
        "findings": sheets.findings_sheet(comparison),
        "errors": sheets.errors_sheet(comparison),
        "notes": comparison.info.get("notes", []),
        "parameters": parameters(comparison.info),
    }


def _points(runs: Sequence[StressRun], comparison: Comparison | None) -> list[Point]:
    return [*(compared(comparison) if comparison else []), *(summary(runs) if runs else [])]


def _lede(runs: Sequence[StressRun], comparison: Comparison | None) -> str:
    if not runs:
        models = listed([model["name"] for model in comparison.info["models"]])
        sizes = [f"{part['images']:,} images of {part['patients']:,} patients" for part in comparison.info["test_sets"]]
        return f"{models}, compared on {listed(sizes)}."
    tested = stack(runs)[["corruption", "severity"]].drop_duplicates()
    counts = list(dict.fromkeys(test_size(run) for run in runs))
    models = f"{len(runs)} models" if len(runs) > 1 else runs[0].label
    return f"{models} under {len(tested)} conditions, on {listed(counts)}."


INTERVALS = {"percentile": "Percentile", "bca": "Bias-corrected and accelerated"}
HEADINGS: Mapping[str, str] = {
    "missing-regions": "When regions of the image are missing",
    "severity": "When the image is degraded",
    "areas": "The whole curve in one number",
    "findings": "Finding by finding",
    "calibration": "Calibration",
    "operating": "At the threshold that was set",
    "subgroups": "Subgroups",
    "curves": "Learning curves",
}
SECTIONS: Mapping[str, str] = {
    "comparison": "Comparison",
    "drops": "What is lost",
    "missing-regions": "Missing regions",
    "severity": "Degraded images",
    "areas": "Areas",
    "findings": "Findings",
    "calibration": "Calibration",
    "operating": "Operating point",
    "subgroups": "Subgroups",
    "curves": "Learning curves",
}


def _contents(
    runs: Sequence[StressRun], comparison: Comparison | None, present: set[str], shown_examples: bool
) -> list[tuple[str, str]]:
    """Anchors and names of the sections that this page has."""
    single = [("runs", "What was run"), ("results", "Results")] if runs else []
    always = {"comparison"} if comparison else set()
    always |= {"drops"} if runs else set()
    shown = [(name, title) for name, title in SECTIONS.items() if name in present | always]
    first = [pair for pair in shown if pair[0] == "comparison"]
    rest = [pair for pair in shown if pair[0] != "comparison"]
    numbers = [*([("examples", "Examples")] if shown_examples else []), ("numbers", "All numbers")]
    return [("summary", "In plain words"), *first, *single, *rest, *numbers, ("methods", "Methods")]


def _finding_grid(run: StressRun) -> dict[str, Any]:
    rows = scores(run.results, finding=None)
    names = list(dict.fromkeys(rows.finding))
    return {"names": names, "rows": by_condition(rows, conditions(rows), names, over="finding")}


def _level_of(comparison: Comparison | None) -> list[float]:
    return [comparison.info.get("level", 0.95)] if comparison else []


def _levels(levels: Sequence[float]) -> str:
    """The confidence levels of the intervals, as text: one, as a rule."""
    return listed([f"{100 * level:g}{HARD_SPACE}%" for level in sorted(set(levels))])
