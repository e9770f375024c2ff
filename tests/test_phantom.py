"""The phantom: the same picture from the same keys, every finding where it belongs, tables as the real ones are."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from chexmsn.core.errors import UserError
from chexmsn.data.image import UnreadableImage
from chexmsn.data.phantom.exposure import Technique, develop, expose
from chexmsn.data.phantom.people import DRAWN, FINDINGS, SPLITS, Body, Visit, body_of, course, leading, report
from chexmsn.data.phantom.picture import Spec, canvas_of, chest_of, picture
from chexmsn.data.phantom.sheet import contact_sheet
from chexmsn.data.sources import phantom

SIZE = 96


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("phantom")
    phantom.fake(folder, patients=200, seed=0, size=SIZE)
    return phantom.read(folder, phantom.Config())


def labels_of(table: pd.DataFrame) -> pd.DataFrame:
    return table[[f"label:{finding}" for finding in FINDINGS]].rename(columns=lambda name: name.removeprefix("label:"))


def drawn(record: dict) -> np.ndarray:
    return phantom.load(record, phantom.Config(), 0).pixels


# The same picture


def test_a_picture_depends_on_its_keys_alone(table):
    records = table[["path"]].head(6).to_dict("records")
    forward = [drawn(record) for record in records]
    with ThreadPoolExecutor(3) as pool:
        backward = list(pool.map(drawn, records[::-1]))[::-1]
    for one, other in zip(forward, backward, strict=True):
        assert one.dtype == np.uint8
        assert one.shape == (SIZE, SIZE)
        np.testing.assert_array_equal(one, other)
    assert len({image.tobytes() for image in forward}) == len(forward)


def test_the_global_random_state_is_neither_used_nor_touched():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = picture(Spec(0, SIZE, 1, 0, 0))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(first, picture(Spec(0, SIZE, 1, 0, 0)))


def test_other_seeds_show_other_people():
    assert body_of(0, 3) != body_of(1, 3)
    assert (picture(Spec(0, SIZE, 3, 0, 0)) != picture(Spec(1, SIZE, 3, 0, 0))).mean() > 0.5


def test_size_changes_the_sampling_and_not_the_patient():
    small = picture(Spec(0, 64, 2, 0, 0)).astype(float)
    large = picture(Spec(0, 192, 2, 0, 0)).astype(float).reshape(64, 3, 64, 3).mean((1, 3))
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.98


GOLDEN = {
    0: [80.2, 76.3, 48.4, 47.5, 117.1, 108.0],
    1: [87.7, 76.3, 58.2, 62.4, 110.7, 119.6],
    5: [83.9, 74.0, 63.3, 65.8, 102.8, 103.7],
}


@pytest.mark.parametrize(("patient", "expected"), GOLDEN.items())
def test_the_drawing_is_that_of_its_version(patient, expected):
    """Mean, deviation and means of the quarters of three pictures. A new drawing is a new `phantom.VERSION`."""
    image = picture(Spec(0, SIZE, patient, 0, 0)).astype(float)
    quarters = image.reshape(2, SIZE // 2, 2, SIZE // 2).mean((1, 3)).ravel()
    np.testing.assert_allclose([image.mean(), image.std(), *quarters], expected, atol=1.0)


# The findings


@cache
def bare(patient: int) -> tuple[Body, Visit]:
    body = replace(body_of(0, patient), breast=0.0)
    first = course(0, patient)[0]
    return body, replace(first, severities={}, sides=dict.fromkeys(DRAWN, 1))


def attenuation(finding: str | None, patient: int, view: str, severity: float = 0.8) -> np.ndarray:
    body, visit = bare(patient)
    visit = replace(visit, views=(view,), severities={finding: severity} if finding else {})
    spec = Spec(0, SIZE, patient, 0, 0)
    return chest_of(spec, canvas_of(spec, body, view), body, visit, view).attenuation()


# Where a finding on the patient's left (the image's right) must show in a PA view: rows and columns as shares of the
# side, and whether it adds (+1) or takes away (-1) attenuation there.
PLACES = {
    "Atelectasis": ((0.45, 0.85), (0.5, 0.85), +1),
    "Cardiomegaly": ((0.45, 0.85), (0.3, 0.8), +1),
    "Consolidation": ((0.15, 0.85), (0.5, 0.85), +1),
    "Edema": ((0.25, 0.75), (0.2, 0.8), +1),
    "Enlarged Cardiomediastinum": ((0.15, 0.55), (0.3, 0.7), +1),
    "Lung Lesion": ((0.25, 0.75), (0.15, 0.85), +1),
    "Lung Opacity": ((0.2, 0.75), (0.5, 0.85), +1),
    "Pleural Effusion": ((0.5, 0.9), (0.5, 0.9), +1),
    "Pleural Other": ((0.15, 0.85), (0.5, 0.9), +1),
    "Pneumonia": ((0.25, 0.85), (0.15, 0.85), +1),
    "Pneumothorax": ((0.15, 0.6), (0.5, 0.85), -1),
}


@pytest.mark.parametrize("finding", PLACES)
def test_a_finding_changes_the_picture_where_it_should(finding):
    (top, bottom), (left, right), sign = PLACES[finding]
    rows, columns = slice(int(top * SIZE), int(bottom * SIZE)), slice(int(left * SIZE), int(right * SIZE))
    shares = []
    for patient in range(4):
        change = attenuation(finding, patient, "PA") - attenuation(None, patient, "PA")
        expected = np.clip(sign * change, 0, None)
        shares.append(expected[rows, columns].sum() / expected.sum())
        assert np.abs(change).max() > 0.15, "a finding must rise above quantum noise (some 0.01 at this size)"
    assert np.mean(shares) > 0.7


def test_a_fracture_moves_bone_and_nothing_else():
    for patient in range(4):
        change = attenuation("Fracture", patient, "PA") - attenuation(None, patient, "PA")
        assert 0.2 < np.abs(change).max() < 1.5
        assert (np.abs(change) > 0.02).mean() < 0.12


@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL"])
def test_devices_only_add(view):
    for patient in range(4):
        change = attenuation("Support Devices", patient, view) - attenuation(None, patient, view)
        assert change.min() > -1e-4
        assert change.max() > 0.2
        assert (change > 0.02).mean() < 0.25


@pytest.mark.parametrize("view", ["AP", "LATERAL"])
@pytest.mark.parametrize("finding", DRAWN)
def test_every_finding_shows_in_the_other_views_too(finding, view):
    change = attenuation(finding, 1, view) - attenuation(None, 1, view)
    assert np.abs(change).max() > 0.05


@pytest.mark.parametrize("finding", DRAWN)
def test_a_worse_finding_changes_more(finding):
    clear = attenuation(None, 2, "PA")
    faint, florid = (np.abs(attenuation(finding, 2, "PA", severity) - clear).sum() for severity in (0.1, 1.0))
    assert 0 < faint < florid


def test_the_heart_is_relatively_larger_from_front_to_back():
    def width(view: str) -> float:
        body, visit = bare(0)
        spec = Spec(0, SIZE, 0, 0, 0)
        return float(
            (
                chest_of(spec, canvas_of(spec, body, "PA"), body, replace(visit, views=(view,)), view).mediastinum > 20
            ).sum()
        )

    assert width("AP") > 1.03 * width("PA")


# Exposure


@pytest.mark.parametrize("view", ["PA", "LATERAL"])
def test_noise_falls_with_the_dose_as_quanta_do(view):
    mu = attenuation(None, 0, view)
    noise = []
    for dose in (1 / 256, 1 / 16, 1.0):
        technique = Technique(dose=dose, scatter=0.2)
        one, other = (
            np.log(np.maximum(expose(mu, 4.0, technique, np.random.default_rng(seed)), 0.5)) for seed in (0, 1)
        )
        noise.append((one - other)[30:60, 30:60].std())
    assert noise[0] / noise[1] == pytest.approx(4, rel=0.2)  # a sixteenth of the quanta, four times the noise
    assert noise[1] / noise[2] == pytest.approx(4, rel=0.2)


def test_an_underexposed_picture_is_brighter_and_scatter_flattens():
    mu = attenuation(None, 0, "PA")

    def shown(**technique: float) -> np.ndarray:
        chosen = Technique(**{"equalised": 0.0, **technique})
        return develop(expose(mu, 4.0, chosen, np.random.default_rng(0)), 4.0, chosen)

    means = [shown(dose=dose).mean() for dose in (1 / 64, 1 / 8, 1.0, 4.0)]
    assert means == sorted(means, reverse=True)
    contrasts = []
    for scatter in (0.1, 0.5):
        quanta = np.log(np.maximum(expose(mu, 4.0, Technique(scatter=scatter), np.random.default_rng(0)), 1))
        contrasts.append(quanta[40:56, 22:36].mean() - quanta[80:90, 40:56].mean())
    assert contrasts[0] > 1.05 * contrasts[1]


def test_dense_is_white():
    image = picture(Spec(0, SIZE, 4, 0, 0)).astype(float)
    assert image[-20:-8, 40:56].mean() > 180  # abdomen
    assert image[-20:-8, 40:56].mean() > image[40:56, 22:36].mean() + 60  # lung


# The tables


def test_a_patient_lies_in_one_split_and_the_shares_hold(table):
    splits = table.groupby("patient_id")["split"].agg(["nunique", "first"])
    assert (splits["nunique"] == 1).all()
    assert splits["first"].value_counts().to_dict() == {"train": 140, "validate": 20, "test": 40}


def test_few_patients_fill_every_split(tmp_path):
    phantom.fake(tmp_path, patients=3, size=32)
    assert set(phantom.read(tmp_path, phantom.Config())["split"]) == {"train", "validate", "test"}


@pytest.mark.parametrize("seed", range(3))
def test_every_split_meets_every_finding(seed):
    for split in ("train", "validate", "test"):
        led = {leading(seed, patient) for patient in range(180) if SPLITS[patient % 10] == split}
        assert led == {*DRAWN, None}


def test_labels_are_those_of_real_tables(table):
    labels = labels_of(table)
    assert set(np.unique(labels.to_numpy()[~np.isnan(labels.to_numpy())])) == {-1, 0, 1}
    assert labels.isna().to_numpy().mean() > 0.5  # most findings are not mentioned
    assert (labels == 1).any().all()
    assert ((labels == -1).any() | (labels.columns == "No Finding")).all()
    for split in ("train", "test"):
        assert ((labels[table["split"] == split] == 1).sum() >= 3).all()


def test_labels_belong_to_the_study(table):
    labels = labels_of(table).fillna(9).assign(study=table["study_id"])
    assert (labels.groupby("study").nunique() == 1).all().all()


def test_no_finding_means_none(table):
    labels = labels_of(table)
    others = labels.drop(columns=["No Finding", "Support Devices"])
    silent = ~others.isin([1, -1]).any(axis=1)
    assert ((labels["No Finding"] == 1) == silent).all()
    assert 0.08 < silent.mean() < 0.4


def test_the_umbrella_is_never_denied_beside_its_kind(table):
    labels = labels_of(table)
    kinds = labels[["Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Pneumonia"]]
    assert not ((kinds == 1).any(axis=1) & (labels["Lung Opacity"] == 0)).any()


def test_what_is_reported_agrees_with_what_is_drawn():
    hits, total = 0, 0
    for patient in range(60):
        for visit in course(0, patient):
            said = report(0, visit)
            for finding in DRAWN:
                if visit.severity(finding) >= 0.4:
                    assert said[finding] == 1
                if finding != "Lung Opacity" and not visit.severity(finding):
                    assert said[finding] != 1
                if 0 < visit.severity(finding) < 0.25:
                    total += 1
                    hits += said[finding] == -1
    assert 0.4 < hits / total < 0.8  # subtle findings are mostly called uncertain


def test_findings_persist_from_study_to_study():
    kept = [
        bool(before.severity(finding)) and bool(after.severity(finding))
        for patient in range(120)
        for before, after in zip(course(0, patient), course(0, patient)[1:], strict=False)
        for finding in DRAWN
        if before.severity(finding)
    ]
    assert 0.65 < np.mean(kept) < 0.95


def test_views_devices_and_the_bedside_go_together(table):
    share = table["view"].value_counts(normalize=True)
    assert share["AP"] + share["PA"] > 0.7
    assert set(share.index) == {"AP", "PA", "LATERAL"}
    devices = labels_of(table)["Support Devices"] == 1
    assert devices[table["view"] == "AP"].mean() > 1.5 * devices[table["view"] == "PA"].mean()


def test_the_frontal_option(tmp_path):
    phantom.fake(tmp_path, patients=20, size=32)
    assert set(phantom.read(tmp_path, phantom.Config(views="frontal"))["view"]) == {"AP", "PA"}


def test_a_larger_phantom_holds_the_smaller_one(tmp_path):
    phantom.fake(tmp_path / "small", patients=4, size=32)
    phantom.fake(tmp_path / "large", patients=9, size=32)
    small, large = (phantom.read(tmp_path / name, phantom.Config()) for name in ("small", "large"))
    pd.testing.assert_frame_equal(small, large.head(len(small)))


def test_pixel_sizes_are_those_of_a_chest_detector(table):
    field = table["pixel_mm_row"] * SIZE
    assert field.between(330, 420).all()
    assert (table["pixel_mm_row"] == table["pixel_mm_column"]).all()


def test_the_contact_sheet_shows_what_it_says(tmp_path):
    contact_sheet(tmp_path / "sheet.png", ["No Finding", "Edema"], size=64)
    assert (tmp_path / "sheet.png").stat().st_size > 4000


# Bad input


def test_bad_input_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        phantom.read(tmp_path / "nowhere", phantom.Config())
    with pytest.raises(UserError, match=r"phantom\.json"):
        phantom.read(tmp_path, phantom.Config())
    with pytest.raises(UserError, match="views must be one of frontal, all"):
        phantom.Config(views="oblique")
    with pytest.raises(UserError, match="at least 1 patient"):
        phantom.fake(tmp_path, patients=0)
    with pytest.raises(UnreadableImage, match="is no image of the phantom"):
        phantom.load({"path": "/images/1.png"}, phantom.Config(), 0)


def test_a_folder_of_another_version_is_refused(tmp_path):
    phantom.fake(tmp_path, patients=1, size=32)
    file = tmp_path / "phantom.json"
    file.write_text(file.read_text().replace(f'"version": {phantom.VERSION}', '"version": 0'))
    with pytest.raises(UserError, match="write the folder anew"):
        phantom.read(tmp_path, phantom.Config())


def test_tables_that_do_not_fit_are_refused(tmp_path):
    phantom.fake(tmp_path, patients=3, size=32)
    studies = tmp_path / "studies.csv"
    studies.write_text("\n".join(studies.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(UserError, match="lacks study"):
        phantom.read(tmp_path, phantom.Config())
