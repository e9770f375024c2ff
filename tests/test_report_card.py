"""The robustness card: what it says of one model, in both formats, and what it never says."""

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexmsn.core.errors import UserError
from chexmsn.evaluation.judge import JudgeConfig, judge
from chexmsn.report.card import build_card, card_of
from chexmsn.report.pages import escaped, table_lines
from chexmsn.report.results import read_run
from scored_folders import labels_of, write_scored
from stress_folders import FINDINGS, LEFT_OUT, write_run
from test_report import Page

LADDER = (("clean", 0.0), ("patches-black", 0.7), ("gaussian-blur", 5.0), ("rotation", 5.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("card")
    told = {
        "conditions": LADDER,
        "thresholds": {"Edema": 0.5, "Mass": 0.5},
        "command": "chexmsn stress --out runs/good",
    }
    write_scored(home / "good", "good", labels_of(), noise=0.8, harm=0.4, resamples=200, **told)
    (folder,) = judge(JudgeConfig(runs=(home / "good",)))
    return folder


@pytest.fixture(scope="module")
def card(folder, tmp_path_factory) -> Path:
    return build_card(folder, tmp_path_factory.mktemp("out") / "card")


def test_both_formats_say_the_same(folder, card):
    html = Page(card.read_text(encoding="utf-8"))
    markdown = re.sub(r"\\(.)", r"\1", (card.parent / "card.md").read_text(encoding="utf-8"))
    told = card_of(read_run(folder))
    assert not html.open
    cells = [cell for table in told.tables for row in (table.head, *table.rows) for cell in row]
    lines = [line for point in told.points for line in point.lines]
    for text in (told.name, *cells, *lines, *told.limits, told.command, *(value for _, value in told.about)):
        assert " ".join(text.split()) in html.text
        assert " ".join(text.split()) in " ".join(markdown.split())


def test_its_numbers_are_those_of_the_tables(folder):
    tables = {table.title: table for table in card_of(read_run(folder)).tables}
    results = pd.read_parquet(folder / "results.parquet")
    macro = results[(results.finding == "macro") & (results.metric == "auroc")].set_index("corruption")
    assert tables["Headline numbers"].rows[0][1].startswith(f"{macro.value['clean']:.3f} (")
    assert [row[0] for row in tables["Headline numbers"].rows] == ["Clean", "Patches black, 70\u00a0%"]
    worst = macro.absolute_drop[["gaussian-blur", "rotation"]].idxmax()
    assert tables["What costs most at severity 5"].rows[0][1].startswith(f"{macro.value[worst]:.3f} (")
    operating = pd.read_parquet(folder / "operating.parquet").set_index(["corruption", "metric", "finding"])
    clean = operating.value["clean", "sensitivity", "macro"]
    assert tables["Probabilities and thresholds"].rows[2][:2][0] == "Sensitivity"
    assert tables["Probabilities and thresholds"].rows[2][1].startswith(f"{clean:.3f} (")
    groups = {row[0]: row for row in tables["Subgroups"].rows}
    assert {"Women", "Men"} < set(groups)
    gap = pd.read_parquet(folder / "group_differences.parquet").set_index(["level", "finding", "corruption"])
    lost = gap.absolute_drop["M", "macro", "patches-black"]
    assert groups["Men"][4].startswith(f"{lost:.3f} (".replace("-", "\u2212")) and groups["Women"][4] == "the largest"


def test_a_card_of_an_earlier_folder_leaves_out_what_is_not_known(tmp_path):
    folder = write_run(tmp_path / "run", "MSN", curves=False, seen=["gaussian-blur"])
    card = card_of(read_run(folder))
    assert {table.title for table in card.tables} == {"Headline numbers", "What costs most at severity 5", "Findings"}
    assert len(next(table for table in card.tables if table.title == "Findings").rows) == len(FINDINGS) - len(LEFT_OUT)
    assert any("(seen in training)" in row[0] for table in card.tables for row in table.rows)
    assert any("Pleural Other" in line for line in card.cautions)


def test_no_skill_is_not_divided_by(tmp_path):
    card = card_of(read_run(write_run(tmp_path / "run", "MSN", clean=0.51, curves=False)))
    assert {row[3] for row in card.tables[0].rows[1:]} == {"no skill to lose"}


def test_a_card_names_no_image_and_no_patient(folder, card):
    labels = pd.read_parquet(folder / "labels.parquet")
    for name in ("card.html", "card.md"):
        text = (card.parent / name).read_text(encoding="utf-8")
        assert not [key for key in (*labels.image_key, *labels.patient_id.unique()) if f" {key} " in text]
    assert "default-src 'none'" in card.read_text(encoding="utf-8")


def test_names_are_escaped_in_both_formats(tmp_path):
    folder = write_run(tmp_path / "run", "<b>a|b</b> `x` _y_", curves=False)
    html = build_card(folder, tmp_path / "out").read_text(encoding="utf-8")
    markdown = (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    assert "<b>a" not in html
    assert r"# Robustness of \<b\>a\|b\</b\> \`x\` \_y\_" in markdown


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_a_cell_stays_one_cell(cells):
    (line,) = table_lines([cells])
    assert "\n" not in line
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(cells) + 1


@given(st.text())
def test_escaping_keeps_the_words(text):
    assert re.sub(r"\\(.)", r"\1", escaped(text)) == " ".join(text.split())


def test_a_card_replaces_a_card_and_nothing_else(folder, card, tmp_path):
    before = card.read_bytes()
    assert build_card(folder, card.parent).read_bytes() == before
    (tmp_path / "README.md").write_text("precious")
    with pytest.raises(UserError, match="which no report wrote"):
        build_card(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(UserError, match="no stress folder"):
        build_card(tmp_path / "absent", tmp_path / "out")
