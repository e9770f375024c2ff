"""Runs on more than one device, from the outside: how they start, what they leave, how they fail."""

import math
import subprocess
import sys
from dataclasses import replace
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment

import runs
from chexmsn.core.errors import UserError
from chexmsn.data.collection import Collection
from chexmsn.data.pack import open_pack
from chexmsn.models.artefact import load_encoder
from chexmsn.models.encoder import EncoderConfig
from chexmsn.recipes.recipe import check_recipe
from chexmsn.training import devices
from chexmsn.training.engine import Feed, Part
from chexmsn.training.processes import check_layout, launcher
from chexmsn.training.run import pretrain, train
from chexmsn.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def alone(small_pack, tmp_path_factory):
    """A pretraining run of one process."""
    return pretrain(runs.pretraining(small_pack, tmp_path_factory.mktemp("alone") / "run"))


def check_same_run(a, b) -> None:
    """The same weights and the same curves, up to the order of summation (test_distributed.py is exact, in float64)."""
    torch.testing.assert_close(settled(runs.weights(a)), settled(runs.weights(b)), rtol=1e-3, atol=5e-4)
    pd.testing.assert_frame_equal(runs.history(a), runs.history(b), rtol=5e-3, atol=2e-3)


def settled(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without biases that a batch normalisation takes off again: their gradient is rounding, which AdamW enlarges."""
    drift = ("head.0.bias", "head.3.bias", "running_mean")
    return {name: tensor for name, tensor in weights.items() if not name.endswith(drift)}


# --- what several processes leave is what one leaves


def test_pretraining_on_two_devices_is_pretraining_on_one(alone, small_pack, tmp_path, two_processes):
    config = runs.pretraining(small_pack, tmp_path / "two", devices=2)
    assert two_processes.as_torchrun(pretrain, config) == [config.out, config.out]
    check_same_run(alone, config.out)
    assert RunFolder(config.out).finished and RunFolder(config.out).record["device"]["devices"] == 2


def test_a_classifier_on_two_devices_is_that_of_one(small_pack, tmp_path, two_processes):
    config = runs.downstream(small_pack, tmp_path / "two", devices=2)
    two_processes.as_torchrun(train, config)
    check_same_run(train(runs.downstream(small_pack, tmp_path / "one")), config.out)
    assert (config.out / "classifier" / "training.csv").is_file()
    assert RunFolder(config.out).record["epochs_done"] == 2, "early stopping ends all processes in the same epoch"


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_on_another_number_of_devices(before, after, alone, small_pack, tmp_path, two_processes):
    def do(work, devices, *arguments):
        config = runs.pretraining(small_pack, tmp_path / "run", devices=devices)
        return two_processes.as_torchrun(work, config, *arguments) if devices == 2 else work(config, *arguments)

    do(runs.stopped_pretraining, before, 6)
    assert not RunFolder(tmp_path / "run").finished
    do(pretrain, after)
    check_same_run(alone, tmp_path / "run")


@pytest.mark.parametrize(("targets", "batch_size"), [(None, 16), (np.zeros((200, 1), np.float32), 8)])
def test_a_process_validates_all_images_in_batches_that_it_has_room_for(targets, batch_size, small_pack, tmp_path):
    images = Collection([open_pack(small_pack)], ("train",))
    part = Part.whole(images, None if targets is None else targets[: len(images)])
    feed = Feed(runs.pretraining(small_pack, tmp_path / "run", devices=2), part, part)
    feed.trainer = mock.Mock(world_size=2, strategy=mock.Mock(root_device=torch.device("cpu")))
    sizes = [len(batch.keys) for batch in feed.val_dataloader()]
    assert max(sizes) == batch_size and sum(sizes) == len(images)


# --- how they are started


def test_torchrun_starts_a_run(alone, small_pack, tmp_path):
    config = runs.pretraining(small_pack, tmp_path / "run", devices=2)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*start, *runs.command(config)], check=True, stderr=subprocess.DEVNULL, timeout=300)
    check_same_run(alone, config.out)


def test_an_error_of_started_processes_is_told_once(small_pack, tmp_path, capfd):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(UserError, match="is no run folder"):
        pretrain(runs.pretraining(small_pack, tmp_path, devices=2))
    assert "run folder" not in (told := capfd.readouterr().err) and "Traceback" not in told


def torchrun(monkeypatch, world: int, local: int) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": local, "RANK": 0}.items():
        monkeypatch.setenv(name, str(value))


def slurm(monkeypatch, tasks: int, per_node: int) -> None:
    names = {"SLURM_STEP_NUM_TASKS": tasks, "SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": per_node}
    places = {"SLURM_PROCID": 3, "SLURM_LOCALID": 1, "SLURM_NODEID": 1, "SLURM_JOB_ID": 123456}
    for name, value in (names | places | {"SLURM_NODELIST": "gpu[07-08]"}).items():
        monkeypatch.setenv(name, str(value))


def test_slurm_s_tasks_are_the_processes(monkeypatch, small_pack, tmp_path):
    slurm(monkeypatch, tasks=4, per_node=2)
    environment = launcher()
    assert isinstance(environment, SLURMEnvironment) and not environment.auto_requeue
    assert (environment.world_size(), environment.global_rank(), environment.local_rank()) == (4, 3, 1)
    assert environment.main_address == "gpu07" and environment.main_port == 15000 + 3456
    check_layout(runs.pretraining(small_pack, tmp_path, devices=2, nodes=2), environment)
    with pytest.raises(UserError, match=r"srun started 4 processes, 2 on a node.*--devices 2 --nodes 2"):
        check_layout(runs.pretraining(small_pack, tmp_path, devices=4), environment)


def test_one_slurm_task_may_start_its_own_processes(monkeypatch):
    slurm(monkeypatch, tasks=1, per_node=1)
    assert launcher() is None


def test_slurm_s_tasks_must_be_counted_per_node(monkeypatch):
    slurm(monkeypatch, tasks=4, per_node=2)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(UserError, match="--ntasks-per-node"):
        launcher()


@pytest.mark.parametrize(
    ("world", "local", "devices", "nodes", "told"),
    [
        (2, 2, 1, 1, "torchrun started 2 processes, 2 on a node.*--devices 2 --nodes 1"),
        (1, 1, 2, 1, "torchrun started 1 processes.*--devices 1 --nodes 1"),
        (4, 2, 4, 1, "--devices 2 --nodes 2"),
    ],
)
def test_torchrun_and_devices_must_agree(monkeypatch, small_pack, tmp_path, world, local, devices, nodes, told):
    torchrun(monkeypatch, world, local)
    with pytest.raises(UserError, match=told):
        pretrain(runs.pretraining(tmp_path / "no pack is opened", tmp_path / "run", devices=devices, nodes=nodes))


def test_a_recipe_in_several_processes_runs_one_stage_at_a_time(monkeypatch):
    torchrun(monkeypatch, 2, 2)
    with pytest.raises(UserError, match="one by one, with --stage"):
        check_recipe([], only=None)
    check_recipe([], only="pretrain")


def test_several_nodes_need_a_launcher(tmp_path):
    with pytest.raises(UserError, match="torchrun or srun"):
        pretrain(runs.pretraining(tmp_path / "no pack is opened", tmp_path / "run", nodes=2))


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"multiple of devices x nodes \(3 x 2\)"):
        runs.pretraining(tmp_path, tmp_path / "run", devices=3, nodes=2)


# --- how they fail


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (runs.fails_on_the_first, [("UserError", "the first one cannot go on", ""), ("SystemExit", 1, "")]),
        (runs.fails_on_the_last, [("SystemExit", 1, ""), ("SystemExit", 2, "the last one cannot go on")]),
    ],
)
def test_a_process_that_fails_tells_it_and_takes_the_others_with_it(work, told, small_pack, tmp_path, two_processes):
    config = runs.pretraining(small_pack, tmp_path / "run", devices=2)
    assert two_processes.as_torchrun(runs.outcome, work, config) == told


def test_of_several_that_fail_one_tells(small_pack, tmp_path, two_processes):
    config = runs.pretraining(small_pack, tmp_path / "run", devices=2)
    endings = two_processes.as_torchrun(runs.outcome, runs.fails_everywhere, config)
    assert sum("nobody can go on" in f"{code} {told}" for _, code, told in endings) == 1


class Hanging(BaseProcess):
    """A process that does not end by itself, or one that ends after so many seconds."""

    def __init__(self, clock, ends_after=math.inf):
        self.clock, self.ends_after, self.killed_at = clock, ends_after, None

    def join(self, timeout=0.0):
        self.clock[0] += min(timeout, max(0.0, self.ends_after - self.clock[0]))

    def kill(self):
        self.killed_at = self.clock[0]


def test_processes_that_hang_have_one_grace_together(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(devices, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    hanging = [Hanging(clock), Hanging(clock, ends_after=5.0), Hanging(clock)]
    devices._end(hanging)
    assert [process.killed_at for process in hanging] == [devices.GRACE] * 3
    clock[0], soon = 0.0, [Hanging(clock, ends_after=5.0), Hanging(clock, ends_after=7.0)]
    devices._end(soon)
    assert clock == [7.0]


# --- a network divided over devices


@pytest.fixture(scope="module")
def divided(small_pack, tmp_path_factory, two_processes):
    """A pretraining run of two processes that hold half of the network each.

    It is stopped once on its way, and goes on in processes that it starts itself.
    """
    config = runs.pretraining(small_pack, tmp_path_factory.mktemp("divided") / "run", devices=2, strategy="fsdp")
    two_processes.as_torchrun(runs.stopped_pretraining, config, 6)
    assert not RunFolder(config.out).finished
    assert pretrain(config) == config.out
    return config.out


def test_a_divided_run_that_starts_its_own_processes_is_the_run_of_one(alone, divided):
    check_same_run(alone, divided)


def test_encoder_and_checkpoint_of_a_divided_run_are_whole(divided):
    encoder, checkpoint = load_encoder(divided), load_encoder(divided / "checkpoints" / "last.ckpt")
    assert encoder.config == runs.ENCODER
    for name, weight in encoder.state_dict().items():
        assert type(weight) is torch.Tensor and torch.equal(weight, checkpoint.state_dict()[name])


def test_what_cannot_be_divided_is_refused(tmp_path):
    with pytest.raises(UserError, match="over 2 devices or more"):
        runs.pretraining(tmp_path, tmp_path / "run", strategy="fsdp")
    with pytest.raises(UserError, match="take strategy ddp"):
        config = runs.pretraining(tmp_path, tmp_path / "run", strategy="fsdp", devices=2)
        replace(config, encoder=EncoderConfig(name="resnet18"))
    with pytest.raises(UserError, match="not 16"):
        runs.pretraining(tmp_path, tmp_path / "run", strategy="fsdp", devices=2, precision="16")
    with pytest.raises(UserError, match="is for pretraining"):
        runs.downstream(tmp_path, tmp_path / "run", strategy="fsdp", devices=2)
