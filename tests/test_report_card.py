"""The robustness card: what it says of one model, in both formats, and what it never says."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexmsn.core.errors import UserError
from chexmsn.evaluation.judge import JudgeConfig, judge
from chexmsn.report.build import build_report
from chexmsn.report.card import build_card, card_of
from chexmsn.report.pages import escaped, table_lines
from chexmsn.report.results import read_run
from scored_folders import labels_of, write_scored
from stress_folders import FINDINGS, GRID, LEFT_OUT, write_run
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
    pairs = [text for pair in (*told.further, *told.about) for text in pair]
    for text in (told.name, *cells, *lines, *pairs, told.limits, told.command):
        assert " ".join(text.split()) in html.text
        assert " ".join(text.split()) in " ".join(markdown.split())


def test_its_numbers_are_those_of_the_tables(folder):
    card = card_of(read_run(folder))
    conditions, further = card.tables[0], dict(card.further)
    results = pd.read_parquet(folder / "results.parquet")
    macro = results[(results.finding == "macro") & (results.metric == "auroc")].set_index("corruption")
    assert conditions.title.endswith("what costs most at severity 5")
    assert conditions.rows[0][:2] == ["Clean", f"{macro.value['clean']:.3f} ({_ends(macro, 'clean')})"]
    worst = macro.absolute_drop[["gaussian-blur", "rotation"]].idxmax()
    assert conditions.rows[1][0] == "Patches black, 70\u00a0%"
    assert conditions.rows[2][1] == f"{macro.value[worst]:.3f} ({_ends(macro, worst)})"
    operating = pd.read_parquet(folder / "operating.parquet").set_index(["corruption", "metric", "finding"])
    hard, clean = (operating.value[corruption, "sensitivity", "macro"] for corruption in ("patches-black", "clean"))
    told = further["Clean \u2192 patches black, 70\u00a0%"]
    assert re.search(rf"; sensitivity {clean:.3f} \(.*?\) \u2192 {hard:.3f} \(", told)
    women, men = further["By sex, clean macro AUROC, and drop (patches black, 70\u00a0%)"].split("; ")
    gap = pd.read_parquet(folder / "group_differences.parquet").set_index(["level", "finding", "corruption"])
    lost = f"{gap.absolute_drop['M', 'macro', 'patches-black']:.3f}".replace("-", "\u2212")
    assert women.startswith("Women (60 patients) 0.") and "largest" not in women
    assert f", {lost} (" in men and men.endswith("above the largest group's")


def _ends(macro: pd.DataFrame, corruption: str) -> str:
    return f"{macro.low[corruption]:.3f} to {macro.high[corruption]:.3f}"


def test_the_card_is_one_page_and_tells_every_finding(tmp_path):
    draw = np.random.default_rng(0)
    labels = labels_of(300)[["image_key", "patient_id", "sex", "age"]].assign(view=np.tile(["AP", "PA"], 150))
    for finding in FINDINGS:
        labels[f"label:{finding}"] = (draw.random(150) < 0.3).astype(float)[np.arange(300) % 150]
    grid = [(corruption, severity) for corruption, severity in GRID if severity in (0.0, 0.7, 5.0)]
    told = {"conditions": grid, "thresholds": dict.fromkeys(FINDINGS, 0.5), "resamples": 20, "doubts": ["Is it so?"]}
    write_scored(tmp_path / "run", "large", labels, harm=0.2, command="chexmsn stress a b", **told)
    (folder,) = judge(JudgeConfig(runs=(tmp_path / "run",)))
    text = (build_card(folder, tmp_path / "card").parent / "card.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 56
    for word in (*FINDINGS, "Women", "Age 40\u201359", "View AP", "Is it so?", "seed 0", "sensitivity", "stress a b"):
        assert word in text


def test_a_card_of_an_earlier_folder_leaves_out_what_is_not_known(tmp_path):
    folder = write_run(tmp_path / "run", "MSN", curves=False, seen=["impulse-noise"])
    card = card_of(read_run(folder))
    findings, (others,) = card.tables[1], card.further
    assert len(findings.rows) + others[1].count(";") + 1 == len(FINDINGS) - len(LEFT_OUT)
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


def test_places_of_files_are_not_told(tmp_path):
    told = {
        "command": "chexmsn stress /data/ada/runs/vit '/data/ada/my packs/nih' --out ~/runs/s",
        "config": {"anatomy": "/data/ada/my masks"},
        "thresholds_from": "the file /data/ada/thresholds.csv",
        "doubts": ["patients of /data/ada/runs/vit were seen"],
    }
    run = write_run(tmp_path / "run", "A", grid=GRID[:2], curves=False, **told)
    build_card(run, tmp_path / "card")
    build_report([run], tmp_path / "report", title="T")
    for file in ("card/card.html", "card/card.md", "report/report.html"):
        text = (tmp_path / file).read_text(encoding="utf-8")
        assert "/data" not in text and "ada" not in re.findall(r"\w+", text)
        assert "chexmsn stress vit nih --out s" in text and "patients of vit were seen" in text
    assert "ada" in (run / "run.json").read_text()


def test_areas_of_one_severity_of_an_earlier_version_are_refused_with_the_remedy(folder, tmp_path):
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    areas = pd.read_parquet(run / "areas.parquet")
    clean = pd.read_parquet(run / "results.parquet").query("corruption == 'clean' and metric == 'auroc'")
    before = (areas["value"] + areas["finding"].map(clean.set_index("finding")["value"])) / 2
    areas.assign(value=before).to_parquet(run / "areas.parquet", index=False)
    for build in (lambda: build_card(run, tmp_path / "card"), lambda: build_report([run], tmp_path / "r", title="T")):
        with pytest.raises(UserError, match=r"areas over one severity are those of an earlier .*give `chexmsn judge"):
            build()
    assert not (tmp_path / "card").exists()
    judge(JudgeConfig(runs=(run,)))
    build_card(run, tmp_path / "card")


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
