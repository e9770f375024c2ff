"""What the stress test knows of images beside their pixels: pixel size, anatomy, saliency."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from chexmsn.core.draws import Draws, keys_of
from chexmsn.core.errors import UserError
from chexmsn.corruptions import Known
from chexmsn.data.collection import Collection
from chexmsn.data.pack import Pack, open_pack
from chexmsn.evaluation.adapters import python
from chexmsn.evaluation.adapters._model import Input, Model
from chexmsn.evaluation.conditions import Condition, chosen
from chexmsn.evaluation.facts import Facts, open_maps, saliency_of, why_no_saliency
from chexmsn.evaluation.scoring import degrade
from chexmsn.evaluation.stress import StressConfig, stress
from evaluation_folders import PACK_SIZE, SIZE, untrained, write_model, write_pack

VIT = untrained(name="vit_micro", patch=8, size=SIZE)
REGIONS = ("tokens-removed/salient:0.5", "patches-black/non-salient:0.5", "tokens-removed/inside:0.5")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("facts")
    pack = write_pack(home / "nih")
    write_model(home / "vit")
    masks = np.zeros((len(pack), 40, 40), np.uint8)
    masks[:, :20] = 255  # the upper half
    np.save(home / "masks.npy", masks)
    return home


def sized(pack: Pack, **pixel_mm: object) -> Collection:
    return Collection([replace(pack, index=pack.index.assign(**pixel_mm))], ["test"])


@pytest.fixture
def images(home) -> Collection:
    return Collection([open_pack(home / "nih" / "pack")], ["test"])


def asked(home: Path, **changes) -> StressConfig:
    options = {"model": home / "vit", "data": home / "nih" / "pack", "conditions": REGIONS, "resamples": 20}
    return StressConfig(**options | {"anatomy": home / "masks.npy", "device": "cpu"} | changes)


def scores_of(folder: Path) -> pd.DataFrame:
    keys = ["corruption", "severity", "repeat", "image_key"]
    return pd.read_parquet(folder / "scores.parquet").set_index(keys).sort_index()


def linear(weights: torch.Tensor) -> Model:
    """Two outputs that weigh the pixels of 4 x 4 images."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    network[1].weight.data = weights
    about = {"name": "linear", "adapter": "python", "network": "linear", "kind": "callable", "fingerprint": "0"}
    return Model(**about, findings=("A", "B"), input=Input(size=4, channels=1), answers="logits", patch=2, call=network)


def test_pixel_sizes_are_those_of_the_network(images):
    sized_images = sized(images.packs[0], pixel_mm_row=0.5, pixel_mm_column=2.0)
    assert sized_images.pixel_mm == pytest.approx(1.0)  # geometric mean
    facts = Facts.of(sized_images, VIT)
    assert facts.pixel_mm == pytest.approx(PACK_SIZE * 7 / 8 / SIZE)
    known = facts.known(np.array([2, 0]), VIT)
    assert known.pixel_mm.shape == (2,) and known.anatomy is None and known.saliency is None


def test_the_record_tells_where_a_field_of_view_was_assumed(images):
    measured = images.packs[0].index.index % 3 == 0
    some = sized(images.packs[0], pixel_mm_row=np.where(measured, 1.0, np.nan), pixel_mm_column=1.0)
    told = Facts.of(some, VIT).told(chosen(["scatter", "gaussian-blur"]))["pixel_size"]
    assert told["known"] == int(np.isfinite(some.pixel_mm).sum()) and told["known"] + told["assumed"] == len(some)
    assert told["assumed_field_mm"] == 430 and told["corruptions"] == ["scatter"]


def test_pixel_sizes_reach_the_corruptions():
    images, draws = torch.rand(2, 1, SIZE, SIZE), Draws.of(0, keys_of("ab"))
    condition = Condition("scatter", 3.0)
    known = Known(pixel_mm=torch.tensor([2.0, float("nan")]))
    fine, assumed = degrade(images, condition, draws, VIT, 0.3, known).images
    without = degrade(images, condition, draws, VIT, 0.3).images
    assert not torch.allclose(fine, without[0], atol=1e-3)
    torch.testing.assert_close(assumed, without[1])


def test_maps_lie_in_a_folder_or_in_one_array(home, images, tmp_path):
    masks = np.load(home / "masks.npy")
    for row, key in zip(images.packs[0].rows(["test"]), images.index["image_key"], strict=True):
        file = tmp_path / f"{key}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(masks[row]).save(file)
    folder, array = (Facts.of(images, VIT, anatomy=place) for place in (tmp_path, home / "masks.npy"))
    rows = np.array([3, 1])
    shown = folder.known(rows, VIT).anatomy
    assert torch.equal(shown, array.known(rows, VIT).anatomy)
    assert shown[:, :, : SIZE // 2].all() and not shown[:, :, SIZE // 2 :].any()
    file.unlink()
    with pytest.raises(UserError, match=f"no map of the image {images.index['image_key'].iloc[-1]!r}"):
        open_maps(tmp_path, images)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((3, 8, 8)), r"shape \(3, 8, 8\), not one square map per image"),
        (np.zeros((30, 8, 9)), r"a map is square.*not of shape \(8, 9\)"),
        (np.full((30, 8, 8), np.nan), "finite numbers"),
        (None, "is no array of numbers"),
    ],
)
def test_maps_that_are_none_are_told(images, tmp_path, content, message):
    file = tmp_path / "maps.npy"
    file.write_bytes(b"a text") if content is None else np.save(file, content)
    with pytest.raises(UserError, match=message):
        open_maps(file, images).read(0)
    with pytest.raises(UserError, match="there are no maps at"):
        open_maps(tmp_path / "absent.npy", images)


def test_saliency_is_the_mean_gradient_without_its_sign():
    weights = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    found = saliency_of(linear(weights), torch.rand(3, 1, 4, 4), (0, 1))
    torch.testing.assert_close(found, weights.abs().mean(0).view(1, 1, 4, 4).expand(3, 1, 4, 4))
    alone = saliency_of(linear(weights), torch.rand(1, 1, 4, 4), (1,))
    torch.testing.assert_close(alone[0, 0], weights[1].abs().view(4, 4))


def test_a_function_tells_no_saliency():
    assert why_no_saliency(VIT) is None
    network = linear(torch.ones(2, 16))
    assert "give maps with --saliency" in why_no_saliency(replace(network, call=lambda x: network.call(x)))
    frozen = nn.Sequential(nn.Flatten(), Blind())
    assert "tells no gradient" in why_no_saliency(replace(network, call=frozen))


class Blind(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()[:, :2]


def test_a_stress_test_of_salient_and_anatomical_regions(home, tmp_path):
    stress(asked(home, out=tmp_path / "all"))
    stress(asked(home, out=tmp_path / "some", batch_size=3))
    pd.testing.assert_frame_equal(scores_of(tmp_path / "all"), scores_of(tmp_path / "some"), atol=1e-5)
    record = json.loads((tmp_path / "all" / "run.json").read_text())
    assert record["anatomy"] == str(home / "masks.npy") and record["pixel_size"]["known"] == 0
    results = pd.read_parquet(tmp_path / "all" / "results.parquet")
    assert set(results.loc[results["value"].notna(), "corruption"]) == {
        *("clean", "tokens-removed/salient", "patches-black/non-salient", "tokens-removed/inside")
    }
    np.save(home / "others.npy", 1 - np.load(home / "masks.npy"))
    with pytest.raises(UserError, match="anatomy: "):
        stress(asked(home, out=tmp_path / "all", anatomy=home / "others.npy"))


def test_patterns_inside_need_masks(home, tmp_path):
    with pytest.raises(UserError, match="give --anatomy"):
        stress(asked(home, out=tmp_path / "run", anatomy=None))
    assert not (tmp_path / "run").exists()


def test_what_is_salient_to_a_function_is_a_cell_that_says_so(home, tmp_path):
    (tmp_path / "models.py").write_text(
        "def bright():\n    return lambda x: x.mean((1, 2, 3))[:, None].expand(-1, 2)\n"
    )
    options = python.Config(findings=("Effusion", "Cardiomegaly"), size=SIZE)
    how = {"adapter": "python", "options": options, "anatomy": None, "conditions": ("patches-black/salient:0.5",)}
    stress(asked(home, model=Path(f"{tmp_path / 'models.py'}:bright"), out=tmp_path / "run", **how))
    results = pd.read_parquet(tmp_path / "run" / "results.parquet").query("corruption != 'clean'")
    assert results["status"].str.contains("tells no gradient").all() and results["value"].isna().all()
