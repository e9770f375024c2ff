"""Small training runs, and what is asked of them in processes that share one."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pandas as pd
import torch

from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load
from chexmsn.models.encoder import EncoderConfig
from chexmsn.training.config import PretrainConfig, RunConfig, TrainConfig
from chexmsn.training.devices import on_all_devices
from chexmsn.training.run import pretrain, train

ENCODER = EncoderConfig(name="vit_micro", patch=16, size=48)
MSN = {"prototypes": 8, "head_hidden": 16, "head_out": 8, "focal_views": 1, "focal_size": 32, "clip": 1.0}


def pretraining(pack: Path, out: Path, **changes) -> PretrainConfig:
    options = load("chexmsn.methods", "msn").Config(**MSN)
    settings = {"epochs": 2, "batch_size": 16, "device": "cpu"} | changes
    return PretrainConfig(data=(pack,), out=out, method="msn", options=options, encoder=ENCODER, **settings)


def downstream(pack: Path, out: Path, **changes) -> TrainConfig:
    options = load("chexmsn.methods", "supervised").Config(lr=1e-3)
    settings = {"epochs": 4, "batch_size": 16, "device": "cpu", "patience": 1, "min_delta": 0.9} | changes
    return TrainConfig(data=(pack,), out=out, method="supervised", options=options, encoder=ENCODER, **settings)


def command(config: PretrainConfig) -> list[str]:
    """The words of the command line that do what `pretraining` describes."""
    words = (
        f"-m chexmsn pretrain --data {config.data[0]} --method msn --encoder.name vit_micro --encoder.size 48 "
        f"--epochs {config.epochs} --batch_size 16 --device cpu --devices {config.devices} --out {config.out} "
    ) + " ".join(f"--options.{name} {value}" for name, value in MSN.items())
    return words.split()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def history(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "history.csv").drop(columns="train/images_per_second", errors="ignore")


@contextmanager
def stopped_at(step: int):
    """Training that is stopped, as by two Ctrl-C, in this step of MSN."""
    method = load("chexmsn.methods", "msn").Method
    original, calls = method.step, []

    def stops(self, *arguments):
        calls.append(self.training)
        if sum(calls) == step:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with mock.patch.object(method, "step", stops):
        yield


def stopped_pretraining(config: PretrainConfig, step: int) -> None:
    """Each process is stopped in the same step."""
    with stopped_at(step):
        try:
            pretrain(config)
        except (KeyboardInterrupt, SystemExit):
            return
    raise AssertionError("nothing stopped the run")


def outcome(work, config: RunConfig) -> tuple[str, object, str]:
    """How a process of a run ends, and what it logs."""
    with mock.patch("chexmsn.training.devices.log.error") as told:
        try:
            on_all_devices(work, config)
        except (Exception, SystemExit) as error:
            ending = (type(error).__name__, getattr(error, "code", str(error)))
        else:
            ending = ("none", None)
    return *ending, " ".join(str(call.args[1]) for call in told.call_args_list)


def fails_on_the_last(config: RunConfig) -> Path:
    """The last process fails while the others wait for it."""
    import torch.distributed as dist

    if dist.get_rank() == dist.get_world_size() - 1:
        raise UserError("the last one cannot go on")
    dist.barrier()
    return config.out


def fails_on_the_first(config: RunConfig) -> Path:
    import torch.distributed as dist

    if dist.get_rank() == 0:
        raise UserError("the first one cannot go on")
    dist.barrier()
    return config.out


def fails_everywhere(config: RunConfig) -> Path:
    raise UserError("nobody can go on")


__all__ = ["downstream", "pretrain", "pretraining", "replace", "train"]
