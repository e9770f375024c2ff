"""The furniture: what a visitor reads and types before any code of ours runs."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from chexmsn.core.lookup import names
from chexmsn.recipes.arguments import command_parser, parse

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
JOBS = ROOT / "slurm" / "job-scripts"
SHELL = [*sorted(JOBS.glob("*.sh")), ROOT / ".ci" / "run"]
PUBLISHED = [
    "python ssl-trainer.py -m msn -d $DATA_DIR  -b 128 --pm True -w 24  --mr 0.30 --pn 1024 --lr 0.0001 --wd 0.001"
    " --ngpus 1 --acc 'gpu' -e 100 -p 16 --esd 0.0001",
    "python downstream-trainer.py --tm 'transformer' -d $DATA_DIR --ckpt $CKPT_DIR --dp 1.0 -b 128 --pm True -w 24"
    " --mr 0.15 -c 14 --lr 0.0001 --wd 0.001 -f False --ngpus 1 --acc 'gpu' -e 100 -p 32 --esd 0.0001",
]


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# --- README and the other pages


@pytest.mark.parametrize("words", ["make demo", "make test", *PUBLISHED])
def test_readme_gives_the_commands_word_for_word(words):
    assert words in README


def the_map() -> list[str]:
    block = re.search(r"<!-- map -->\n```\n(.*?)```", README, re.DOTALL)
    return [line.split()[0] for line in block.group(1).splitlines()]


def test_every_path_of_the_map_exists():
    assert [path for path in the_map() if not (ROOT / path).exists()] == []


def test_every_package_is_on_the_map():
    packages = {init.parent.name for init in (ROOT / "src" / "chexmsn").glob("*/__init__.py")}
    assert packages - {Path(path).parts[2] for path in the_map() if path.startswith("src/chexmsn/")} == set()


def test_links_between_the_pages_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]
    assert links
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_every_source_has_a_page_and_the_index_names_it():
    pages = ROOT / "docs" / "collections"
    index = (pages / "README.md").read_text(encoding="utf-8")
    for name in names("chexmsn.data.sources"):
        assert (pages / f"{name}.md").is_file(), name
        assert f"| [{name}]({name}.md) |" in index


def commands_of(text: str) -> list[list[str]]:
    """The words of every line that begins with `chexmsn`, in a block or not."""
    lines = re.findall(r"^ *(chexmsn .*)$", text.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


PAGES = {str(page.relative_to(ROOT)): page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
WITH_COMMANDS = [name for name, page in PAGES.items() if commands_of(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_the_commands_of_the_pages_parse(name, tmp_path, monkeypatch):
    text = PAGES[name].read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for file, content in re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        Path(file).write_text(content, encoding="utf-8")  # a page shows the files that its commands take
    for words in commands_of(text):
        parse(words[0], words[1:])


@pytest.mark.parametrize("name", PAGES)
def test_options_named_on_the_pages_are_there(name):
    """Of commands within a sentence, which may be a part of one."""
    for said in re.findall(r"`(chexmsn [^`]+ --[^`]+)`", PAGES[name].read_text(encoding="utf-8")):
        command, *words = shlex.split(said)[1:]
        choices = words[:-1] if words[-1].startswith("--") else words  # an option alone, without its value
        known = [action.dest for action in command_parser(command, choices)._actions]
        given = [word.removeprefix("--") for word in words if word.startswith("--")]
        assert [option for option in given if option not in known and option.partition(".")[0] not in known] == [], said


# --- files with a format


def test_citation_agrees_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])


def test_licence_is_the_whole_apache_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "9. Accepting Warranty or Additional Liability" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


def test_conda_environment_installs_this_project_with_the_tested_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--constraint constraints.txt", "--editable .[test]"]
    assert not re.search(r"https?://", (ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_constraints_pin_every_direct_dependency_within_its_bounds():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    direct = map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])
    assert [str(need) for need in direct if not need.specifier.contains(pins.get(need.name, "0"))] == []


def test_notebook_is_valid_and_holds_no_results():
    notebook = nbformat.read(ROOT / "notebooks" / "inference.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


# --- make


def test_make_help_lists_the_targets():
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "lint", "campaign", "clean", "help"):
        assert re.search(rf"^make {target} +\w+", told, re.MULTILINE), target


@pytest.mark.parametrize(
    ("interpreter", "told"),
    [
        (None, "needs Python 3.11 or newer"),
        ('case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac', "is Python 3.9.2"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "install its venv module"),
    ],
    ids=["missing", "too old", "without venv"],
)
def test_make_says_what_is_wrong_with_the_interpreter(tmp_path, interpreter, told):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    if interpreter:
        executable(python, interpreter)
    made = subprocess.run(["make", "demo", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0
    assert told in made.stderr
    assert not (tmp_path / ".venv").exists()


# --- job scripts, on a Slurm that is played


def executable(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path):
    """A submission folder, and an environment in which srun runs its command and scontrol takes notes."""
    programs, submitted = tmp_path / "bin", tmp_path / "submitted"
    programs.mkdir()
    shutil.copytree(JOBS, submitted / "slurm" / "job-scripts")
    executable(programs / "srun", '[ "$1" = --kill-on-bad-exit=1 ] && shift; exec "$@"')
    executable(programs / "scontrol", f'echo "$@" >> {tmp_path}/scontrol.log')
    executable(programs / "trainer", 'printf "%s\\n" "$@"')
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(submitted), "SLURM_JOB_ID": "77"}
    return tmp_path, environment | {"PYTHON": "trainer", "DATA_DIR": "a folder"}


def options_of(told: str) -> dict[str, str]:
    words = told.splitlines()[1:]
    return dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_shell_scripts_are_valid_and_of_no_particular_site(script):
    subprocess.run(["bash", "-n", script], check=True)
    own_words = script.read_text(encoding="utf-8").replace("#!/usr/bin/env bash", "").replace("/dev/null", "")
    assert not re.search(r'(?<![\w.$})"*])/[a-z]+/', own_words)
    assert not re.search(r"^#SBATCH --(partition|account|qos|mail)|^ *module load", own_words, re.MULTILINE)


@pytest.mark.parametrize(("script", "command"), [("ssl-trainer", PUBLISHED[0]), ("downstream-trainer", PUBLISHED[1])])
def test_job_gives_the_published_settings(slurm, script, command):
    _, environment = slurm
    told = subprocess.run([JOBS / f"{script}.sh"], env=environment, capture_output=True, text=True, check=True).stdout
    values = {"$DATA_DIR": "a folder", "$CKPT_DIR": "runs/ssl-msn-seed0"}
    words = [values.get(word, word) for word in command.replace("'", "").split()[2:]]
    published = dict(zip(words[::2], words[1::2], strict=True))
    assert published.items() <= options_of(told).items()


def test_every_element_of_an_array_has_its_own_seed_and_folder(slurm):
    _, environment = slurm
    runs = []
    for element in "03":
        words = {"env": environment | {"SLURM_ARRAY_TASK_ID": element, "SEED": "10"}, "capture_output": True}
        told = subprocess.run([JOBS / "downstream-trainer.sh"], text=True, check=True, **words).stdout
        runs.append(options_of(told))
    assert [run["--seed"] for run in runs] == ["10", "13"]
    assert [run["--ckpt"] for run in runs] == ["runs/ssl-msn-seed10", "runs/ssl-msn-seed13"]
    assert runs[0]["--out"] != runs[1]["--out"]


def test_packing_in_an_array_makes_the_shard_of_each_element_and_without_one_the_pack(slurm):
    _, environment = slurm
    environment |= {"SOURCE": "csv", "OUT": "a pack", "SHARDS": "16"}
    job = JOBS / "prepare.sh"
    words = {"capture_output": True, "text": True}
    shard = subprocess.run([job], env=environment | {"SLURM_ARRAY_TASK_ID": "3"}, **words).stdout.splitlines()
    assert shard == ["-m", "chexmsn", "prepare", "csv", "a folder", "a pack", "--workers", "4", "--shard", "3/16"]
    whole = subprocess.run([job, "--merge", "16"], env=environment, **words).stdout.splitlines()
    assert whole == [*shard[:-2], "--merge", "16"]
    parse("prepare", shard[3:])
    parse("prepare", whole[3:])
    del environment["SHARDS"]
    ended = subprocess.run([job], env=environment | {"SLURM_ARRAY_TASK_ID": "3"}, **words)
    assert ended.returncode != 0
    assert "set SHARDS to how many shards there are in all" in ended.stderr


def test_job_without_data_says_what_to_set(slurm):
    _, environment = slurm
    del environment["DATA_DIR"]
    ended = subprocess.run([JOBS / "ssl-trainer.sh"], env=environment, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "set DATA_DIR to a MIMIC-CXR-JPG folder or a pack" in ended.stderr


def test_job_ends_as_its_trainer_does(slurm):
    folder, environment = slurm
    executable(folder / "bin" / "trainer", "exit 2")
    assert subprocess.run([JOBS / "ssl-trainer.sh"], env=environment).returncode == 2
    assert not (folder / "scontrol.log").exists()


@pytest.mark.parametrize(
    ("sent", "code", "requeued"), [(signal.SIGUSR1, 0, "requeue 77\n"), (signal.SIGTERM, 143, "")], ids=["USR1", "TERM"]
)
def test_job_stops_its_trainer_and_asks_for_another_turn_near_the_time_limit(slurm, sent, code, requeued):
    folder, environment = slurm
    body = f"trap 'sleep 0.3; touch {folder}/saved; exit 0' TERM; touch {folder}/started; while :; do sleep 0.1; done"
    executable(folder / "bin" / "trainer", body)
    job = subprocess.Popen([JOBS / "ssl-trainer.sh"], env=environment, stdout=subprocess.DEVNULL)
    while not (folder / "started").exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(sent)
    assert job.wait(timeout=20) == code
    assert (folder / "saved").exists(), "the trainer must have been given the time to stop"
    log = folder / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == requeued


# --- what must not be there


def test_no_radiograph_is_tracked():
    assert [file.name for file in tracked_files() if file.suffix.lower() in {".jpg", ".jpeg", ".dcm", ".dicom"}] == []


def test_no_file_names_a_path_of_a_machine():
    private = re.compile("|".join(f"/{place}/" for place in ("work", "home", "Users", "root", "scratch", "gpfs")))
    text = {".py", ".md", ".yaml", ".yml", ".toml", ".sh", ".cff", ".ipynb", ".txt", ".json", ".svg", ""}
    named = [
        file for file in tracked_files() if file.suffix in text and private.search(file.read_text(encoding="utf-8"))
    ]
    assert [str(file.relative_to(ROOT)) for file in named] == []
