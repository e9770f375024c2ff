"""What a report makes of the further tables and of a comparison, and where it may be written."""

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.core.lookup import names
from chexmsn.evaluation.areas import family_of
from chexmsn.evaluation.compare import CompareConfig, compare
from chexmsn.evaluation.conditions import REGIONS
from chexmsn.evaluation.judge import JudgeConfig, judge
from chexmsn.report.build import build_report
from chexmsn.report.comparison import METRICS, Comparison, question, read_comparison
from chexmsn.report.conditions import FAMILIES, IN_WORDS, corruption_title, headline, steps
from chexmsn.report.place import check_place
from chexmsn.report.plans import FEW, focus, hardest, plan_comparison, plan_figures
from chexmsn.report.results import read_run, read_runs, stack
from chexmsn.report.sheets import (
    areas_sheet,
    errors_sheet,
    group_differences_sheet,
    operating_sheet,
    primary_sheet,
    subgroups_sheet,
)
from chexmsn.report.style import inline
from chexmsn.report.summary import compared, summary
from chexmsn.report.tables import by_condition, scores
from scored_folders import labels_of, write_scored
from stress_folders import SMALL, write_run
from test_report import Page

LADDER = (("clean", 0.0), ("patches-black", 0.7), ("gaussian-blur", 3.0), ("gaussian-blur", 5.0), ("rotation", 5.0))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Two judged models on the same images, the first better, with thresholds; and their comparison."""
    home, labels = tmp_path_factory.mktemp("further"), labels_of()
    told = {"conditions": LADDER, "thresholds": {"Edema": 0.5, "Mass": 0.5}, "resamples": 200}
    write_scored(home / "runs" / "good", "good", labels, noise=0.8, harm=0.2, **told)
    write_scored(home / "runs" / "bad", "bad", labels, noise=1.6, harm=1.0, seed=1, **told)
    judge(JudgeConfig(runs=(home / "runs",)))
    compare(CompareConfig(runs=(home / "runs",), out=home / "comparison", resamples=300))
    return home


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory) -> Path:
    folders = [home / "runs" / "good", home / "runs" / "bad", home / "comparison"]
    return build_report(folders, tmp_path_factory.mktemp("out") / "whole", title="Two models")


def test_every_judged_table_has_its_section_and_its_numbers(whole, home):
    page = Page(whole.read_text(encoding="utf-8"))
    assert {"comparison", "areas", "calibration", "operating", "subgroups"} <= set(page.ids)
    figures = {"comparison", "areas", "calibration", "reliability", "operating", "subgroups"}
    assert {f"figure-{name}" for name in figures} <= set(page.ids)
    assert {r[1:] for r in page.references if r.startswith("#") and r != "#"} <= set(page.ids)
    for name in ("calibration", "reliability", "operating", "subgroups", "group_differences", "areas", "bands"):
        given = pd.concat([pd.read_parquet(home / "runs" / model / f"{name}.parquet") for model in ("good", "bad")])
        written = pd.read_parquet(whole.parent / "numbers" / f"{name}.parquet")
        pd.testing.assert_frame_equal(written, given.reset_index(drop=True), check_dtype=False)


def test_a_folder_of_an_earlier_version_is_reported_without_the_further_tables(tmp_path):
    folder = write_run(tmp_path / "run", "MSN", grid=SMALL, curves=False)
    page = Page(build_report([folder], tmp_path / "out", title="T").read_text(encoding="utf-8"))
    assert not {"comparison", "areas", "calibration", "operating", "subgroups"} & set(page.ids)


def test_a_torn_further_table_is_refused(home, tmp_path):
    shutil.copytree(home / "runs" / "good", tmp_path / "run")
    (tmp_path / "run" / "areas.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"areas\.parquet cannot be read"):
        build_report([tmp_path / "run"], tmp_path / "out", title="T")


def test_the_axis_bears_the_unit_and_its_levels(whole):
    drawn = (whole.parent / "figures" / "severity-radiographic.svg").read_text(encoding="utf-8")
    assert "severity; degrees" in drawn
    assert all(f">{level}</text>" in drawn for level in (3, 5, 10, 15, 20))
    assert steps("a scanner of 1997") is None


def test_every_family_has_a_name():
    families = {family_of(name) for name in (*names("chexmsn.corruptions"), "tokens-removed", "other scanner")}
    assert families <= set(FAMILIES) == set(IN_WORDS)
    assert corruption_title("jpeg") == "JPEG"
    titles = [corruption_title(name) for name in (*REGIONS, *names("chexmsn.corruptions"))]
    assert len(set(titles)) == len(titles)


def test_many_conditions_leave_the_costliest_in_the_figure(tmp_path):
    grid = [("clean", 0.0), *((name, 5.0) for name in names("chexmsn.corruptions"))]
    run = read_runs([write_run(tmp_path / "run", "MSN", grid=grid, curves=False)])
    macro = scores(stack(run))
    shown = hardest(macro)
    least = min(macro[macro.corruption == c.corruption].absolute_drop.item() for c in shown)
    others = macro[~macro.corruption.isin([c.corruption for c in shown])]
    assert len(shown) == FEW
    assert (others.absolute_drop <= least).all()


def test_the_operating_point_stands_under_each_condition(home):
    table = pd.read_parquet(home / "runs" / "good" / "operating.parquet")
    sheet = operating_sheet(table)
    assert [column.name for column in sheet.columns] == [
        "Condition",
        "Model",
        "Sensitivity",
        "Specificity",
        "PPV",
        "NPV",
    ]
    assert [row[0].text for row in sheet.rows] == [
        *("Clean", "Patches black, 70\u00a0%", "Gaussian blur, severity 3", "Gaussian blur, severity 5"),
        "Rotation, severity 5",
    ]
    macro = table[(table.finding == "macro") & (table.corruption == "clean") & (table.metric == "sensitivity")]
    assert sheet.rows[0][2].sort == macro.value.item()


def test_groups_that_are_too_small_say_so(home):
    table = pd.read_parquet(home / "runs" / "good" / "subgroups.parquet")
    rows = {(row[0].text, row[1].text): row for row in subgroups_sheet(table).rows}
    assert {"Women", "Men", "View PA"} < {group for group, _ in rows}
    women = table[(table.level == "F") & (table.finding == "macro") & (table.corruption == "clean")]
    assert rows["Women", "macro"][4].sort == women.value.item()
    few = table.assign(status="too few", value=float("nan"))
    assert {row[4].text for row in subgroups_sheet(few).rows} == {"too few"}


def test_what_differs_and_what_stays_open_is_told(home):
    comparison = read_comparison(home / "comparison")
    points = compared(comparison)
    assert [point.lead for point in points] == [
        question(c, float("nan"), "area") for c in dict.fromkeys(comparison.primary.corruption)
    ]
    for point, row in zip(points, comparison.primary.itertuples(), strict=True):
        assert ("Not told apart: good and bad" in " ".join(point.lines)) == (row.p_holm >= 0.05)
        assert ("good is above bad by" in " ".join(point.lines)) == (row.p_holm < 0.05)
    unsure = dataclasses.replace(comparison, differences=comparison.differences.assign(p_holm=0.9))
    assert all(point.conclusion.startswith("0 of 1 pairs differ.") for point in compared(unsure))


def test_areas_stand_in_one_row_only_where_they_are_over_the_same(home, tmp_path):
    tokens = (*LADDER, ("tokens-removed", 0.7))
    told = {"conditions": tokens, "resamples": 50}
    write_scored(tmp_path / "vit", "vit", labels_of(), **told)
    cnn = write_scored(tmp_path / "cnn", "cnn", labels_of(), absent=["tokens-removed"], **told)
    pd.DataFrame({"corruption": ["tokens-removed"], "severity": [0.7], "status": ["a CNN"]}).to_parquet(
        cnn / "results.parquet"
    )
    judge(JudgeConfig(runs=(tmp_path / "vit", cnn)))
    runs = read_runs([tmp_path / "vit", cnn])
    rows = [(row[0].text, row[1].text) for row in areas_sheet(runs).rows]
    assert ("Mean of missing regions, 2 conditions", "vit") in rows
    assert ("Mean of missing regions, 1 condition", "cnn") in rows
    assert {m for name, m in rows if name == "Patches black"} == {"vit", "cnn"}
    (plan,) = [plan for plan in plan_figures(runs) if plan.name == "areas"]
    assert "do not compare" in plan.caption
    (alike,) = [p for p in plan_figures(read_runs([home / "runs" / n for n in ("good", "bad")])) if p.name == "areas"]
    assert "do not compare" not in alike.caption


def test_what_stands_for_all_is_a_condition_that_all_models_have(tmp_path):
    folders = [write_run(tmp_path / kind, kind, kind=kind, grid=SMALL, curves=False) for kind in ("transformer", "cnn")]
    both, (alone, _) = read_runs(folders), folders
    assert focus(scores(stack(both))).corruption == "patches-black"  # a CNN has no tokens
    assert focus(scores(stack(read_runs([alone])))).corruption == "tokens-removed"


def test_what_is_all_or_nothing_has_no_severity(tmp_path):
    run = read_run(write_run(tmp_path / "run", "A", grid=[("clean", 0.0), ("flip", 5.0), ("dose", 3.0)], curves=False))
    rows = [row.label for row in by_condition(scores(run.results), headline(scores(run.results)), ["A"])]
    assert rows == ["Clean", "Low dose (quantum noise), severity 3", "Horizontal flip"]
    (point,) = [point for point in summary([run]) if point.lead.startswith("When")]
    assert point.lead == "When the image is degraded, at severity 3"


def test_numbers_on_an_axis_are_not_rounded():
    """0.025 is not 0.03: only positions lose their digits."""
    svg = '<svg><text x="1.23456">0.025</text></svg>'
    assert str(inline(svg, "a", "b")).endswith('<text x="1.23">0.025</text></svg>')


def test_differences_of_groups_have_their_rows(home, whole):
    table = pd.read_parquet(home / "runs" / "good" / "group_differences.parquet")
    sheet = group_differences_sheet(table)
    row = next(row for row in sheet.rows if row[0].text == "Men \u2212 women" and row[1].text == "macro")
    macro = table[(table.level == "M") & (table.finding == "macro")].set_index("corruption")
    assert row[3].sort == macro.value["clean"] and "to" in row[3].small
    assert sheet.columns[4].name.startswith("Difference of drops, ")
    page = Page(whole.read_text(encoding="utf-8"))
    assert "figure-group_differences" in page.ids and "Differences between groups" in page.text
    assert pd.read_parquet(whole.parent / "numbers" / "group_differences.parquet").model.nunique() == 2


def test_figures_draw_the_band_of_the_whole_curve(home):
    runs = read_runs([home / "runs" / "good"])
    (plan,) = [plan for plan in plan_figures(runs) if plan.name == "severity-imagenet-c"]
    drawn = plan.draw(3).axes[0].collections[0].get_paths()[0].vertices[:, 1]
    band = pd.read_parquet(home / "runs" / "good" / "bands.parquet")
    of = band[(band.finding == "macro") & (band.corruption == "gaussian-blur")]
    assert drawn.min() == pytest.approx(of.low.min()) and drawn.max() == pytest.approx(of.high.max())


def test_errors_against_a_reference_have_a_table(home, tmp_path):
    out = compare(CompareConfig(runs=(home / "runs",), out=tmp_path / "out", resamples=100, reference="good"))
    sheet = errors_sheet(read_comparison(out))
    assert {(row[0].text, row[1].text) for row in sheet.rows} >= {("Gaussian blur", "bad"), ("missing regions", "good")}
    assert "Errors as multiples" in build_report([out], tmp_path / "report", title="T").read_text(encoding="utf-8")
    assert not errors_sheet(read_comparison(home / "comparison")).rows


def test_groups_of_models_are_told_apart(home):
    grouped = two_groups(home)
    count = len(read_comparison(home / "comparison").primary)
    points = compared(grouped)
    assert len(points) == 2 * count and {point.conclusion.split(".")[0] for point in points} <= {
        "1 of 1 pairs differ",
        "0 of 1 pairs differ",
    }
    assert any(point.lead.endswith("missing regions (small)") for point in points)
    panels = plan_comparison(grouped).draw(2).axes
    assert len([axis for axis in panels if "(large)" in axis.get_title(loc="left")]) == count


def two_groups(home) -> Comparison:
    """The comparison of `home` as if it had been made within two groups of models, each a family of its own."""
    comparison = read_comparison(home / "comparison")
    rows = comparison.differences
    groups = [rows.assign(group=name, family=f"{name}: " + rows.family) for name in ("small", "large")]
    return dataclasses.replace(comparison, differences=pd.concat(groups, ignore_index=True))


def test_the_correction_told_is_that_of_a_family_and_not_of_all_groups(home):
    alone, grouped = (compared(told) for told in (read_comparison(home / "comparison"), two_groups(home)))
    count = len(read_comparison(home / "comparison").primary)
    assert count > 1
    assert all(f"Corrected for {count} comparisons" in point.conclusion for point in (*alone, *grouped))


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("auroc", "bad is above good by 0.235 (0.200 to 0.270)"),
        ("absolute_drop", "bad loses more than good by 0.235 (0.200 to 0.270)"),
        ("relative_drop", "bad loses more than good by 23.5 % (20.0 % to 27.0 %)"),
        ("above_chance_drop", "bad loses more than good by 23.5 % (20.0 % to 27.0 %)"),
    ],
)
def test_more_of_a_drop_is_a_loss_and_a_ratio_is_in_per_cent(home, metric, told):
    comparison = read_comparison(home / "comparison")
    numbers = {"metric": metric, "difference": -0.235, "low": -0.27, "high": -0.2, "p_holm": 0.001}
    row = comparison.primary.head(1).assign(a="good", b="bad", **numbers)
    (point,) = compared(dataclasses.replace(comparison, differences=row))
    assert point.lines[0].replace("\u00a0", " ").startswith(told)


def test_a_comparison_is_a_report_of_its_own(home, tmp_path):
    report = build_report([home / "comparison"], tmp_path / "out", title="Only compared")
    page = Page(report.read_text(encoding="utf-8"))
    assert {"summary", "comparison", "numbers", "methods"} <= set(page.ids)
    assert not {"runs", "results", "drops"} & set(page.ids)
    assert "240 images of 120 patients" in page.text
    assert "p_holm is corrected within each family" in page.text
    given = pd.read_parquet(home / "comparison" / "comparison.parquet")
    pd.testing.assert_frame_equal(
        pd.read_parquet(report.parent / "numbers" / "comparison.parquet"), given, check_dtype=False
    )
    assert len(primary_sheet(read_comparison(home / "comparison")).rows) == given.primary.sum()
    assert set(given.metric) == set(METRICS)


def test_a_comparison_that_cannot_be_read_is_refused(home, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(home / "comparison", other)
    with pytest.raises(UserError, match="one comparison"):
        build_report([home / "comparison", other], tmp_path / "out", title="T")
    (other / "models.parquet").unlink()
    with pytest.raises(UserError, match=r"no models\.parquet yet"):
        build_report([other], tmp_path / "out", title="T")
    record = json.loads((other / "run.json").read_text()) | {"schema_version": 9}
    (other / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="comparison schema 9"):
        build_report([other], tmp_path / "out", title="T")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("foreign", ["run.json", "thesis.docx", ".bashrc", "report.html.bak"])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, foreign):
    folder = write_run(tmp_path / "run", "MSN", grid=SMALL, curves=False)
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("an earlier one")
    (out / foreign).write_text("precious")
    with pytest.raises(UserError, match="which no report wrote") as raised:
        build_report([folder], out, title="T")
    assert foreign in str(raised.value)
    assert sorted(path.name for path in out.iterdir()) == sorted(["report.html", foreign])
    assert (out / "report.html").read_text() == "an earlier one"


def test_what_a_killed_report_leaves_is_no_obstacle(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / ".report.html.k2j4.html").touch()
    check_place(tmp_path)
    check_place(tmp_path / "new")
