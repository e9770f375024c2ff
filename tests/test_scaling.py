"""The page on scaling shows what its script computes, and the script computes what is counted."""

import doctest
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from chexmsn.corruptions import kept_count
from chexmsn.methods import msn
from chexmsn.methods._base import Setting
from chexmsn.models.encoder import EncoderConfig, build_encoder


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import scaling

    return scaling


def test_the_page_shows_what_the_script_computes(scaling):
    page = scaling.PAGE.read_text(encoding="utf-8")
    assert scaling.written(page) == page, "python benchmarks/scaling.py --write"
    assert doctest.testmod(scaling).failed == 0


def test_the_tables_agree_with_what_was_measured(scaling):
    for what, computed, measured in scaling.checks()[1:]:
        if computed:
            ours, found = (float(re.sub("[^0-9.]", "", value)) for value in (computed, measured))
            assert ours == pytest.approx(found, rel=0.2), what


def test_parameters_and_kept_numbers_are_those_of_the_network(scaling):
    size, images, options = 64, 2, {"mask_ratio": 0.5, "focal_views": 2, "focal_size": 32, "mask_focal": True}
    encoder = build_encoder(EncoderConfig(name="vit_micro", size=size))
    config = msn.Config(prototypes=8, head_hidden=16, head_out=8, **options)
    method = msn.Method(config, encoder, Setting(size=size, batch_size=images))
    heads = {"hidden": 16, "out": 8}
    assert scaling.parameters("vit_micro", size=size, **heads) == sum(p.numel() for p in method.online.parameters())
    of = scaling.groups(size, 32, 2, 0.5)
    assert [group.kept for group in of] == [16, kept_count(16, 0.5), kept_count(4, 0.5)]
    anchors = [torch.rand(views * images, 1, side, side) for (views, _, _), side in zip(of[1:], (64, 32), strict=True)]
    masks = [torch.arange(kept).expand(views * images, -1) for views, _, kept in of[1:]]
    kept = scaling.Kept(method)
    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
            outs = [encoder.pool(image, mask).pooled.sum() for image, mask in zip(anchors, masks, strict=True)]
        sum(outs).backward()
    assert kept.bytes / images == pytest.approx(scaling.kept_bytes("vit_micro", of, 4), rel=0.1)
    none = [group._replace(views=0) for group in of[:1]]
    counted = counter.get_total_flops() / images
    assert counted == pytest.approx(scaling.flop("vit_micro", none + of[1:], hidden=0, out=0), rel=0.01)
