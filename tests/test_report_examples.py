"""Images of patients are in a report where they were asked for, and nowhere else."""

import json
import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from chexmsn.core.batch import to_images
from chexmsn.core.errors import UserError
from chexmsn.data.collection import Collection
from chexmsn.data.pack import open_pack
from chexmsn.report.build import build_report
from chexmsn.views import evaluation_view
from stress_folders import SMALL, write_run

SIZE = 32


@pytest.fixture
def folder(small_pack, tmp_path):
    """A run that says it was tested on the small pack."""
    pack = open_pack(small_pack)
    model = {"name": "MSN", "size": SIZE, "patch": 8}
    folder = write_run(tmp_path / "run", "MSN", grid=SMALL, curves=False, model=model)
    record = json.loads((folder / "run.json").read_text())
    record["data"] = {"name": pack.name, "fingerprint": pack.fingerprint, "split": "test"}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def shown(report) -> list[tuple[str, np.ndarray]]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', report.read_text(encoding="utf-8"))
    return [(name, np.asarray(Image.open(BytesIO(b64decode(code))))) for code, name in found]


def test_examples_are_tested_images_under_the_costliest_conditions(folder, small_pack, tmp_path):
    report = build_report([folder], tmp_path / "out", title="T", pack=small_pack, count=2)
    images = shown(report)
    assert [name for name, _ in images[:2]] == ["Example 1, Clean", "Example 2, Clean"]
    assert len(images) == 2 * len({name.split(", ", 1)[1] for name, _ in images})
    assert {image.shape for _, image in images} == {(SIZE, SIZE)}
    assert (dict(images)["Example 1, Tokens removed, 70\u00a0%"] < 24).mean() > 0.5
    assert len(Collection([open_pack(small_pack)], ("test",))) >= 2
    assert "images that were asked for" in report.read_text(encoding="utf-8")


def test_examples_show_as_much_of_an_image_as_the_model_sees(folder, small_pack, tmp_path):
    record = json.loads((folder / "run.json").read_text())
    record["model"]["input"] = {"shown": 1.0}
    (folder / "run.json").write_text(json.dumps(record))
    name, image = shown(build_report([folder], tmp_path / "out", title="T", pack=small_pack, count=1))[0]
    pixels = torch.from_numpy(Collection([open_pack(small_pack)], ("test",)).pixels(np.array([0])))
    seen = {share: 255 * evaluation_view(to_images(pixels), SIZE, share)[0, 0].numpy() for share in (1.0, 0.875)}
    error = {share: np.abs(image - expected).mean() for share, expected in seen.items()}
    assert name == "Example 1, Clean" and error[1.0] < error[0.875] / 2


def test_no_image_is_shown_unasked(folder, tmp_path):
    report = build_report([folder], tmp_path / "out", title="T")
    assert shown(report) == []
    assert "<img" not in report.read_text(encoding="utf-8")


def test_examples_that_cannot_be_shown_are_refused(folder, small_pack, tmp_path):
    record = json.loads((folder / "run.json").read_text())
    for count, pack, message in ((2, None, "need the tested pack"), (0, small_pack, "for examples only")):
        with pytest.raises(UserError, match=message):
            build_report([folder], tmp_path / "out", title="T", pack=pack, count=count)
    with pytest.raises(UserError, match="examples cannot be shown"):
        build_report([folder], tmp_path / "out", title="T", pack=small_pack, count=10**6)
    record["data"]["fingerprint"] = "another"
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is not what MSN was tested on"):
        build_report([folder], tmp_path / "out", title="T", pack=small_pack, count=1)
    assert not (tmp_path / "out").exists()
