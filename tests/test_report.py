"""The report: what it says, what it never says, and that its page stands on its own."""

import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexmsn.core.errors import UserError
from chexmsn.evaluation import result_folder
from chexmsn.evaluation import results as evaluation_results
from chexmsn.evaluation.conditions import pixel_fills, standard_grid
from chexmsn.evaluation.notes import NO_WIDTH
from chexmsn.report.build import build_report
from chexmsn.report.card import build_card, card_of
from chexmsn.report.conditions import conditions, headline
from chexmsn.report.curves import pretraining_panels, stage_curves, tidy, training_panels
from chexmsn.report.results import COLUMNS, SCHEMA, read_run, read_runs, stack
from chexmsn.report.summary import cautions, order, summary
from chexmsn.report.tables import Number, by_condition, scores
from stress_folders import FINDINGS, GRID, NO_TOKENS, SMALL, four_runs, write_run

NOTE = "This shows the machinery and is not a ranking of methods."
FIGURES = ("losses", "missing-regions", "severity-imagenet-c", "findings", "pretraining-curves", "training-curves")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--virtual-time-budget=5000", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
# Presses the head of the first model's column, and writes down what can be seen.
PROBE = """<script>
const table = document.querySelector("#results table.sortable");
table.tHead.rows[0].cells[1].querySelector("button").click();
const boxes = [...document.querySelectorAll("figure .wide svg")].map(svg => svg.getBoundingClientRect());
document.body.dataset.figures = boxes.filter(box => box.width > 300 && box.height > 100).length;
document.body.dataset.sorted = [...table.tBodies[0].rows].map(row => row.cells[1].dataset.sort).join(" ");
document.body.dataset.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.body.dataset.requests = performance.getEntriesByType("resource").length;
</script>"""
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """The page as its tags: every id, every reference, and whether all tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    return four_runs(tmp_path_factory.mktemp("stress"))


@pytest.fixture(scope="module")
def report(folders, tmp_path_factory) -> Path:
    return build_report(folders, tmp_path_factory.mktemp("report") / "out", title="Four models", note=NOTE)


@pytest.fixture(scope="module")
def page(report) -> Page:
    return Page(report.read_text(encoding="utf-8"))


def test_every_figure_lies_beside_the_page_and_in_it(report, page):
    for name in FIGURES:
        assert (report.parent / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (report.parent / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert f"figure-{name}" in page.ids


def test_the_numbers_are_the_results(report, folders):
    numbers = report.parent / "numbers"
    given = pd.concat([pd.read_parquet(folder / "results.parquet") for folder in folders], ignore_index=True)
    results = pd.read_parquet(numbers / "results.parquet")
    pd.testing.assert_frame_equal(results.drop(columns="note"), given, check_dtype=False)
    assert (results["note"] == "").all()  # these folders are of before there was such a column
    for file in numbers.glob("*.parquet"):
        in_text, table = pd.read_csv(file.with_suffix(".csv")), pd.read_parquet(file)
        pd.testing.assert_frame_equal(
            in_text.drop(columns="note", errors="ignore"),
            table.drop(columns="note", errors="ignore"),
            check_dtype=False,
        )


def test_the_page_is_well_formed_and_its_ids_are_unique(page):
    assert not page.open
    assert not [name for name, count in Counter(page.ids).items() if count > 1]


def test_the_page_needs_no_network(report, page):
    outside = [r for r in page.references if not r.startswith(("#", "data:"))]
    assert not outside
    assert {r[1:] for r in page.references if r.startswith("#") and r != "#"} <= set(page.ids)
    text = report.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.findall(r"@import|url\((?!#)", text)


def test_figures_refer_to_their_own_clip_paths(report, page):
    used = re.findall(r"url\(#([^)]+)\)", report.read_text(encoding="utf-8"))
    assert used
    assert set(used) <= set(page.ids)


def test_what_the_reader_must_know_is_said(page):
    assert NOTE in page.text
    assert page.text.count(NO_TOKENS) >= 2
    assert "Pleural Other (no positives among 226 labelled images)" in page.text
    assert "No interval, too few patients with or without the finding: Fracture" in page.text
    assert "no interval" in page.text
    assert "MAE was trained with Gaussian blur" in page.text
    assert "226 images of 180 patients" in page.text
    for name in FINDINGS:
        assert name in page.text


def test_the_headline_shows_every_model_under_every_named_condition(folders):
    runs = read_runs(folders)
    macro = scores(stack(runs))
    rows = by_condition(macro, headline(macro), [run.label for run in runs])
    assert [row.label for row in rows[:4]] == [
        *("Clean", "Tokens removed, 70\u00a0%", "Patches black, 70\u00a0%", "Patches at the data-set mean, 70\u00a0%")
    ]
    assert len(rows) == 4 + 2 * 5
    assert all(len(row.cells) == 4 for row in rows)
    assert rows[1].cells[3].number is None
    assert rows[1].cells[3].status == NO_TOKENS
    assert [cell.seen for cell in rows[-1].cells] == [False, True, False, False]


def test_all_three_drops_stand_beside_what_is_left(page):
    # From the fixture: 0.784 clean, exp(-0.45 x 0.49 x 0.7) of its skill left.
    told = (
        "MSN falls from 0.784 to 0.743, a drop of 0.041 (0.023 to 0.059): 5.2 % of its clean value, "
        "14.3 % of its skill above chance."
    )
    assert told in page.text


def test_nothing_of_an_image_or_a_patient_is_written(tmp_path):
    folder = write_run(tmp_path / "run", "MSN", grid=SMALL, curves=False)
    secret = pd.DataFrame({"image_key": ["secret-image"], "patient_id": ["secret-patient"]})
    secret.to_parquet(folder / "scores.parquet")
    secret.to_parquet(folder / "labels.parquet")
    results = pd.read_parquet(folder / "results.parquet")
    results.assign(patient_id="secret-patient").to_parquet(folder / "results.parquet")
    build_report([folder], tmp_path / "out", title="One model")
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) > 10
    assert not [file.name for file in files if b"secret" in file.read_bytes() or b"patient_id" in file.read_bytes()]


def test_the_same_folders_give_the_same_bytes(tmp_path):
    folder = write_run(tmp_path / "run", "MSN", grid=SMALL)
    for out in ("one", "two"):
        build_report([folder], tmp_path / out, title="One model")
    for file in (tmp_path / "one").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes(), file.name


def test_names_are_escaped(tmp_path):
    folder = write_run(tmp_path / "run", '<script>a</script> $x_{1}$ & "b"', kind="cnn", method="<i>", grid=SMALL)
    report = build_report([folder], tmp_path / "out", title="<b>T", note="a < b")
    text = report.read_text(encoding="utf-8")
    assert "<script>a" not in text
    assert "<b>T" not in text
    assert not Page(text).open
    assert "<title>&lt;b&gt;T</title>" in text


def test_without_curves_there_is_no_section_of_curves(tmp_path):
    earlier = tmp_path / "out" / "figures" / "training-curves.png"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    report = build_report(
        [write_run(tmp_path / "run", "CNN", kind="cnn", grid=SMALL, curves=False)], tmp_path / "out", title="T"
    )
    page = Page(report.read_text(encoding="utf-8"))
    assert "curves" not in page.ids
    assert "#curves" not in page.references
    assert not list((tmp_path / "out" / "figures").glob("*curves*"))


def test_curves_take_what_was_logged():
    log = pd.DataFrame(
        {"epoch": [0, 0, 1], "step": [4, 9, 19], "train/loss": [3.0, 1.0, 1.5], "auroc": [None, 0.6, 0.7]}
    )
    long = tidy(log)
    assert long[long.metric == "loss"].value.tolist() == [2.0, 1.5]
    assert set(long.split[long.metric == "auroc"]) == {"train"}
    assert tidy(log.iloc[:2]).axis.unique().tolist() == ["step"]
    assert tidy(log.drop(columns="step").iloc[:2]).axis.unique().tolist() == ["epoch"]


def test_rank_and_neighbours_have_a_panel_where_they_were_logged(tmp_path):
    folder = write_run(tmp_path / "run", "MSN")
    log = pd.read_csv(folder / "pretraining.csv")
    assert [panel.title for panel in pretraining_panels(stage_curves([read_run(folder)], "pretraining"))] == ["MSN"]
    log["health/effective_rank"] = 5.0
    log["probe/knn_macro_auroc"] = [0.6 if epoch % 5 == 0 else None for epoch in log.epoch]
    log["train/gradient_norm"] = float("inf")
    log.to_csv(folder / "pretraining.csv", index=False)
    panels = pretraining_panels(stage_curves([read_run(folder)], "pretraining"))
    assert [panel.title for panel in panels] == ["MSN", "Effective rank", "Macro AUROC, 20 neighbours"]
    assert [len(panel.lines) for panel in panels[1:]] == [60, 12]
    report = build_report([folder], tmp_path / "out", title="T")
    assert (report.parent / "figures" / "pretraining-curves.svg").is_file()


def test_a_run_that_logged_nothing_usable_has_no_curve(tmp_path):
    folder = write_run(tmp_path / "run", "MSN", curves=False)
    (folder / "training.csv").write_text("")
    (folder / "pretraining.csv").write_text("note\nnothing\n")
    runs = [read_run(folder)]
    assert stage_curves(runs, "training").empty
    assert training_panels(stage_curves(runs, "pretraining")) == []


intervals = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda ends: Number(sum(ends) / 2, min(ends), max(ends)))


@given(intervals, intervals)
def test_models_are_ordered_exactly_where_their_intervals_do_not_meet(a, b):
    text = order({"A": a, "B": b}, "is higher", comparable=True)
    assert ("A is higher than B" in text) == (b.high < a.low)
    assert ("B is higher than A" in text) == (a.high < b.low)
    assert ("no ranking" in text) == (a.low <= b.high and b.low <= a.high)


def test_only_the_pairs_that_are_apart_are_ordered():
    numbers = {"A": Number(0.9, 0.85, 0.95), "B": Number(0.7, 0.65, 0.75), "C": Number(0.8, 0.7, 0.9)}
    told = (
        "Told apart by intervals that do not meet: A is higher than B. All other intervals overlap and give no order."
    )
    assert order(numbers, "is higher", comparable=True) == told
    assert order(numbers, "is higher", comparable=False) == ""
    bare = {"A": numbers["A"], "B": Number(0.7, float("nan"), float("nan"))}
    assert "nothing ranks" in order(bare, "is higher", comparable=True)


def test_overlap_draws_no_ranking(tmp_path):
    runs = read_runs([write_run(tmp_path / n, n, clean=c, width=0.05) for n, c in (("A", 0.75), ("B", 0.78))])
    clean, missing, *_ = summary(runs)
    assert clean.conclusion == "All intervals overlap: no ranking of the models can be drawn from this."
    assert "no ranking" in missing.conclusion


def test_a_model_at_chance_is_called_so(tmp_path):
    (clean, *_) = summary(read_runs([write_run(tmp_path / "run", "A", clean=0.52, width=0.05)]))
    assert "cannot be told from chance" in clean.lines[0]
    assert clean.conclusion == ""


def test_where_there_is_no_skill_no_share_of_it_is_told(tmp_path):
    (_, missing, *_) = summary(read_runs([write_run(tmp_path / "run", "A", clean=0.52)]))
    assert "too small for a share" in missing.lines[0]
    assert "above chance." not in missing.lines[0]


def test_what_is_missing_says_why(tmp_path):
    folder = write_run(tmp_path / "run", "A", grid=SMALL, curves=False)
    few, unskilled = "no interval: fewer than 10 patients", "no drop above chance: the clean value is not surely so"
    table = pd.read_parquet(folder / "results.parquet")
    ends = [column for column in table if column.endswith(("low", "high"))]
    table = table.assign(above_chance_drop=np.nan, note=f"{few}; {unskilled}", **dict.fromkeys(ends, np.nan))
    single = (table["corruption"] == "clean") & (table["finding"] == "Edema")
    table.loc[single, ["value", "low", "high", "note"]] = [1.0, 1.0, 1.0, NO_WIDTH]
    table.to_parquet(folder / "results.parquet", index=False)
    page = Page(build_report([folder], tmp_path / "report", title="T").read_text(encoding="utf-8"))
    assert few in page.text and unskilled in page.text
    assert f"1.000 1.000 to 1.000, {NO_WIDTH}" in page.text
    assert "No interval, fewer than 10 patients: the macro AUROC, Atelectasis" in page.text
    assert "not surely above chance, so no share of its skill is told" in page.text
    assert "undefined" not in page.text and "nan" not in page.text.split()


def test_a_rise_is_not_told_as_a_drop(tmp_path):
    (_, missing, hard) = summary(read_runs([write_run(tmp_path / "run", "A", fragility=-0.2)]))
    assert missing.lines[0].startswith(
        "A rises from 0.780 to 0.791, a gain of 0.011 (\u22120.007 to 0.029). The interval"
    )
    assert hard.lines == ["A is lowered by none of them."]


def test_a_collapse_is_called_so(tmp_path):
    (_, missing, *_) = summary(read_runs([write_run(tmp_path / "run", "A", fragility=9)]))
    assert "What is left cannot be told from chance." in missing.lines[0]


def test_pixels_and_tokens_are_not_compared(folders):
    (_, missing, *_) = summary(read_runs(folders))
    assert "No tokens could be removed from ResNet-50 from scratch" in missing.lines[-1]
    assert missing.conclusion.startswith(
        "Told apart by intervals that do not meet: SimSiam loses more than MAE and MSN."
    )
    assert "ResNet" not in missing.conclusion


def test_other_severities_have_a_summary_and_a_card(tmp_path):
    grid = [("clean", 0.0), ("patches-image-mean", 0.4), ("gaussian-blur", 3.0), ("gaussian-noise", 2.0)]
    run = read_run(write_run(tmp_path / "run", "A", grid=grid, curves=False))
    _, missing, hard = summary([run])
    assert missing.lead == "With 40\u00a0% of the patches gone (patches at the image mean)"
    assert missing.lines[0].startswith("A falls from")
    assert hard.lead == "When the image is degraded, at severities 2 and 3"
    assert "A suffers most from Gaussian blur at severity 3" in hard.lines[0]
    assert "Gaussian noise at severity 2" in hard.lines[0]
    conditions = card_of(run).tables[0]
    assert conditions.title.endswith("what costs most at severities 2 and 3")
    costly = ["Gaussian blur, severity 3", "Gaussian noise, severity 2"]
    assert [row[0] for row in conditions.rows] == ["Clean", "Patches at the image mean, 40\u00a0%", *costly]


def test_conditions_of_its_own_are_told_like_ours(tmp_path):
    grid = [("clean", 0.0), ("scanner of 1997", 1.0), ("scanner of 1997", 2.0), ("fog", 1.0)]
    run = read_run(write_run(tmp_path / "run", "A", grid=grid, curves=False))
    _, hard = summary([run])
    assert "A suffers most from scanner of 1997 at severity 2" in hard.lines[0] and "fog at severity 1" in hard.lines[0]
    costly = ["Scanner of 1997, severity 2", "Fog, severity 1"]
    assert [row[0] for row in card_of(run).tables[0].rows] == ["Clean", *costly]


def test_models_that_lose_regions_in_other_ways_are_not_compared(tmp_path):
    grids = {"A": ("patches-black", 0.5), "B": ("patches-image-mean", 0.5)}
    runs = read_runs([write_run(tmp_path / n, n, grid=[("clean", 0.0), way]) for n, way in grids.items()])
    (_, missing) = summary(runs)
    assert missing.lines[-1].startswith(
        "Tested in another way, which does not compare with the others: B with patches at"
    )
    assert missing.conclusion == ""


def test_what_is_in_doubt_is_told_in_the_report_and_on_the_card(tmp_path):
    folder = write_run(tmp_path / "run", "A", grid=SMALL, curves=False, doubts=["Edema ranks below chance"])
    told = "In doubt about A: Edema ranks below chance."
    assert told in Page(build_report([folder], tmp_path / "report", title="T").read_text(encoding="utf-8")).text
    card = build_card(folder, tmp_path / "card")
    assert told in Page(card.read_text(encoding="utf-8")).text
    assert told in (card.parent / "card.md").read_text(encoding="utf-8")


def test_other_data_are_told_and_not_ranked(tmp_path):
    runs = read_runs([write_run(tmp_path / data, "MSN", data=data) for data in ("nih14", "padchest")])
    assert [run.label for run in runs] == ["MSN on nih14", "MSN on padchest"]
    assert any("tested on different data" in caution for caution in cautions(runs))
    assert all(not point.conclusion for point in summary(runs))


def test_other_findings_and_an_unfinished_run_are_told(tmp_path):
    whole = write_run(tmp_path / "a", "A")
    part = write_run(tmp_path / "b", "B", status="running", findings=["Edema"], policy={"uncertain": "ones"})
    told = " ".join(cautions(read_runs([whole, part])))
    assert "over different findings" in told
    assert "uncertain or blank labels differently" in told
    assert "The stress test of B is unfinished" in told


def test_a_bare_record_is_enough(tmp_path):
    folder = write_run(tmp_path / "run", "MSN", grid=SMALL, curves=False)
    (folder / "run.json").write_text('{"schema_version": 1, "kind": "stress", "model": {"name": "MSN"}}')
    report = build_report([folder], tmp_path / "out", title="T")
    assert "not recorded" in report.read_text(encoding="utf-8")


def test_the_report_reads_what_the_stress_test_writes():
    assert [*COLUMNS, "note"] == list(evaluation_results.COLUMNS)  # which older folders lack
    assert SCHEMA == result_folder.SCHEMA_VERSION
    assert set(GRID) < {(c.corruption, c.severity) for c in (*standard_grid(), *pixel_fills())}


def test_conditions_are_in_the_order_of_the_grid(folders):
    shown = conditions(stack(read_runs(folders[:1])))
    assert len(shown) == 1 + 3 * 10 + 5 * 5
    assert [c.corruption for c in shown[:2]] == ["clean", "tokens-removed"]
    assert shown[-1] == ("gaussian-blur", 5)


def _no_results(folder: Path) -> None:
    (folder / "results.parquet").unlink()


def _torn_results(folder: Path) -> None:
    (folder / "results.parquet").write_bytes(b"PAR1 and then nothing")


def _lost_column(folder: Path) -> None:
    pd.read_parquet(folder / "results.parquet").drop(columns="low").to_parquet(folder / "results.parquet")


def _no_clean(folder: Path) -> None:
    table = pd.read_parquet(folder / "results.parquet")
    table[table.corruption != "clean"].to_parquet(folder / "results.parquet")


def _record(text: str):
    return lambda folder: (folder / "run.json").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_results, "no results yet"),
        (_torn_results, "cannot be read"),
        (_lost_column, "lacks low"),
        (_no_clean, "no result on clean images"),
        (lambda folder: (folder / "run.json").unlink(), "no file"),
        (_record("{"), "not valid JSON"),
        (_record("[]"), "holds no stress test"),
        (_record('{"kind": "pretraining"}'), "holds no stress test"),
        (_record('{"kind": "stress", "schema_version": 2, "model": {"name": "A"}}'), "result schema 2"),
        (_record('{"kind": "stress", "schema_version": 1, "model": {}}'), "names no model"),
    ],
)
def test_a_folder_that_cannot_be_reported_is_refused_in_one_line(tmp_path, spoil, message):
    folder = write_run(tmp_path / "run", "MSN", curves=False)
    spoil(folder)
    with pytest.raises(UserError, match=message) as raised:
        build_report([folder], tmp_path / "out", title="T")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_no_folder_the_same_twice_and_a_file_in_the_way_are_refused(tmp_path):
    folder = write_run(tmp_path / "run", "MSN", curves=False)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="at least one stress folder"):
        build_report([], tmp_path / "out", title="T")
    with pytest.raises(UserError, match="no stress folder"):
        build_report([tmp_path / "absent"], tmp_path / "out", title="T")
    with pytest.raises(UserError, match="both called"):
        build_report([folder, folder], tmp_path / "out", title="T")
    with pytest.raises(UserError, match="is a file"):
        build_report([folder], tmp_path / "file", title="T")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(BROWSERS)})")
    return found


@pytest.fixture(scope="module")
def seen(browser, report, tmp_path_factory) -> subprocess.CompletedProcess:
    folder = tmp_path_factory.mktemp("browser")
    probed = folder / "probed.html"
    probed.write_text(report.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [browser, *FLAGS, profile, "--window-size=1200,900", "--dump-dom", probed.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def _noted(seen: subprocess.CompletedProcess, name: str) -> str:
    return re.search(rf'data-{name}="([^"]*)"', seen.stdout)[1]


def test_all_figures_are_drawn(seen):
    assert _noted(seen, "figures") == str(len(FIGURES))


def test_the_console_is_silent(seen):
    assert "CONSOLE" not in seen.stderr


def test_nothing_is_requested(seen):
    assert _noted(seen, "requests") == "0"


def test_a_press_on_a_head_sorts_the_table(seen):
    values = [float(value) for value in _noted(seen, "sorted").split()]
    assert len(values) == 14
    assert values == sorted(values)


def test_the_page_is_not_wider_than_the_window(seen):
    assert int(_noted(seen, "overflow")) <= 0
