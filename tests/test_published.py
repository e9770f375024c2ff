"""The published commands, word for word, and the same at a size a laptop finishes."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from chexmsn.core.errors import UserError
from chexmsn.models.artefact import load_classifier, load_encoder
from chexmsn.recipes.arguments import run_command
from chexmsn.recipes.published import pretrain_as_published, train_as_published
from chexmsn.recipes.recipe import read_stages

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "mimic-cxr-corrected.yaml"
PRETRAIN = (
    "ssl-trainer.py -m msn -d $DATA_DIR  -b 128 --pm True -w 24  --mr 0.30 --pn 1024 --lr 0.0001 --wd 0.001 "
    "--ngpus 1 --acc 'gpu' -e 100 -p 16 --esd 0.0001"
)
TRAIN = (
    "downstream-trainer.py --tm 'transformer' -d $DATA_DIR --ckpt $CKPT_DIR --dp 1.0 -b 128 --pm True -w 24 --mr 0.15 "
    "-c 14 --lr 0.0001 --wd 0.001 -f False --ngpus 1 --acc 'gpu' -e 100 -p 32 --esd 0.0001"
)
TINY = ["--encoder", "vit_micro", "--size", "64"]
SMALL = ["-b", "16", "--pm", "True", "-w", "1", "--acc", "cpu", "-e", "1", "-p", "32", "--esd", "0.0001"]


@pytest.fixture(scope="module")
def mimic(tmp_path_factory) -> Path:
    """A raw folder in MIMIC-CXR-JPG's layout."""
    folder = tmp_path_factory.mktemp("mimic") / "physionet"
    run_command("fake", ["mimic-cxr-jpg", str(folder), "--patients", "60", "--size", "64"])
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    before = os.environ.get("CHEXMSN_CACHE")
    os.environ["CHEXMSN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield Path(os.environ["CHEXMSN_CACHE"])
    os.environ.pop("CHEXMSN_CACHE") if before is None else os.environ.update(CHEXMSN_CACHE=before)


def words(command: str, mimic: Path, checkpoint: Path = Path()) -> list[str]:
    """The words of a published command, as a shell would hand them over."""
    return shlex.split(command.replace("$DATA_DIR", str(mimic)).replace("$CKPT_DIR", str(checkpoint)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens on a machine without a GPU")
@pytest.mark.parametrize("command", [PRETRAIN, TRAIN])
def test_word_for_word_without_a_gpu_it_says_so_and_names_the_remedy(command, mimic, small_run, tmp_path, cache):
    cached = list(cache.iterdir())
    done = subprocess.run(
        [sys.executable, *words(str(ROOT / command), mimic, small_run.encoder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "GPU" in last and "--acc cpu" in last
    assert not list(tmp_path.iterdir())
    assert list(cache.iterdir()) == cached  # nothing is packed for a run that cannot be


def test_the_script_tells_what_is_not_used(tmp_path):
    flags = ["-m", "simsiam", "-d", str(tmp_path), "--mr", "0.3", "--acc", "cpu", "-p", "16"]
    done = subprocess.run([sys.executable, ROOT / "ssl-trainer.py", *flags], capture_output=True, text=True)
    assert done.returncode == 2
    optimiser, told, refused = done.stderr.strip().splitlines()
    assert "AdamW" in optimiser and "--mr 0.3 is not used" in told and "-p 32" in refused


@pytest.fixture(scope="module")
def pretrained(mimic, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "msn"
    flags = ["-m", "msn", "-d", str(mimic), "--mr", "0.30", "--pn", "16", "--lr", "0.0001", "--wd", "0.001"]
    pretrain_as_published([*flags, *SMALL, "--encoder", "vit_micro", "--size", "64", "--out", str(run)], RECIPE)
    return run


def test_pretraining_packs_a_raw_folder_once_and_trains(pretrained, cache):
    (pack,) = cache.iterdir()
    assert (pack / "pack.json").is_file()
    config = json.loads((pretrained / "run.json").read_text())["config"]
    assert config["options"]["mask_ratio"] == 0.30
    assert config["options"]["prototypes"] == 16
    assert config["options"]["weight_decay"] == 0.001
    assert (config["min_delta"], config["patience"]) == (0.0001, 10)
    assert load_encoder(pretrained).config.name == "vit_micro"


@pytest.mark.parametrize("method", ["mae", "simsiam", "pmsn"])
def test_other_methods_say_which_flags_they_do_not_use(method, mimic, tmp_path, caplog):
    caplog.set_level("INFO")
    flags = ["-m", method, "-d", str(mimic), "--mr", "0.5", "--pn", "16", "--encoder", "vit_micro", "--size", "64"]
    pretrain_as_published([*flags, *SMALL, "--out", str(tmp_path / "run")], RECIPE)
    assert ("--pn 16 is not used" in caplog.text) == (method != "pmsn")
    assert ("--mr 0.5 is not used" in caplog.text) == (method == "simsiam")


@pytest.mark.parametrize("freeze", ["False", "True"])
def test_downstream_training(freeze, pretrained, mimic, tmp_path):
    flags = [
        "--tm",
        "transformer",
        "-d",
        str(mimic),
        "--ckpt",
        str(pretrained),
        "--dp",
        "1.0",
        "--mr",
        "0.15",
        "-c",
        "14",
    ]
    train_as_published([*flags, "-f", freeze, *SMALL, "--out", str(tmp_path / "run")], RECIPE)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["validation/macro_auroc"].between(0, 1).all()
    assert load_classifier(tmp_path / "run").findings


def test_what_no_flag_says_the_recipe_decides(pretrained, mimic, tmp_path):
    stages = read_stages(RECIPE)
    pretrain_as_published(["-d", str(mimic), *SMALL, *TINY, "--pn", "64", "--out", str(tmp_path / "msn")], RECIPE)
    flags = ["-d", str(mimic), "--ckpt", str(pretrained), *SMALL, "--out", str(tmp_path / "classifier")]
    train_as_published(flags, RECIPE)
    for run, stage in (("msn", "pretrain"), ("classifier", "train")):
        options = json.loads((tmp_path / run / "run.json").read_text())["config"]["options"]
        silent = {name: value for name, value in stages[stage].values["options"].items() if name != "prototypes"}
        assert {name: options[name] for name in silent} == silent
    assert json.loads((tmp_path / "msn" / "run.json").read_text())["config"]["options"]["weight_decay_final"] == 0.4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--tm", "cnn"], "holds a transformer"),
        (["-c", "13"], "has 14 findings"),
        (["--encoder", "vit_tiny"], "unrecognized arguments: --encoder"),
        (["--dp", "0"], "share"),
        (["-f", "maybe"], "takes True or False"),
        (["--ckpt", "nowhere"], "nowhere"),
        (["-d", "nowhere"], "nowhere"),
    ],
)
def test_flags_that_do_not_fit_are_refused(changed, said, pretrained, mimic, tmp_path):
    flags = ["--tm", "transformer", "-d", str(mimic), "--ckpt", str(pretrained), *SMALL, "--out", str(tmp_path / "run")]
    with pytest.raises(UserError, match=said):
        train_as_published([*flags, *changed], RECIPE)
    assert not (tmp_path / "run").exists()
