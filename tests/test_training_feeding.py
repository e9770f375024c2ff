"""Where the pixels lie while a run goes on, and that no number of it depends on that."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

import runs
from chexmsn.core.errors import UserError
from chexmsn.data.collection import Collection
from chexmsn.data.loader import AHEAD, Ahead, Batches, Cut, From
from chexmsn.data.pack import open_pack
from chexmsn.training.engine import Feed, Part
from chexmsn.training.residence import decided, resides
from chexmsn.training.run import pretrain, train

CPU = torch.device("cpu")


def same_weights(one, other):
    left, right = runs.weights(one), runs.weights(other)
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)


def test_a_run_is_the_same_bit_for_bit_wherever_its_pixels_lie(small_pack, tmp_path):
    """Also where it was stopped within an epoch on the one route and goes on on the other."""
    read = runs.pretraining(small_pack, tmp_path / "read", resident="never")
    held = runs.pretraining(small_pack, tmp_path / "held", resident="always")
    pretrain(read)
    runs.stopped_pretraining(held, 3)
    pretrain(held)
    changed = runs.pretraining(small_pack, tmp_path / "changed", resident="always")
    runs.stopped_pretraining(changed, 3)
    pretrain(replace(changed, resident="never"))
    assert same_weights(read.out, held.out) and same_weights(read.out, changed.out)
    assert runs.history(read.out).equals(runs.history(held.out))


def test_a_classifier_is_the_same_wherever_its_pixels_lie(small_pack, tmp_path):
    how = {"epochs": 1, "patience": None}
    both = [runs.downstream(small_pack, tmp_path / name, resident=name, **how) for name in ("always", "never")]
    assert same_weights(*map(train, both))


def feed_of(small_pack, out, resident):
    images = Collection([open_pack(small_pack)], ("train",))
    feed = Feed(runs.pretraining(small_pack, out, resident=resident), Part.whole(images), Part.whole(images))
    feed.trainer = type("Trainer", (), {"strategy": type("Strategy", (), {"root_device": CPU})})()
    return feed


def test_pixels_move_once_for_all_epochs(small_pack, tmp_path):
    feed = feed_of(small_pack, tmp_path, "always")
    first, second = feed.val_dataloader(), feed.val_dataloader()
    assert isinstance(first, Cut) and first.held is second.held
    assert isinstance(feed_of(small_pack, tmp_path, "auto").val_dataloader(), Ahead)


def test_a_cpu_keeps_its_pack_where_it_is_unless_it_is_told(small_pack):
    images = [Collection([open_pack(small_pack)], ("train",))]
    assert [resides(wanted, images, CPU) for wanted in ("auto", "always", "never")] == [False, True, False]


def test_a_gpu_says_in_one_line_what_it_took_and_why(caplog):
    caplog.set_level(logging.INFO)
    assert decided("auto", needed=25 * 10**9, free=140 * 10**9)
    assert not decided("auto", needed=66 * 10**9, free=140 * 10**9)
    assert decided("always", needed=66 * 10**9, free=140 * 10**9)
    assert caplog.messages == [
        "pixels: they lie in the GPU's memory (25.0 GB, of 140.0 GB free)",
        "pixels: read from the pack, too many for 40 % of the GPU's memory (66.0 GB, of 140.0 GB free)",
    ]
    with pytest.raises(UserError, match=r"do not fit .*\(66.0 GB, of 20.0 GB free\): take --resident auto or never"):
        decided("always", needed=66 * 10**9, free=20 * 10**9)


def test_as_many_batches_are_read_ahead_as_are_said(small_pack):
    images = Collection([open_pack(small_pack)], ("train",))
    read = []

    class Noted(Batches):
        def __getitem__(self, rows):
            read.append(int(rows[0]))
            return super().__getitem__(rows)

    parts = [np.array([row]) for row in range(6)]
    batches = iter(Ahead(Noted(images, None), From(parts, 0)))
    assert next(batches).rows.tolist() == [0]
    batches.close()  # waits for what was begun
    assert read == list(range(1 + AHEAD))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: pinned memory and copies beside the step need one")
def test_routes_to_a_gpu_agree(small_pack):
    from chexmsn.data.loader import hold, loader

    device = torch.device("cuda")
    images = Collection([open_pack(small_pack)], ("train",))
    how = {"batch_size": 4, "seed": 0, "epoch": 0, "shuffle": True, "drop_last": False, "workers": 0}
    rows = np.arange(len(images))
    streamed = loader(images, rows, None, pin_memory=True, **how)
    cut = loader(images, rows, None, pin_memory=False, held=hold(images, None, device), **how)
    for one, other in zip(streamed, cut, strict=True):
        assert one.pixels.is_pinned()
        assert all(a.to(device, non_blocking=True).equal(b) for a, b in zip(one, other, strict=True))
