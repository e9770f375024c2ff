"""A run that is killed or stopped, whenever, ends as the run that never was."""

import errno
import os
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import lightning as L
import pytest
import torch

import lives
import runs
from chexmsn.core.errors import UserError
from chexmsn.training.checkpoints import Checkpoints, StraightToFile, description
from chexmsn.training.config import RunConfig
from chexmsn.training.keep_last import KeepLast
from chexmsn.training.loop import Loop
from chexmsn.training.meter import LAG
from chexmsn.training.run import pretrain
from chexmsn.training.run_folder import RunFolder
from chexmsn.training.signals import Signals
from lives import Moment

OFTEN = {"checkpoint_minutes": 0.0}


def pretraining(pack: Path, out: Path, epochs: int = 3):
    """MSN with moving target, schedules and stochastic depth; a checkpoint after every step."""
    config = runs.pretraining(pack, out, epochs=epochs, probe=None, **OFTEN)
    return replace(config, encoder=replace(config.encoder, drop_path=0.2))


def classifier(pack: Path, out: Path, epochs: int = 3):
    """A classifier with validation, the best one kept, and early stopping in sight."""
    return runs.downstream(pack, out, epochs=epochs, patience=4, min_delta=0.0, **OFTEN)


MADE_BY = {"pretraining": pretraining, "classifier": classifier}


class Whole(NamedTuple):
    """A run that was never killed, and how long its process lived."""

    out: Path
    seconds: float


@pytest.fixture(scope="module")
def nursery():
    there = lives.start()
    yield there
    lives.stop(there)


@pytest.fixture(scope="module")
def whole(nursery, small_pack, tmp_path_factory):
    """Runs that were never killed, by kind and number of epochs."""
    done = {}

    def run(kind: str, epochs: int = 3) -> Whole:
        if (kind, epochs) not in done:
            config = MADE_BY[kind](small_pack, tmp_path_factory.mktemp(kind) / "whole", epochs)
            start = time.monotonic()
            assert nursery.ending(config) == 0
            done[kind, epochs] = Whole(config.out, time.monotonic() - start)
        return done[kind, epochs]

    return run


def check_same(run: Path, never_killed: Whole) -> None:
    """Weights, optimiser, what the callbacks know, curves, artefacts: all as in the run that was never killed."""
    whole = never_killed.out
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

STEP = "chexmsn.methods.msn.Method.after_step"  # in the middle: the weights have moved, the target has not
IN_A_STEP = (
    Moment("chexmsn.methods.msn.Method.step", 3),
    Moment(STEP, 2),
    Moment("torch.optim.AdamW.step", 4, "after"),
)
IN_A_CHECKPOINT = (
    Moment("torch.save", 1, "within"),
    Moment("torch.save", 1, "after"),
    Moment("os.fsync", 2),  # of the folder, after the first step
    Moment("os.fsync", 1),
    Moment("os.fsync", 1, "after"),
    Moment("pathlib.Path.unlink", 2, "after"),  # the first tidies
    *(Moment("pathlib.Path.replace", call, when) for call in (2, 3, 4) for when in ("before", "after")),
)
AT_THE_END_OF_AN_EPOCH = (
    Moment("chexmsn.methods.msn.Method.validation_step", 1),
    Moment("chexmsn.methods.msn.Method.validation_step", 1, "after"),
    Moment("chexmsn.models.artefact.save_file"),
    Moment("chexmsn.models.artefact.save_file", 1, "after"),
    Moment("pandas.DataFrame.to_csv"),
    Moment("pandas.DataFrame.to_csv", 1, "after"),
    Moment("pathlib.Path.rename", 2),  # the encoder there was is moved away, the new one not yet in its place
    Moment("pathlib.Path.rename", 1, "after"),
    Moment("lightning.pytorch.Trainer.save_checkpoint", 4, "after"),
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


def test_a_run_killed_long_after_its_checkpoint(whole, nursery, small_pack, tmp_path):
    config = replace(pretraining(small_pack, tmp_path / "run"), checkpoint_minutes=10.0)
    assert nursery.ending(config, (Moment(STEP, 7),)) == -signal.SIGKILL
    assert nursery.ending(config) == 0
    check_same(config.out, whole("pretraining"))


def test_a_classifier_killed_at_dangerous_moments(whole, nursery, small_pack, tmp_path):
    config = classifier(small_pack, tmp_path / "run")
    for moment in (
        Moment("chexmsn.models.artefact.save_file", 1, "after"),
        Moment("chexmsn.training.loop.auroc", 1),
        Moment("chexmsn.training.loop.auroc", 1, "after"),
        Moment("pandas.DataFrame.to_csv", 1, "after"),
        Moment("chexmsn.training.run.copy_curves"),
    ):
        assert nursery.ending(config, (moment,)) == -signal.SIGKILL, moment
    assert nursery.ending(config) == 0
    check_same(config.out, whole("classifier"))


def kill_at_random(kills: int, nursery, make: Callable[[str], RunConfig], whole: Whole, longest: float) -> None:
    """Kill runs, one after the other, so many times; each ends as the one that never was killed."""
    draw, killed, run = random.Random(0), 0, 0
    while killed < kills:
        config = make(f"run{run}")
        while killed < kills and nursery.killed_after(draw.uniform(0.0, longest), config):
            killed += 1
        assert nursery.ending(config) == 0
        check_same(config.out, whole)
        run += 1


@pytest.mark.parametrize("kind", sorted(MADE_BY))
def test_runs_killed_at_random_moments(kind, whole, nursery, small_pack, tmp_path):
    def make(name):
        return MADE_BY[kind](small_pack, tmp_path / name)

    kill_at_random(3, nursery, make, whole(kind), whole(kind).seconds / 2)


@pytest.mark.campaign
@pytest.mark.timeout(7200)  # a busy machine takes half an hour and more
@pytest.mark.parametrize("kind", sorted(MADE_BY))
def test_a_hundred_kills_at_random_moments(kind, whole, nursery, small_pack, tmp_path):
    def make(name):
        return MADE_BY[kind](small_pack, tmp_path / name, epochs=30)

    kill_at_random(100, nursery, make, whole(kind, epochs=30), whole(kind, epochs=30).seconds / 4)


# --- stopped


def in_step(number: int, signum: int):
    """A patch under which this process gets a signal in a step of MSN."""
    return Moment(STEP, number).strike(lambda: os.kill(os.getpid(), signum))


def steps_kept(config) -> int:
    return torch.load(RunFolder(config.out).checkpoint, weights_only=True)["global_step"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140)])
def test_a_signal_ends_a_run_after_its_step_and_says_so(number, code, small_pack, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    config = runs.pretraining(small_pack, tmp_path / "run")
    with in_step(2, number), pytest.raises(SystemExit, match=str(code)):
        pretrain(config)
    assert f"stopped by {signal.Signals(number).name}: step 2 is kept, and the same command continues" in caplog.text
    assert steps_kept(config) == 2 and not RunFolder(config.out).finished
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_stopped_run_ends_as_the_one_that_was_not(whole, small_pack, tmp_path):
    config = pretraining(small_pack, tmp_path / "run")
    config = replace(config, checkpoint_minutes=10.0)
    handler = signal.getsignal(signal.SIGINT)
    for step in (2, 4, 3):  # the second is the last of its epoch: with what validation says of it
        with in_step(step, signal.SIGINT), pytest.raises(KeyboardInterrupt):
            pretrain(config)
    assert steps_kept(config) == 2 + 4 + 3
    assert signal.getsignal(signal.SIGINT) is handler
    pretrain(config)
    check_same(config.out, whole("pretraining"))


def test_a_second_ctrl_c_does_not_wait(small_pack, tmp_path):
    config = runs.pretraining(small_pack, tmp_path / "run")
    with in_step(2, signal.SIGINT), in_step(2, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        pretrain(config)
    assert not RunFolder(config.out).checkpoint.exists()


def test_a_signal_in_the_last_step_does_not_stop_what_is_done(small_pack, tmp_path):
    config = runs.pretraining(small_pack, tmp_path / "run", epochs=1)
    steps = 4
    with in_step(steps, signal.SIGTERM):
        pretrain(config)
    assert RunFolder(config.out).finished and steps_kept(config) == steps


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("echo $@ >> {log}", "job 77 asks Slurm for another turn"),
        ("echo busy >&2; exit 1", r"requeued \(busy\): submit"),
    ],
)
def test_preemption_asks_slurm_for_another_turn(answer, told, small_pack, tmp_path, monkeypatch, caplog):
    notes = tmp_path / "notes"
    (tmp_path / "scontrol").write_text("#!/bin/sh\n" + answer.format(log=notes))
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    config = runs.pretraining(small_pack, tmp_path / "run")
    with in_step(1, signal.SIGUSR1), pytest.raises(SystemExit, match="138"):
        pretrain(config)
    assert re.search(told, caplog.text)
    assert not notes.exists() or notes.read_text() == "requeue 77\n"
    assert steps_kept(config) == 1


def test_the_sigterm_that_slurm_sends_after_a_preemption_does_not_replace_it(small_pack, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    config = runs.pretraining(small_pack, tmp_path / "run")
    with in_step(1, signal.SIGTERM), in_step(1, signal.SIGUSR1), pytest.raises(SystemExit, match="138"):
        pretrain(config)  # the patch that came last strikes first
    assert "stopped by SIGUSR1" in caplog.text and "job 77" in caplog.text


@pytest.mark.parametrize(
    ("sent", "counts"),
    [
        ((signal.SIGUSR2, signal.SIGTERM), signal.SIGUSR2),
        ((signal.SIGTERM, signal.SIGUSR1), signal.SIGUSR1),
        ((signal.SIGUSR1, signal.SIGINT, signal.SIGTERM), signal.SIGINT),
    ],
)
def test_of_several_signals_the_weightiest_counts(sent, counts, capfd):
    with Signals() as signals:
        for number in sent:
            os.kill(os.getpid(), number)
    assert signals.received == counts


def test_a_signal_to_all_processes_leaves_the_workers_at_work(nursery, small_pack, tmp_path):
    config = runs.pretraining(small_pack, tmp_path / "run", workers=1)
    in_step_2 = (Moment(STEP, 2),)
    assert nursery.ending(config, in_step_2, signal.SIGTERM, True) == 128 + signal.SIGTERM
    assert steps_kept(config) == 2


def test_one_of_two_processes_that_is_told_to_stop_takes_the_other_along(small_pack, tmp_path, two_processes):
    config = runs.pretraining(small_pack, tmp_path / "run", devices=2, batch_size=8)
    assert two_processes.as_torchrun(lives.one_of_several_is_told_to_stop, config) == [143, 143]
    assert steps_kept(config) == 2 + LAG


def test_of_several_processes_none_waits_for_the_others_in_a_step(monkeypatch, tmp_path):
    """What they want of a step is read some steps later; at the end of an epoch all is known."""
    sent, read = [], []

    def send(numbers):
        sent.append(numbers)
        number = len(sent)
        return lambda: (read.append(number), numbers.tolist())[1]

    monkeypatch.setattr("chexmsn.training.keep_last.sent", send)
    several = {"world_size": 2, "is_global_zero": True, "strategy": mock.Mock(root_device=torch.device("cpu"))}
    trainer, loop, saves = mock.Mock(spec=L.Trainer, **several, is_last_batch=False), mock.Mock(spec=Loop), []
    trainer.save_checkpoint.side_effect = lambda path: (path.write_bytes(b""), saves.append(len(sent)))
    with Signals() as signals:
        keep = KeepLast(Checkpoints(tmp_path / "last.ckpt"), 10.0, signals)
        keep.on_train_start(trainer, loop)
        for step in range(1, 9):
            if step == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            keep.on_train_batch_end(trainer)
            assert read == list(range(1, len(read) + 1)) and len(read) == max(0, min(step, 7) - LAG)
            if keep.stopped_by:
                break
        assert (step, saves, keep.stopped_by) == (3 + LAG, [3 + LAG], signal.SIGUSR1)
        keep.on_train_epoch_end(trainer, loop)
        assert read[-1] == len(sent) and len(saves) == 2
    trainer.strategy.reduce.assert_not_called()


# --- harmed


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def one_bit_flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [truncated, one_bit_flipped])
def test_a_harmed_checkpoint_gives_way_to_the_one_before_it(harm, whole, small_pack, tmp_path, caplog):
    config = pretraining(small_pack, tmp_path / "run")
    with in_step(7, signal.SIGTERM), pytest.raises(SystemExit):
        pretrain(config)
    last = RunFolder(config.out).checkpoint
    harm(last)
    caplog.clear()
    with in_step(1, signal.SIGTERM), pytest.raises(SystemExit):
        pretrain(config)
    assert steps_kept(config) == 7
    assert description(last.with_name("previous.ckpt")), "the good one stays, not the harmed one"
    assert re.search(r"last\.ckpt is .*damaged.*: going on from the checkpoint before it", caplog.text)
    pretrain(config)
    check_same(config.out, whole("pretraining"))


def test_a_run_of_which_every_checkpoint_is_harmed_says_how_to_go_on(small_pack, tmp_path):
    config = pretraining(small_pack, tmp_path / "run")
    with in_step(2, signal.SIGTERM), pytest.raises(SystemExit):
        pretrain(config)
    for file in RunFolder(config.out).checkpoint.parent.iterdir():
        truncated(file)
    with pytest.raises(
        UserError, match=r"cannot go on: .*last\.ckpt is not a checkpoint, or a damaged one .*; delete .*run"
    ):
        pretrain(config)


def test_a_full_disk_is_told_and_the_earlier_checkpoint_stays(whole, small_pack, tmp_path, monkeypatch):
    config = pretraining(small_pack, tmp_path / "run")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill_up():
        monkeypatch.setattr(os, "fsync", full)

    told = r"cannot write a checkpoint .*No space left on device; the earlier one is whole"
    with Moment(STEP, 3).strike(fill_up), pytest.raises(UserError, match=told):
        pretrain(config)
    monkeypatch.undo()
    assert steps_kept(config) == 2
    assert sorted(file.name for file in RunFolder(config.out).checkpoint.parent.iterdir()) == [
        "last.ckpt",
        "previous.ckpt",
    ]
    pretrain(config)
    check_same(config.out, whole("pretraining"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("size", [10, 10**6])
def test_a_full_disk_is_an_error_of_the_disk(size):
    with pytest.raises(OSError, match="No space left"):
        StraightToFile().save_checkpoint({"weights": torch.zeros(size)}, Path("/dev/full"))


@pytest.mark.parametrize("minutes", [-1.0, float("nan"), float("inf")])
def test_an_interval_that_cannot_be_is_refused(minutes, small_pack, tmp_path):
    with pytest.raises(UserError, match="checkpoint_minutes must "):
        runs.pretraining(small_pack, tmp_path / "run", checkpoint_minutes=minutes)
