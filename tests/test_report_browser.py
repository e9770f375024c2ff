"""The report and the card in a real browser: on a phone, in the dark, on paper, by keyboard."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chexmsn.evaluation.compare import CompareConfig, compare
from chexmsn.evaluation.judge import JudgeConfig, judge
from chexmsn.report.build import build_report
from chexmsn.report.card import build_card
from scored_folders import labels_of, write_scored
from test_report import BROWSERS, FLAGS

LADDER = (("clean", 0.0), ("patches-black", 0.7), ("gaussian-blur", 5.0), ("rotation", 5.0), ("dose", 5.0))
# Walks over the page as a reader without a pointer would, and writes down what happens.
WALK = """<script>
{
const all = selector => [...document.querySelectorAll(selector)];
const press = key => new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true});
const seen = {};

const number = document.querySelector("#results td.number");
number.focus();
seen.tip = tip.hidden ? "" : tip.textContent;
number.dispatchEvent(press("ArrowDown"));
seen.moved = document.activeElement === number.parentElement.nextElementSibling.cells[number.cellIndex];
document.activeElement.dispatchEvent(press("Escape"));
seen.hushed = tip.hidden;

const heads = all("table.sortable thead th");
seen.buttons = heads.length > 20 && heads.every(head => head.querySelector("button")?.tabIndex === 0);
const rises = list => list.every((value, k) => k === 0 || value >= list[k - 1]);
seen.unsorted = all("table.sortable").filter(table => {
  const column = table.tHead.rows[0].cells.length - 1;
  const texts = () => [...table.tBodies[0].rows].map(row => row.cells[column].dataset.sort ?? "");
  const numbers = () => texts().filter(text => text !== "" && !isNaN(text)).map(Number);
  const button = table.tHead.rows[0].cells[column].querySelector("button");
  button.click();
  const up = rises(numbers());
  button.click();
  return !up || !rises(numbers().reverse());
}).length;

seen.csv = csv(document.querySelector("#results table.sortable"));
const link = HTMLAnchorElement.prototype, click = link.click;
link.click = function () { seen.saved = `${this.download} ${this.href.slice(0, 5)}`; };
document.querySelector("#results button.save").click();
link.click = click;

seen.regions = all(".scroll").every(region => region.tabIndex === 0 && region.ariaLabel);
seen.figures = all("figure svg").every(svg => svg.getAttribute("role") === "img" && svg.ariaLabel);
seen.dark = getComputedStyle(document.body).backgroundColor;
document.body.dataset.seen = JSON.stringify(seen);
}
</script>"""
# The page within a frame as wide as a phone: a window cannot be made that narrow everywhere.
PHONE = """<!doctype html><body><iframe width="360" height="780" srcdoc="{page}"></iframe><script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {{
  const inside = frame.contentDocument;
  const shown = [...inside.querySelectorAll("figure svg")].filter(svg => svg.getBoundingClientRect().width > 0);
  document.body.dataset.seen = JSON.stringify({{
    overflow: inside.documentElement.scrollWidth - frame.clientWidth,
    widest: Math.max(0, ...shown.map(svg => svg.getBoundingClientRect().width)),
    figures: shown.length,
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(BROWSERS)})")
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    home, labels = tmp_path_factory.mktemp("pages"), labels_of()
    told = {"conditions": LADDER, "thresholds": {"Edema": 0.5}}
    write_scored(home / "runs" / "good", "a model with a long name, fine-tuned", labels, noise=0.8, harm=0.2, **told)
    write_scored(home / "runs" / "bad", "bad", labels, noise=1.6, harm=1.0, seed=1, **told)
    judge(JudgeConfig(runs=(home / "runs",)))
    compare(CompareConfig(runs=(home / "runs",), out=home / "comparison", resamples=200))
    folders = [home / "runs" / "good", home / "runs" / "bad", home / "comparison"]
    report = build_report(folders, home / "report", title="Two models", note="A note.")
    return {"report": report, "card": build_card(folders[0], home / "card")}


def _run(browser: str, folder: Path, text: str, *flags: str) -> subprocess.CompletedProcess:
    page = folder / "page.html"
    page.write_text(text, encoding="utf-8")
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1200,900", *flags]
    return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)


def _seen(done: subprocess.CompletedProcess) -> dict:
    assert "CONSOLE" not in done.stderr
    return json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', done.stdout)[1]))


def test_the_page_is_read_by_keyboard_and_in_the_dark(browser, pages, tmp_path):
    text = pages["report"].read_text(encoding="utf-8").replace("</body>", f"{WALK}</body>")
    seen = _seen(_run(browser, tmp_path, text, "--dump-dom", "--blink-settings=preferredColorScheme=0"))
    assert re.match(
        r"Clean, .*a model with a long name, fine-tuned: 0\.\d{3} \(.* to .*\)\. Chance that an image", seen["tip"]
    )
    assert seen["moved"] and seen["hushed"] and seen["buttons"] and seen["regions"] and seen["figures"]
    assert seen["unsorted"] == 0
    head, clean, *rest = seen["csv"].splitlines()
    assert head.startswith(
        'Condition,"a model with a long name, fine-tuned","a model with a long name, fine-tuned (interval)"'
    )
    assert (
        re.fullmatch(r"Clean,0\.\d{3,5},0\.\d{3} to 0\.\d{3},0\.\d{3,5},0\.\d{3} to 0\.\d{3}", clean) and len(rest) == 4
    )
    assert seen["saved"] == "macro-auroc-models-by-conditions.csv blob:"
    assert max(map(int, re.findall(r"\d+", seen["dark"])[:3])) < 60


@pytest.mark.parametrize("name", ["report", "card"])
def test_a_phone_needs_no_scrolling_sideways(browser, pages, tmp_path, name):
    page = html.escape(pages[name].read_text(encoding="utf-8"), quote=True)
    seen = _seen(_run(browser, tmp_path, PHONE.format(page=page), "--dump-dom"))
    assert seen["overflow"] <= 0
    assert seen["widest"] <= 360
    assert (seen["figures"] > 5) == (name == "report")


@pytest.mark.parametrize(("name", "pages_at_most"), [("report", 24), ("card", 1)])
def test_it_prints(browser, pages, tmp_path, name, pages_at_most):
    out = tmp_path / "out.pdf"
    _run(browser, tmp_path, pages[name].read_text(encoding="utf-8"), f"--print-to-pdf={out}", "--no-pdf-header-footer")
    count = len(re.findall(rb"/Type\s*/Page\b", out.read_bytes()))
    assert 1 <= count <= pages_at_most
    if name == "report" and (reader := shutil.which("pdftotext")):
        text = subprocess.run([reader, out, "-"], capture_output=True, text=True, timeout=60, check=True).stdout
        assert "Labelled images" in text and "resamples" in text.split("Every parameter", 1)[1]


def test_the_page_stays_small(pages):
    assert pages["report"].stat().st_size < 1_500_000
    assert pages["card"].stat().st_size < 60_000
