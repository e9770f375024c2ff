"""MedMNIST: what lies in the archive is what comes out, whatever the order; nothing is unpickled, nothing believed."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.doctor import examine
from chexmsn.data.image import UnreadableImage
from chexmsn.data.prepare import prepare
from chexmsn.data.sources import medmnist
from chexmsn.recipes.arguments import run_command


def arrays(labels=14, size=20, **other) -> dict[str, np.ndarray]:
    """As MedMNIST has them: 6 images to train on, 2 to validate, 3 to test."""
    rng = np.random.default_rng(0)
    parts = {}
    for split, images in {"train": 6, "val": 2, "test": 3}.items():
        parts[f"{split}_images"] = rng.integers(0, 256, (images, size, size), dtype=np.uint8)
        parts[f"{split}_labels"] = rng.integers(0, 2, (images, labels), dtype=np.uint8)
    return parts | other


def read(folder, **options):
    return medmnist.read(folder, medmnist.Config(**options))


@pytest.mark.parametrize("save", [np.savez_compressed, np.savez])
def test_images_and_labels_are_those_of_the_file(tmp_path, save):
    content = arrays()
    save(tmp_path / "chestmnist_64.npz", **content)
    table = read(tmp_path)
    assert table["split"].tolist() == ["train"] * 6 + ["validate"] * 2 + ["test"] * 3
    assert table["label:Pleural Effusion"].tolist()[:6] == content["train_labels"][:, 2].tolist()
    assert table["label:Hernia"].tolist()[-3:] == content["test_labels"][:, 13].tolist()
    images = np.concatenate([content[f"{split}_images"] for split in ("train", "val", "test")])
    for row in (0, 5, 1, 6, 10, 7):  # back and forth
        record = table.iloc[row].to_dict()
        assert np.array_equal(medmnist.load(record, medmnist.Config(), 40).pixels, images[row])


def test_pneumonia_has_one_label(tmp_path):
    content = arrays(labels=1)
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **content)
    table = read(tmp_path)
    assert table["label:Pneumonia"].tolist()[:6] == content["train_labels"][:, 0].tolist()
    assert [name for name in table if name.startswith("label:")] == ["label:Pneumonia"]


def test_a_pack_of_the_same_size_holds_the_very_pixels(tmp_path):
    content = arrays(size=28)
    np.savez_compressed(tmp_path / "chestmnist.npz", **content)
    pack = prepare("medmnist", tmp_path, tmp_path / "pack", size=28, workers=1)
    assert np.array_equal(pack.images[pack.rows(["train"])], content["train_images"])


def test_of_several_files_one_is_named(tmp_path):
    for name in ("chestmnist.npz", "chestmnist_64.npz", "other.npz"):
        np.savez_compressed(tmp_path / name, **arrays())
    with pytest.raises(UserError, match=r"holds chestmnist.npz, chestmnist_64.npz: name one .* option file"):
        read(tmp_path)
    assert read(tmp_path, file="chestmnist_64.npz")["path"][0].startswith(f"{tmp_path}/chestmnist_64.npz/train/")
    for elsewhere in ("chestmnist_224.npz", "other.npz", "../chestmnist.npz"):
        with pytest.raises(UserError, match="has no"):
            read(tmp_path, file=elsewhere)


WRONG = {
    "labels of another set": arrays(labels=3),
    "colour": arrays(train_images=np.zeros((6, 20, 20, 3), np.uint8)),
    "other numbers": arrays(train_images=np.zeros((6, 20, 20), np.float32)),
    "too few labels": arrays(train_labels=np.zeros((5, 14), np.uint8)),
    "labels of fractions": arrays(train_labels=np.zeros((6, 14), np.float32)),
    "objects": arrays(train_labels=np.array([[{}] * 14] * 6, dtype=object)),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_medmnist_does_not_write_is_refused(tmp_path, case):
    np.savez_compressed(tmp_path / "chestmnist.npz", **WRONG[case])
    with pytest.raises(UserError, match="fetch it anew") as raised:
        read(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_label_of_two_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "chestmnist.npz", **arrays(train_labels=np.full((6, 14), 2, np.uint8)))
    with pytest.raises(UserError, match="a label is 1, 0, -1 or blank"):
        read(tmp_path)


def test_a_download_that_was_cut_off(tmp_path):
    np.savez_compressed(tmp_path / "chestmnist.npz", **arrays())
    content = (tmp_path / "chestmnist.npz").read_bytes()
    (tmp_path / "chestmnist.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cannot be read .* fetch it anew"):
        read(tmp_path)


class Trap:
    """Would leave a file behind where it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return open, (str(self.place), "w")


def test_nothing_is_unpickled(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (6, 14)})
    with zipfile.ZipFile(tmp_path / "chestmnist.npz", "w") as archive:
        for name, array in arrays().items():
            plain = io.BytesIO()
            np.save(plain, array)
            hostile = head.getvalue() + pickle.dumps(Trap(tmp_path / "trapped"))
            archive.writestr(f"{name}.npy", hostile if name == "train_labels" else plain.getvalue())
    with pytest.raises(UserError, match="fetch it anew"):
        read(tmp_path)
    assert not (tmp_path / "trapped").exists()


def test_a_file_that_says_it_holds_more_than_it_does(tmp_path):
    heads = {"images": (9_000_000, 4000, 4000), "labels": (9_000_000, 14)}
    with zipfile.ZipFile(tmp_path / "chestmnist.npz", "w") as archive:
        for split in ("train", "val", "test"):
            for kind, shape in heads.items():
                head = io.BytesIO()
                np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
                archive.writestr(f"{split}_{kind}.npy", head.getvalue())
    with pytest.raises(UserError, match="fetch it anew"):
        read(tmp_path)


def test_an_image_that_is_damaged_is_unreadable(tmp_path):
    np.savez(tmp_path / "chestmnist.npz", **arrays())
    [record, *_] = read(tmp_path).to_dict("records")
    with pytest.raises(UnreadableImage, match=r"damaged file chestmnist\.npz"):
        medmnist.load(record | {"path": f"{tmp_path}/chestmnist.npz/train/99"}, medmnist.Config(), 16)


def test_the_look_alike_comes_in_published_sizes(tmp_path):
    for words, name in (([], "chestmnist_224.npz"), (["--size", "28"], "chestmnist.npz")):
        run_command("fake", ["medmnist", str(tmp_path / name), "--patients", "1", *words])
        assert [file.name for file in (tmp_path / name).glob("*.npz")] == [name]
    with pytest.raises(UserError, match="comes in 28, 64, 128, 224 pixels, not 256: choose one of these"):
        run_command("fake", ["medmnist", str(tmp_path / "x"), "--size", "256"])
    assert not (tmp_path / "x").exists()


def test_a_file_that_is_a_link_out_of_the_folder_is_not_read_unless_asked_for(tmp_path):
    (tmp_path / "here").mkdir()
    np.savez_compressed(tmp_path / "elsewhere.npz", **arrays())
    (tmp_path / "here" / "chestmnist.npz").symlink_to(tmp_path / "elsewhere.npz")
    out = "a link that leads out of the folder"
    with pytest.raises(UserError, match=rf"none of the 11 images .* can be read; .*: {out} \(follow_links reads it\)"):
        prepare("medmnist", tmp_path / "here", tmp_path / "pack", size=28, workers=1)
    [finding] = examine("medmnist", tmp_path / "here").findings
    assert (finding.kind, finding.count) == ("image-outside", 11)
    assert len(prepare("medmnist", tmp_path / "here", tmp_path / "pack", size=28, workers=1, follow_links=True)) == 11
    assert examine("medmnist", tmp_path / "here", follow_links=True).whole
