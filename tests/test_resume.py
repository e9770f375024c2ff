"""A run that is killed or stopped, whenever, ends as the run that never was."""

import errno
import logging
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import lives
import pytest
import runs
import torch
from lives import Moment

from chexmsn.core.errors import UserError
from chexmsn.training.checkpoints import Checkpoints, StraightToFile, description
from chexmsn.training.run import pretrain, train
from chexmsn.training.run_folder import RunFolder

OFTEN = {"checkpoint_minutes": 0.0}


def pretraining(pack: Path, out: Path, epochs: int = 6):
    """MSN with moving target, schedules and stochastic depth; a checkpoint after every step."""
    config = runs.pretraining(pack, out, epochs=epochs, probe=None, **OFTEN)
    return replace(config, encoder=replace(config.encoder, drop_path=0.2))


def classifier(pack: Path, out: Path, epochs: int = 6):
    """A classifier with validation, the best one kept, and early stopping in sight."""
    return runs.downstream(pack, out, epochs=epochs, patience=3, **OFTEN)


MADE_BY = {"pretraining": pretraining, "classifier": classifier}


@pytest.fixture(scope="module")
def nursery():
    there = lives.start()
    yield there
    lives.stop(there)


@pytest.fixture(scope="module")
def whole(nursery, small_pack, tmp_path_factory):
    """Runs that were never killed, by kind and number of epochs."""
    done = {}

    def run(kind: str, epochs: int = 6) -> Path:
        if (kind, epochs) not in done:
            config = MADE_BY[kind](small_pack, tmp_path_factory.mktemp(kind) / "whole", epochs)
            assert nursery.ending(config) == 0
            done[kind, epochs] = config.out
        return done[kind, epochs]

    return run


def check_same(run: Path, whole: Path) -> None:
    """Weights, optimiser, what the callbacks know, curves, artefacts: all as in the run that was never killed."""
    ours, theirs = (torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in (run, whole))
    for part in ("epoch", "global_step", "state_dict", "optimizer_states"):
        assert alike(ours[part], theirs[part]), part
    known = [{name: state for name, state in c["callbacks"].items() if name != "Meter"} for c in (ours, theirs)]
    assert alike(*known)
    assert runs.history(run).equals(runs.history(whole))
    assert RunFolder(run).finished and RunFolder(run).record["epochs_done"] == RunFolder(whole).record["epochs_done"]
    for file in [*whole.glob("*/*.safetensors"), *whole.glob("classifier/config.json")]:
        assert (run / file.relative_to(whole)).read_bytes() == file.read_bytes(), file.name
    assert not (run / "checkpoints" / "last.partial").exists()


def alike(a, b) -> bool:
    """Equal, tensors by all their bits."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == b or (a != a and b != b)


# --- killed

IN_A_STEP = (
    Moment("chexmsn.methods.msn.Method.step", 3),
    Moment("chexmsn.methods.msn.Method.after_step", 2),
    Moment("torch.optim.AdamW.step", 4, "after"),
)
IN_A_CHECKPOINT = (
    Moment("torch.save", 2, "within"),
    Moment("torch.save", 2, "after"),
    Moment("os.fsync", 4, "before"),
    Moment("pathlib.Path.unlink", 4, "after"),
    Moment("chexmsn.training.checkpoints.Path.replace", 5),
    Moment("chexmsn.training.checkpoints.Path.replace", 5, "after"),
    Moment("chexmsn.training.checkpoints.Path.replace", 6),
    Moment("chexmsn.training.checkpoints.Path.replace", 6, "after"),
    Moment("chexmsn.training.checkpoints.Path.replace", 7, "after"),
)
AT_THE_END_OF_AN_EPOCH = (
    Moment("chexmsn.methods.msn.Method.validation_step", 1),
    Moment("chexmsn.methods.msn.Method.validation_step", 2, "after"),
    Moment("chexmsn.models.artefact.save_file"),
    Moment("chexmsn.models.artefact.save_file", 2, "after"),
    Moment("pathlib.Path.rename", 2),
    Moment("pathlib.Path.rename", 2, "after"),
    Moment("pandas.DataFrame.to_csv"),
    Moment("pandas.DataFrame.to_csv", 1, "after"),
)
AT_THE_END = (Moment("chexmsn.training.run_folder.RunFolder.update", 2),)


@pytest.mark.parametrize(
    "moments", [IN_A_STEP, IN_A_CHECKPOINT, AT_THE_END_OF_AN_EPOCH, AT_THE_END], ids=["step", "save", "epoch", "end"]
)
def test_pretraining_killed_at_dangerous_moments(moments, whole, nursery, small_pack, tmp_path):
    config = pretraining(small_pack, tmp_path / "run")
    for moment in moments:
        assert nursery.ending(config, (moment,)) == -signal.SIGKILL, moment
    assert nursery.ending(config) == 0
    check_same(config.out, whole("pretraining"))


def test_a_classifier_killed_at_dangerous_moments(whole, nursery, small_pack, tmp_path):
    config = classifier(small_pack, tmp_path / "run")
    for moment in (
        Moment("chexmsn.models.artefact.save_file", 1, "after"),
        Moment("chexmsn.training.loop.auroc", 1),
        Moment("chexmsn.training.loop.auroc", 2, "after"),
        Moment("pandas.DataFrame.to_csv", 1, "after"),
        Moment("chexmsn.training.run.copy_curves"),
    ):
        assert nursery.ending(config, (moment,)) == -signal.SIGKILL, moment
    assert nursery.ending(config) == 0
    check_same(config.out, whole("classifier"))


def kill_at_random(nursery, config, kills: int, seed: int, longest: float) -> int:
    """Kill a run so many times, or until it ends; returns how many it were."""
    draw = random.Random(seed)
    for done in range(kills):
        if not nursery.killed_after(draw.uniform(0.0, longest), config):
            return done
    assert nursery.ending(config) == 0
    return kills


@pytest.mark.parametrize("kind", sorted(MADE_BY))
def test_a_run_killed_at_random_moments(kind, whole, nursery, small_pack, tmp_path):
    config = MADE_BY[kind](small_pack, tmp_path / "run")
    assert kill_at_random(nursery, config, kills=3, seed=0, longest=1.5) > 0
    check_same(config.out, whole(kind))


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", sorted(MADE_BY))
def test_a_hundred_kills_at_random_moments(kind, whole, nursery, small_pack, tmp_path):
    killed, attempt = 0, 0
    while killed < 100:
        config = MADE_BY[kind](small_pack, tmp_path / f"run{attempt}", epochs=30)
        killed += kill_at_random(nursery, config, kills=100 - killed, seed=attempt, longest=4.0)
        check_same(config.out, whole(kind, epochs=30))
        attempt += 1


# --- stopped


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140)])
def test_a_signal_ends_a_run_after_its_step_and_says_so(number, code, small_pack, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    config = runs.pretraining(small_pack, tmp_path / "run")
    with Moment("chexmsn.methods.msn.Method.step", 2).strike(lambda: os.kill(os.getpid(), number)):
        with pytest.raises(SystemExit, match=str(code)):
            pretrain(config)
    assert f"stopped by {signal.Signals(number).name}: step 2 is kept" in caplog.text
    assert torch.load(RunFolder(config.out).checkpoint, weights_only=True)["global_step"] == 2
    assert signal.getsignal(number) == signal.SIG_DFL
