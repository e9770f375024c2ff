"""Packs opened, joined and served: nothing lost, nothing leaked, the order keyed."""

import pickle
import shutil
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from chexmsn.core import lookup
from chexmsn.core.batch import to_images
from chexmsn.core.draws import keys_of
from chexmsn.core.errors import UserError
from chexmsn.core.files import read_json, write_json
from chexmsn.data.collection import Collection
from chexmsn.data.labels import Policy
from chexmsn.data.loader import batches_of, hold, keyed_order, loader
from chexmsn.data.pack import IMAGES, INDEX, INFO, open_pack, verify
from chexmsn.data.prepare import SOURCES, prepare
from chexmsn.recipes.arguments import run_command

NOTHING_SPECIAL = {"seed": 0, "epoch": 0, "shuffle": True, "drop_last": False, "workers": 0, "pin_memory": False}


def make(folder, patients, splits, findings, *, size=16, prefix="", start=0, collection=None, dtype="uint8"):
    """A pack of one image per patient; image number i is of the gray value i."""
    source = folder / "source"
    source.mkdir(parents=True)
    names = [f"{start + i}.png" for i in range(len(patients))]
    for i, name in enumerate(names):
        Image.new("L", (20, 20), start + i).save(source / name)
    columns = {"image": names, "patient_id": patients, "split": splits, **findings}
    pd.DataFrame(columns).to_csv(source / "labels.csv", index=False)
    options = {"split": "split", "findings": list(findings), "key_prefix": prefix, "collection": collection}
    return prepare("csv", source, folder / "pack", options=options, size=size, workers=1, dtype=dtype)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    labels = {"Edema": ["1", "0", "-1", "", "1"], "Mass": ["", "1", "0", "0", "-1"]}
    return make(tmp_path_factory.mktemp("one"), list("abcde"), ["train"] * 3 + ["validate", "test"], labels)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return make(tmp_path_factory.mktemp("two"), list("fgh"), ["train"] * 3, {"Edema": ["1", "1", ""]}, start=100)


def test_a_pack_opens_as_it_was_made(one):
    pack = open_pack(one.folder)
    assert (pack.name, pack.size, len(pack), pack.findings) == ("pack", 16, 5, ("Edema", "Mass"))
    assert pack.images[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert pack.rows(["train", "test"]).tolist() == [0, 1, 2, 4]
    assert np.array_equal(pack.raw_labels(["mass"])[:, 0], np.float32([np.nan, 1, 0, 0, -1]), equal_nan=True)
    assert pack.mean == pytest.approx(1 / 255)
    assert pack.std == pytest.approx((2 / 3) ** 0.5 / 255)


def test_to_another_process_travels_the_name_and_not_the_pixels(one):
    content = pickle.dumps(one)
    assert len(content) < 1000
    assert np.array_equal(pickle.loads(content).images, one.images)


@pytest.fixture
def copy(one, tmp_path):
    return shutil.copytree(one.folder, tmp_path / "copy")


def test_a_folder_that_is_no_pack(tmp_path):
    with pytest.raises(UserError, match=r"is no pack \(it has no pack.json\)"):
        open_pack(tmp_path)


def test_a_pack_of_another_format(copy):
    write_json(copy / INFO, read_json(copy / INFO) | {"format": 99})
    with pytest.raises(UserError, match="has format 99, not 1"):
        open_pack(copy)
    write_json(copy / INFO, [])
    with pytest.raises(UserError, match="has format None, not 1"):
        open_pack(copy)
    write_json(copy / INFO, {"format": 1, "size": 16})
    with pytest.raises(UserError, match="does not say images, findings, splits, mean"):
        open_pack(copy)


@pytest.mark.parametrize("name", [IMAGES, INDEX])
def test_a_damaged_pack_is_told(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{name}.* prepare (it|the pack) anew"):
        open_pack(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=name):
        open_pack(copy)


def test_a_changed_pixel_is_found_by_its_checksum(copy):
    content = bytearray((copy / IMAGES).read_bytes())
    content[-1] ^= 1
    (copy / IMAGES).write_bytes(content)
    with pytest.raises(UserError, match="is not what it was"):
        verify(open_pack(copy))


def test_verify_reads_packs_and_names_what_changed(one, copy, caplog):
    caplog.set_level("INFO")
    run_command("verify", [str(one.folder), str(copy)])
    assert caplog.text.count("is what it was when it was made: 5 images") == 2
    content = (copy / IMAGES).read_bytes()
    (copy / IMAGES).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"copy/images\.npy is not what it was"):
        run_command("verify", [str(one.folder), str(copy)])


def test_joined_packs_keep_every_row(one, two):
    both = Collection([one, two], ["train"])
    assert len(both) == 6
    assert both.patients.tolist() == list("abcfgh")
    assert both.keys.tolist() == keys_of(["0.png", "1.png", "2.png", "100.png", "101.png", "102.png"]).tolist()
    assert both.pixels(np.array([5, 0, 3, 5]))[:, 0, 0].tolist() == [102, 0, 100, 102]
    assert both.findings == ("Edema", "Mass")
    assert len(Collection([one, two], ["validate", "test"])) == 2


def test_what_a_pack_says_nothing_of_is_left_out_whatever_the_policy(one, two):
    labels = Collection([one, two], ["train"]).labels(["Mass", "Edema"], Policy(blank="zeros"))
    nan = np.nan
    expected = [[0, 1], [1, 0], [0, 0], [nan, 1], [nan, 1], [nan, 0]]
    assert np.array_equal(labels, np.float32(expected), equal_nan=True)


def test_an_unknown_finding_is_named_with_those_there_are(one, two):
    with pytest.raises(UserError, match="no pack has labels of Scurvy: there are Edema, Mass"):
        Collection([one, two], ["train"]).labels(["Scurvy"], Policy())
    with pytest.raises(UserError, match="no pack has labels of Scurvy: there are Edema, Mass"):
        Collection([one, two], ["train"]).labels(["Mass"], Policy(per_finding={"scurvy": "ones"}))


def test_mean_and_deviation_of_joined_packs(one, two):
    both = Collection([one, two], ["train"])
    values = np.array([0, 1, 2, 100, 101, 102]) / 255
    assert both.mean == pytest.approx(values.mean())
    assert both.std == pytest.approx(values.std())


def test_the_fingerprint_tells_collections_apart(one, two):
    prints = {
        Collection(packs, splits).fingerprint
        for packs in ([one], [one, two], [two, one])
        for splits in (["train"], ["train", "validate"])
    }
    assert len(prints) == 6


def test_a_split_that_no_pack_has(one, two):
    with pytest.raises(UserError, match="no image lies in the split 'validate', only in train"):
        Collection([two], ["validate"])
    with pytest.raises(UserError, match="at least one pack"):
        Collection([], ["train"])


def test_packs_of_different_size(one, tmp_path):
    with pytest.raises(UserError, match=r"different size cannot be joined \(.*16 px, .*32 px\)"):
        Collection([one, make(tmp_path, ["z"], ["train"], {}, size=32, start=200)], ["train"])


def test_a_patient_trained_on_here_and_tested_on_there(one, tmp_path):
    other = make(tmp_path, ["a", "z"], ["test", "train"], {}, start=200)
    with pytest.raises(UserError, match=r"1 lie in several \(a\)"):
        Collection([one, other], ["train"])


def test_an_image_key_that_two_packs_share(one, tmp_path):
    same = make(tmp_path / "same", ["a"], ["train"], {})
    with pytest.raises(UserError, match=r"an image called '0\.png': leave one out"):
        Collection([one, same], ["train"])
    other = make(tmp_path / "other", ["a"], ["train"], {}, prefix="other/")
    assert len(Collection([one, other], ["train"])) == 4


def test_a_key_prefix_hides_no_leak(one, tmp_path):
    other = make(tmp_path, ["a", "z"], ["test", "train"], {}, start=200, prefix="other/")
    with pytest.raises(UserError, match=r"1 lie in several \(a\)"):
        Collection([one, other], ["train"])


def test_patients_of_different_collections_have_nothing_in_common(one, tmp_path):
    other = make(tmp_path, ["a", "z"], ["test", "train"], {}, start=200, collection="elsewhere")
    both = Collection([one, other], ["train", "test"])
    assert both.patients.tolist() == ["source/a", "source/b", "source/c", "source/e", "elsewhere/a", "elsewhere/z"]
    assert Collection([one], ["test"]).patients.tolist() == ["e"], "alone they keep their numbers"


def test_the_same_image_under_another_name_is_found(one, tmp_path):
    copy = make(tmp_path / "copy", ["x", "y"], ["train", "test"], {}, prefix="copy/", collection="elsewhere")
    with pytest.raises(
        UserError, match=r"1 images lie in different splits of .*'1\.png' in train and 'copy/1\.png' in test"
    ):
        Collection([one, copy], ["train"])
    same = make(tmp_path / "same", ["x", "y"], ["train", "train"], {}, prefix="copy/", collection="elsewhere")
    assert len(Collection([one, same], ["train"])) == 5


def test_sources_say_whose_patients_theirs_are(tmp_path):
    names = set()
    for seed in (0, 1):
        lookup.load(SOURCES, "phantom").fake(tmp_path / str(seed), patients=2, seed=seed)
        names.add(prepare("phantom", tmp_path / str(seed), tmp_path / f"{seed}-pack", size=16, workers=1).collection)
    assert names == {"phantom-0", "phantom-1"}
    lookup.load(SOURCES, "mimic-cxr-jpg").fake(tmp_path / "jpg", patients=4)
    packed = prepare("mimic-cxr-jpg", tmp_path / "jpg", tmp_path / "jpg-pack", size=16, workers=1)
    assert (packed.collection, packed.info["source"]) == ("mimic-cxr", "mimic-cxr-jpg")


def test_packs_of_8_and_16_bits_are_served_as_16(one, tmp_path, caplog):
    caplog.set_level("INFO")
    deep = make(tmp_path, ["y", "z"], ["train", "train"], {}, start=200, dtype="uint16")
    both = Collection([one, deep], ["train"])
    assert "served as 16 bits" in caplog.text
    assert both.dtype == np.uint16
    assert both.pixels(np.array([4, 0, 2]))[:, 0, 0].tolist() == [201 * 257, 0, 2 * 257]
    [batch] = loader(both, np.arange(5), None, batch_size=5, **NOTHING_SPECIAL)
    assert to_images(batch.pixels)[:, 0, 0, 0].mul(255).round().sort().values.tolist() == [0, 1, 2, 200, 201]
    [cut] = loader(
        both, np.arange(5), None, batch_size=5, held=hold(both, None, torch.device("cpu")), **NOTHING_SPECIAL
    )
    assert torch.equal(cut.pixels, batch.pixels)
    assert cut.pixels.dtype == torch.uint16
    alone = Collection([deep], ["train"])
    assert alone.pixels(np.array([1]))[0, 0, 0] == 201 * 257
    assert both.mean == pytest.approx((0 + 1 + 2 + 200 + 201) / 5 / 255)


keys = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50, unique=True).map(np.array)


@given(keys=keys, seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_the_order_of_two_images_depends_on_nothing_else(keys, seed, epoch):
    order = keyed_order(keys, seed, epoch)
    assert sorted(order) == list(range(len(keys)))
    half = keys[::2]
    among_all = [key for key in keys[order] if key in set(half)]
    assert half[keyed_order(half, seed, epoch)].tolist() == among_all


def test_the_order_changes_with_seed_and_epoch():
    keys = keys_of(map(str, range(50))).numpy()
    orders = {tuple(keyed_order(keys, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(count=st.integers(1, 50), size=st.integers(1, 20))
def test_batches_are_whole_and_complete(count, size):
    rows = np.arange(count)
    assert np.concatenate(batches_of(rows, size, drop_last=False)).tolist() == rows.tolist()
    assert {len(batch) for batch in batches_of(rows, size, drop_last=True)} <= {size}


def test_a_batch_is_what_its_rows_say(one, two):
    both = Collection([one, two], ["train"])
    labels = both.labels(["Edema"], Policy())
    for batch in loader(both, np.array([4, 0, 5, 1]), labels, batch_size=3, **NOTHING_SPECIAL):
        rows = batch.rows.numpy()
        assert np.array_equal(batch.pixels.numpy(), both.pixels(rows))
        assert np.array_equal(batch.keys.numpy(), both.keys[rows])
        assert np.array_equal(batch.labels.numpy(), labels[rows])


def test_workers_change_nothing_and_evaluation_loses_nothing(one, two):
    both = Collection([one, two], ["train"])
    served = {}
    for workers in (0, 2):
        how = NOTHING_SPECIAL | {"workers": workers}
        served[workers] = [batch.rows.tolist() for batch in loader(both, np.arange(6), None, batch_size=4, **how)]
    assert served[0] == served[2]
    assert sorted(row for batch in served[0] for row in batch) == list(range(6))


@pytest.mark.parametrize("together", [True, False], ids=["two packs", "one pack"])
def test_every_route_gives_the_same_batches_bit_for_bit(one, two, together):
    images = Collection([one, two] if together else [one], ["train", "validate", "test"])
    labels = images.labels(["Edema"], Policy())
    held = hold(images, labels, torch.device("cpu"))
    how = {"batch_size": 2, "first": 1} | NOTHING_SPECIAL
    rows = np.arange(len(images))[::-1].copy()
    for epoch in range(2):
        how["epoch"] = epoch
        routes = [loader(images, rows, labels, **how | route) for route in ({}, {"workers": 1}, {"held": held})]
        assert len({len(route) for route in routes}) == 1
        for batches in zip(*routes, strict=True):
            for parts in zip(*batches, strict=True):
                first, *others = (part.nan_to_num(-7.0) if part.is_floating_point() else part for part in parts)
                assert all(other.equal(first) and other.dtype == first.dtype for other in others)


def test_a_reading_error_reaches_whoever_asks_for_the_batch(one):
    images, how = Collection([one], ["train"]), NOTHING_SPECIAL | {"shuffle": False}
    batches = loader(images, np.array([0, 1, 77]), None, batch_size=1, **how)
    with pytest.raises(IndexError, match="77"):
        list(batches)


def test_a_reader_stops_when_nobody_listens_any_more(one):
    before = threading.active_count()
    batches = iter(loader(Collection([one], ["train"]), np.arange(3), None, batch_size=1, **NOTHING_SPECIAL))
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_unshuffled_is_in_order_and_a_short_batch_may_be_dropped(one):
    images = Collection([one], ["train", "validate", "test"])
    how = NOTHING_SPECIAL | {"shuffle": False, "drop_last": True}
    batches = [batch.rows.tolist() for batch in loader(images, np.arange(5), None, batch_size=2, **how)]
    assert batches == [[0, 1], [2, 3]]


def test_processes_share_every_batch(one, two):
    both = Collection([one, two], ["train"])
    whole = [batch.rows.tolist() for batch in loader(both, np.arange(6), None, batch_size=4, **NOTHING_SPECIAL)]
    parts = [
        [
            b.rows.tolist()
            for b in loader(both, np.arange(6), None, batch_size=4, process=i, processes=2, **NOTHING_SPECIAL)
        ]
        for i in range(2)
    ]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]


def test_an_epoch_goes_on_with_the_batches_that_are_left_and_stays_as_long(one, two):
    both = Collection([one, two], ["train"])
    whole = loader(both, np.arange(6), None, batch_size=2, **NOTHING_SPECIAL)
    for first in range(4):
        rest = loader(both, np.arange(6), None, batch_size=2, first=first, **NOTHING_SPECIAL)
        assert len(rest) == len(whole) == 3
        for _ in range(2):  # Lightning begins twice
            assert [b.rows.tolist() for b in rest] == [b.rows.tolist() for b in whole][first:]


@pytest.mark.parametrize(
    ("rows", "batch", "how", "message"),
    [
        (3, 4, {"drop_last": True}, "a batch of 4 images cannot be drawn from 3"),
        (0, 4, {}, "cannot be drawn from 0"),
        (3, 0, {}, "a batch of 0"),
        (3, 3, {"processes": 2}, "cannot be shared equally by 2 processes"),
    ],
)
def test_batches_that_cannot_be(one, rows, batch, how, message):
    with pytest.raises(UserError, match=message):
        loader(Collection([one], ["train"]), np.arange(rows), None, batch_size=batch, **NOTHING_SPECIAL | how)
