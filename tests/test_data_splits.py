"""Splits are by patient: shares, folds, lists, and MedFuse's split of MIMIC-CXR."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from chexmsn.cli.main import main
from chexmsn.core import lookup
from chexmsn.core.errors import UserError
from chexmsn.data.pack import IMAGES, open_pack, verify
from chexmsn.data.prepare import prepare
from chexmsn.data.resplit import medfuse_split, subjects_of
from chexmsn.data.sources import mimic_cxr_jpg
from chexmsn.data.splits import folds, grouped_split, share_of_patients
from chexmsn.recipes.arguments import run_command

patients = st.lists(st.sampled_from([f"p{i}" for i in range(30)]), min_size=1, max_size=60)
seeds = st.integers(0, 5)


@given(patients, st.floats(0.001, 1), st.floats(0.001, 1), seeds)
def test_shares_are_nested_and_hold_whole_patients(who, one, other, seed):
    few, many = (set(share_of_patients(who, share, seed).tolist()) for share in sorted((one, other)))
    assert few <= many
    chosen = {who[i] for i in many}
    assert many == {i for i, patient in enumerate(who) if patient in chosen}
    assert len(chosen) == max(1, round(max(one, other) * len(set(who))))


@given(patients, seeds)
def test_a_share_of_a_share_is_that_share_of_all(who, seed):
    tenth = [who[i] for i in share_of_patients(who, 0.5, seed)]
    again = {tenth[i] for i in share_of_patients(tenth, 0.2, seed)}
    assert again <= {who[i] for i in share_of_patients(who, 0.5, seed)}
    assert len(again & {who[i] for i in share_of_patients(who, 0.1, seed)}) >= 1


@given(patients, seeds, st.permutations(range(3)))
def test_drawn_splits_hold_whole_patients_whatever_the_order_of_the_images(who, seed, _):
    split = grouped_split(who, {"train": 0.6, "validate": 0.2, "test": 0.2}, seed)
    assert len(set(zip(who, split, strict=True))) == len(set(who))
    assert grouped_split(who[::-1], {"train": 0.6, "validate": 0.2, "test": 0.2}, seed) == split[::-1]


@st.composite
def labelled(draw):
    who = draw(st.lists(st.sampled_from([f"p{i}" for i in range(30)]), min_size=20, max_size=60))
    return who, np.array(
        draw(
            st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, -1.0, np.nan])] * 3), min_size=len(who), max_size=len(who))
        )
    )


@given(labelled(), seeds)
def test_folds_hold_whole_patients_whatever_the_order_of_the_images(drawn, seed):
    who, labels = drawn
    count = min(4, len(set(who)))
    if count < 2:
        return
    part = folds(who, labels, count, seed)
    assert len(set(zip(who, part.tolist(), strict=True))) == len(set(who))
    assert set(part.tolist()) == set(range(count))
    assert folds(who[::-1], labels[::-1], count, seed).tolist() == part.tolist()[::-1]


def collection(seed=0):
    """1,500 images of 600 patients with findings of 2 to 40 %, which stay with their patient."""
    rng = np.random.default_rng(seed)
    number = rng.integers(0, 600, 1500)
    has = rng.random((600, 6)) < [0.4, 0.2, 0.1, 0.06, 0.04, 0.02]
    return [f"p{i}" for i in number], has[number].astype(float)


def unevenness(part, labels):
    """The largest difference of a fold's number of positives from the mean, in standard deviations of chance."""
    counts = np.array([labels[part == fold].sum(axis=0) for fold in range(5)])
    return float((np.abs(counts - counts.mean(axis=0)) / np.sqrt(counts.mean(axis=0))).max())


def test_folds_are_about_as_even_as_those_of_scikit_learn():
    who, labels = collection()
    ours = folds(who, labels, 5, seed=0)
    rarest = np.where(labels.any(axis=1), 5 - labels[:, ::-1].argmax(axis=1), 6)
    theirs = np.empty(len(who), int)
    for fold, (_, test) in enumerate(StratifiedGroupKFold(5).split(who, rarest, who)):
        theirs[test] = fold
    assert np.bincount(ours).max() - np.bincount(ours).min() <= 10
    assert unevenness(ours, labels) < max(1.5, 1.5 * unevenness(theirs, labels))
    assert (folds(who, labels, 5, seed=1) != ours).any()


def test_too_many_folds_are_refused():
    with pytest.raises(UserError, match="there must be 2 to 3 folds"):
        folds(["a", "b", "c"], np.zeros((3, 0)), 4, seed=0)


# --- packs


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    place = tmp_path_factory.mktemp("resplit")
    lookup.load("chexmsn.data.sources", "csv").fake(place / "raw", patients=15, size=24)
    return prepare("csv", place / "raw", place / "pack", options={"findings": ["Effusion"]}, size=16, workers=1)


def test_a_rotation_of_folds_tests_every_image_once_and_shares_the_pixels(pack, tmp_path):
    turns = run_command("split", ["folds", str(pack.folder), "--count", "5", "--out", str(tmp_path / "folds")])
    tested = np.concatenate([turn.rows(["test"]) for turn in turns])
    assert sorted(tested.tolist()) == list(range(len(pack)))
    for number, turn in enumerate(turns):
        verify(turn)
        assert turn.folder == tmp_path / "folds" / str(number)
        assert (turn.folder / IMAGES).samefile(pack.folder / IMAGES)
        assert turn.rows(["validate"]).tolist() == turns[(number + 1) % 5].rows(["test"]).tolist()
        pixels = pack.images[turn.rows(["train"])] / 255
        assert (turn.mean, turn.std) == (pytest.approx(pixels.mean()), pytest.approx(pixels.std()))
    assert len({turn.fingerprint for turn in turns} | {pack.fingerprint}) == 6
    assert open_pack(pack.folder).info == pack.info


def test_shares_by_command(pack, tmp_path):
    words = ["split", "shares", str(pack.folder), "--shares", "{train: 0.6, validate: 0.2, test: 0.2}"]
    drawn = run_command(words[0], [*words[1:], "--out", str(tmp_path / "new")])
    assert drawn.info["splits"] == {"train": 18, "validate": 6, "test": 6}
    assert main([*words, "--out", str(tmp_path / "new")]) == 2  # it is there already


@pytest.mark.parametrize("key", ["image_key", "patient_id"])
def test_a_list_gives_the_split(pack, tmp_path, key):
    rows = pack.index[[key]].drop_duplicates()
    rows = rows.assign(split=["test" if "1" in name.split("-")[-1][-2:-1] else "train" for name in rows[key]])
    if key == "image_key":
        rows["split"] = ["test" if who.endswith("4") else "train" for who in pack.index["patient_id"]]
    rows.to_csv(tmp_path / "list.csv", index=False)
    listed = run_command(
        "split", ["list", str(pack.folder), "--list", str(tmp_path / "list.csv"), "--out", str(tmp_path / "new")]
    )
    assert listed.index.set_index(key)["split"].to_dict() == rows.set_index(key)["split"].to_dict()
    assert listed.info["resplit"] == "list list.csv"


SPOILT = {
    "neither a column image_key nor patient_id": "name,split\na,train\n",
    "lacks the column split": "patient_id,part\npatient-0,train\n",
    "says nothing of 28 of 30 images": "patient_id,split\npatient-0,train\n",
    "gives patient-0 two splits": "patient_id,split\npatient-0,train\npatient-0,test\n",
    "not 'val'": "patient_id,split\n" + "".join(f"patient-{i},val\n" for i in range(15)),
    "1 lie in several": "image_key,split\n"
    + "".join(f"images/{i:04d}.{'png' if i % 3 else 'jpg'},{'train' if i else 'test'}\n" for i in range(30)),
}


@pytest.mark.parametrize("message", SPOILT)
def test_spoilt_lists(pack, tmp_path, message):
    (tmp_path / "list.csv").write_text(SPOILT[message])
    with pytest.raises(UserError, match=message):
        run_command(
            "split", ["list", str(pack.folder), "--list", str(tmp_path / "list.csv"), "--out", str(tmp_path / "new")]
        )
    assert not (tmp_path / "new").exists()


# --- MedFuse's split


@pytest.fixture
def mimic(tmp_path):
    mimic_cxr_jpg.fake(tmp_path / "mimic", patients=8, size=24)
    return tmp_path / "mimic"


def listfile(file, *subjects):
    stays = [f"{subject}_episode{n}_timeseries.csv" for n, subject in enumerate(subjects)]
    pd.DataFrame({"stay": stays, "period_length": 48.0, "stay_id": 1}).to_csv(file, index=False)
    return file


def test_medfuse_s_split_compares_numbers_and_test_wins(mimic, tmp_path):
    validate = listfile(tmp_path / "val_listfile.csv", 10000032, 11000035, 99999999)
    test = listfile(tmp_path / "test_listfile.csv", 11000035)
    file = run_command("split", ["medfuse", str(mimic), "--validate_list", str(validate), "--test_list", str(test)])
    assert file == mimic / "mimic-cxr-ehr-split.csv"
    written = pd.read_csv(file)
    assert list(written.columns) == ["dicom_id", "study_id", "subject_id", "split"]
    assert set(written.loc[written["split"] == "validate", "subject_id"]) == {10000032}
    assert set(written.loc[written["split"] == "test", "subject_id"]) == {11000035}
    table = mimic_cxr_jpg.read(mimic, mimic_cxr_jpg.Config(views="all"))  # auto: taken where it lies
    assert table.groupby("split")["patient_id"].nunique().to_dict() == {"train": 6, "validate": 1, "test": 1}
    assert medfuse_split(mimic, validate, test) == file  # the same again is no quarrel
    with pytest.raises(UserError, match="is there already and says something else"):
        medfuse_split(mimic, test, validate)


@pytest.mark.parametrize(
    ("content", "subjects"),
    [
        ("stay,y_true\n10000032_episode1_timeseries.csv,1\n", {10000032}),
        ("subject_id,x\n10000032,1\n10000033,0\n", {10000032, 10000033}),
        ("10000032,1\n10000033,0\n10000034,1\n", {10000032, 10000034}),
    ],
)
def test_every_form_of_the_lists(tmp_path, content, subjects):
    (tmp_path / "list.csv").write_text(content)
    assert subjects_of(tmp_path / "list.csv") == subjects


def test_lists_that_match_nobody_are_refused(mimic, tmp_path):
    nobody, somebody = listfile(tmp_path / "a.csv", 5), listfile(tmp_path / "b.csv", 10000032)
    with pytest.raises(UserError, match=r"a.csv names no subject"):
        medfuse_split(mimic, nobody, somebody)
    (tmp_path / "empty.csv").write_text("stay,y_true\n")
    with pytest.raises(UserError, match=r"empty.csv names no subject"):
        medfuse_split(mimic, somebody, tmp_path / "empty.csv")
    with pytest.raises(UserError, match=r"there is no file .*gone.csv: name a CSV table"):
        medfuse_split(mimic, somebody, tmp_path / "gone.csv")
    (tmp_path / "c.csv").write_text("stay\nx_y\n")
    with pytest.raises(UserError, match="'x' is no subject"):
        medfuse_split(mimic, somebody, tmp_path / "c.csv")
    with pytest.raises(UserError, match="neither a column stay nor subject_id"):
        medfuse_split(mimic, somebody, mimic / "IMAGE_FILENAMES")
    assert not (mimic / "mimic-cxr-ehr-split.csv").exists()


def test_an_unknown_kind_of_split_is_told(capsys):
    assert main(["split", "thirds", "x"]) == 2
    assert "one of folds, shares, list, medfuse" in capsys.readouterr().err
