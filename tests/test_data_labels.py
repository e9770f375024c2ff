"""Findings, label policies and splits: what holds for every input."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexmsn.core.errors import UserError
from chexmsn.data.labels import (
    CHEXPERT_FINDINGS,
    NIH_FINDINGS,
    VINDR_FINDINGS,
    Policy,
    apply_policy,
    canonical,
    shared_findings,
)
from chexmsn.data.sources import openi, padchest
from chexmsn.data.splits import check_no_leak, grouped_split, share_of_patients

NIH_14 = [
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
]


def test_the_vocabulary():
    assert len(CHEXPERT_FINDINGS) == 14
    assert list(CHEXPERT_FINDINGS) == sorted(CHEXPERT_FINDINGS)
    assert {canonical(name) for name in NIH_14} <= {*CHEXPERT_FINDINGS, *NIH_FINDINGS}
    assert shared_findings(CHEXPERT_FINDINGS, NIH_14) == (
        "Atelectasis",
        "Cardiomegaly",
        "Consolidation",
        "Edema",
        "Pleural Effusion",
        "Pneumonia",
        "Pneumothorax",
    )


@given(st.sampled_from([*CHEXPERT_FINDINGS, *NIH_FINDINGS]))
def test_spelling_does_not_matter(name):
    for spelling in (name.lower(), name.upper(), name.replace(" ", "_"), name.replace(" ", "  ")):
        assert canonical(spelling) == name


@given(st.text())
def test_a_canonical_name_is_its_own(name):
    assert canonical(canonical(name)) == canonical(name)


raw_values = st.lists(st.sampled_from([1.0, 0.0, -1.0, np.nan]), min_size=1, max_size=20)
words = st.sampled_from(["zeros", "ones", "ignore", "smooth"])


@given(raw=raw_values, uncertain=words, blank=st.sampled_from(["zeros", "ignore"]))
def test_a_policy_touches_only_what_is_unsure(raw, uncertain, blank):
    raw = np.array(raw)[:, None]
    targets = apply_policy(raw, ["Edema"], Policy(uncertain=uncertain, blank=blank))
    sure = np.isin(raw, [0, 1])
    assert targets.dtype == np.float32
    assert np.array_equal(targets[sure], raw[sure])
    assert np.isnan(targets[np.isnan(raw)]).all() == (blank == "ignore") or not np.isnan(raw).any()
    expected = np.float32({"zeros": 0, "ones": 1, "ignore": np.nan, "smooth": 0.7}[uncertain])
    assert np.array_equal(targets[raw == -1], np.full((raw == -1).sum(), expected), equal_nan=True)


def test_a_policy_per_finding_and_by_any_spelling():
    policy = Policy(uncertain="ones", per_finding={"effusion": "ignore"})
    targets = apply_policy(np.array([[-1.0, -1.0]]), ["Edema", "Pleural Effusion"], policy)
    assert np.array_equal(targets, [[1, np.nan]], equal_nan=True)


patients = st.lists(st.integers(0, 30).map("p{}".format), min_size=1, max_size=100)


@given(patients=patients, seed=st.integers(0, 5), shares=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)))
def test_shares_are_whole_patients_and_nested(patients, seed, shares):
    few, many = (share_of_patients(patients, share, seed) for share in sorted(shares))
    assert set(few) <= set(many)
    for chosen, share in ((few, min(shares)), (many, max(shares))):
        names = {patients[i] for i in chosen}
        assert len(names) == max(1, round(share * len(set(patients))))
        assert sorted(chosen) == [i for i, patient in enumerate(patients) if patient in names]


@given(patients=patients, seed=st.integers(0, 5))
def test_the_share_does_not_depend_on_the_order_of_the_images(patients, seed):
    names = {patients[i] for i in share_of_patients(patients, 0.3, seed)}
    assert names == {patients[::-1][i] for i in share_of_patients(patients[::-1], 0.3, seed)}
    assert len(share_of_patients(patients, 1.0, seed)) == len(patients)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_a_share_outside_its_range(share):
    with pytest.raises(UserError, match=r"must lie in \(0, 1\]"):
        share_of_patients(["a"], share, 0)


@given(patients=patients, train=st.floats(0, 1), seed=st.integers(0, 5))
def test_a_grouped_split_keeps_patients_whole_and_shares_true(patients, train, seed):
    split = grouped_split(patients, {"train": train, "test": 1 - train}, seed)
    index = pd.DataFrame({"patient_id": patients, "split": split})
    check_no_leak(index)
    total = len(set(patients))
    trained = index.loc[index["split"] == "train", "patient_id"].nunique()
    assert abs(trained - train * total) <= 0.5 + 1e-6


def test_a_leak_names_the_first_patients():
    index = pd.DataFrame({"patient_id": list("aabbccddeeffg"), "split": ["train", "test"] * 6 + ["train"]})
    with pytest.raises(UserError, match=r"6 lie in several \(a, b, c, d, e, \.\.\.\)"):
        check_no_leak(index)


def the_table_of_the_page() -> dict[str, list[str]]:
    """The rows of the table of names in docs/labels.md: what each collection calls a finding."""
    page = (Path(__file__).parents[1] / "docs" / "labels.md").read_text(encoding="utf-8")
    table = page[page.index("| finding |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {name: cells for name, *cells in rows}


def test_the_page_lists_the_whole_vocabulary_and_every_name_on_it_is_known():
    page = the_table_of_the_page()
    assert set(page) == {*CHEXPERT_FINDINGS, *NIH_FINDINGS, *VINDR_FINDINGS}
    for finding, (chexpert, nih, vindr, _, _) in page.items():
        for name in filter(lambda cell: cell != "-", re.split(", ", f"{chexpert}, {nih}, {vindr}")):
            assert canonical(name) == finding, name


@pytest.mark.parametrize(("column", "meaning"), [(3, padchest.MEANING), (4, openi.MEANING)])
def test_the_page_says_which_findings_a_collection_of_other_words_has(column, meaning):
    page = the_table_of_the_page()
    assert {finding for finding, cells in page.items() if cells[column] != "-"} == set(meaning)
    for finding, cells in page.items():
        assert cells[column] == "-" or meaning[finding]


@pytest.mark.parametrize(
    ("collection", "said", "meant"),
    [
        ("VinDr-CXR", "Nodule/Mass", "Nodule/Mass"),
        ("VinDr-CXR", "Other disease", "Other Diseases"),
        ("VinDr-CXR", "Pulmonary fibrosis", "Fibrosis"),
        ("VinDr-CXR", "Enlarged PA", "Enlarged PA"),
        ("VinDr-CXR", "Clavicle fracture", "Clavicle Fracture"),
        ("PadChest", "COPD signs", "COPD Signs"),
        ("PadChest", "tuberculosis sequelae", "Tuberculosis Sequelae"),
        ("PadChest", "hiatal hernia", "Hernia"),
        ("OpenI", "Fractures, Bone", "Fracture"),
    ],
)
def test_what_only_resembles_a_finding_is_another(collection, said, meant):
    assert canonical(said) == meant
