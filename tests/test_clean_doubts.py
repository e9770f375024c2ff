"""What clean scores alone give away: other labels, other ranges, too few patients; and what sound ones do not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexmsn.core.errors import UserError
from chexmsn.evaluation.cohort import Cohort, Resampling
from chexmsn.evaluation.comparison_plan import CompareConfig, Plan
from chexmsn.evaluation.conditions import CLEAN, Condition
from chexmsn.evaluation.judgement import judged
from chexmsn.evaluation.model_check import few_patients, ranking_doubts
from chexmsn.evaluation.thresholds import find_thresholds
from chexmsn.metrics.bootstrap import FEWEST_PATIENTS
from scored_folders import labels_of, write_scored

FINDINGS = ("Edema", "Mass", "Nodule", "Pneumonia")
BLUR = Condition("gaussian-blur", 3.0)


def people(images: int = 240, *, patients: int | None = None, together: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Labels that occur together by a share of their variance."""
    draw = np.random.default_rng(seed)
    shared, own = draw.normal(size=(images, 1)), draw.normal(size=(images, len(FINDINGS)))
    ill = together**0.5 * shared + (1 - together) ** 0.5 * own > 0.6
    table = pd.DataFrame({"image_key": [f"{n:04}" for n in range(images)]})
    table["patient_id"] = [f"p{n % (patients or images)}" for n in range(images)]
    table[["sex", "age", "view"]] = [["F", 50.0, "PA"]] * images
    return table.join(pd.DataFrame(ill.astype(float), columns=[f"label:{f}" for f in FINDINGS]))


def truth(labels: pd.DataFrame) -> np.ndarray:
    return labels[[f"label:{f}" for f in FINDINGS]].to_numpy()


def scores_of(labels: pd.DataFrame, noise: float | np.ndarray = 0.5, seed: int = 1) -> np.ndarray:
    known = truth(labels)
    logits = known - 0.5 + noise * np.random.default_rng(seed).normal(size=known.shape)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    together=st.floats(0, 0.8),
    noise=st.lists(st.floats(0.3, 3), min_size=len(FINDINGS), max_size=len(FINDINGS)),
)
def test_a_sound_classifier_of_findings_that_occur_together_leaves_no_doubt(seed, together, noise):
    labels = people(together=together, seed=seed)
    assert ranking_doubts(scores_of(labels, np.array(noise), seed + 1), labels) == []


def test_scores_that_tell_nothing_are_doubted_as_rarely_as_their_level_says():
    """1 %: no search for the worst case, which such scores have, but seeds that were fixed beforehand."""
    tables = [people(together=0.75, seed=seed) for seed in range(100)]
    assert sum(bool(ranking_doubts(scores_of(t, 30.0, s + 1), t)) for s, t in enumerate(tables)) <= 4


def test_permuted_columns_name_both_findings():
    labels = people()
    found = ranking_doubts(scores_of(labels)[:, [1, 2, 3, 0]], labels)
    assert len(found) == 1
    assert "those of Edema tell Mass (AUROC 0.9" in found[0] and "order of the findings" in found[0]


def test_an_inverted_finding_is_named():
    labels, scores = people(), scores_of(people())
    scores[:, 2] = 1 - scores[:, 2]
    (doubt,) = ranking_doubts(scores, labels)
    assert doubt.startswith("Nodule (AUROC 0.0") and "worse than by chance" in doubt and "inverted" in doubt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores: scores * 1e-6, "a score of 0 or 1, to rounding, of Edema, Mass"),
        (lambda scores: np.round(scores * 4) / 8 + 0.2, "fewer than 10 different scores of Edema, Mass"),
    ],
)
def test_a_range_that_is_not_the_models_is_seen_in_its_answers(change, message):
    labels = people()
    (doubt,) = ranking_doubts(change(scores_of(labels)), labels)
    assert message in doubt and "value_range" in doubt and "logits" in doubt


# --- what the tables say


def results(labels: pd.DataFrame, clean: np.ndarray, blurred: np.ndarray, kind: str = "percentile") -> dict:
    cells = []
    for condition, scores in ((CLEAN, clean), (BLUR, blurred)):
        about = labels[["image_key"]].assign(**vars(condition), repeat=0)
        cells.append(about.join(pd.DataFrame(scores, columns=[f"score:{f}" for f in FINDINGS])))
    about = {"model": "m", "conditions": (CLEAN, BLUR), "not_applicable": {}, "seen": (), "thresholds": {}}
    tables = judged(pd.concat(cells), labels, Resampling(resamples=200, interval=kind), **about)
    rows = tables["results"]
    blurred = rows[(rows.corruption == BLUR.corruption) & (rows.metric == "auroc")].set_index("finding")
    areas = tables["areas"].query("over == 'corruption'").set_index(["metric", "finding"])
    return {"rows": blurred, "areas": areas, "tables": tables}


@pytest.mark.parametrize("kind", ["percentile", "bca"])
@pytest.mark.parametrize("patients", [1, 2, 4, FEWEST_PATIENTS - 1])
def test_few_patients_have_values_and_no_interval_anywhere(patients, kind):
    labels = people(patients=patients)
    told = results(labels, scores_of(labels), scores_of(labels, 1.0, 2), kind)
    rows = told["rows"]
    assert rows["value"].notna().all() and rows["absolute_drop"].notna().all()
    assert rows.filter(regex="low$|high$").isna().all(axis=None) and (rows["status"] == "ok").all()
    assert rows["note"].str.contains("no interval: fewer than 10 patients").all()
    assert all(table[["low", "high"]].isna().all(axis=None) for name, table in told["tables"].items() if "low" in table)
    (doubt,) = few_patients(labels)
    assert f"of {patients} patient{'s' * (patients > 1)}, and intervals need at least 10" in doubt


def test_enough_patients_have_intervals():
    labels = people(patients=FEWEST_PATIENTS)
    rows = results(labels, scores_of(labels), scores_of(labels, 1.0, 2))["rows"]
    assert rows["low"].notna().all() and few_patients(labels) == []


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_a_share_of_a_skill_that_may_be_none_is_not_told(kind):
    labels = people(120)
    noise = np.array([0.5, 20.0, 0.5, 0.5])
    told = results(labels, scores_of(labels, noise), scores_of(labels, 2 * noise, 2), kind)
    drops = told["rows"].filter(like="above_chance_drop")
    assert drops.loc["Mass"].isna().all() and drops.drop(index="Mass").notna().all(axis=None)
    assert "not surely above chance" in told["rows"].loc["Mass", "note"] and not told["rows"].loc["Edema", "note"]
    kept = told["areas"].loc["area_above_chance", ["value", "low", "high"]]
    assert kept.loc["Mass"].isna().all() and kept.drop(index="Mass").notna().all(axis=None)
    assert told["areas"].loc["area", "value"].notna().all()


def test_an_interval_without_width_says_where_it_comes_from():
    labels = people()
    rows = results(labels, scores_of(labels), np.full((len(labels), len(FINDINGS)), 0.5))["rows"]
    assert (rows["value"] == 0.5).all() and rows["note"].str.contains("constant scores or perfect separation").all()


def test_a_cohort_of_few_patients_bears_nothing():
    cohort = Cohort.of(people(patients=4), Resampling(resamples=20))
    assert (cohort.undefined_at_most < 0).all()


def test_a_comparison_takes_every_spelling_of_a_finding(tmp_path):
    labels = labels_of().rename(columns={"label:Edema": "label:Pleural Effusion"})
    runs = tuple(write_scored(tmp_path / name, name, labels, seed=n) for n, name in enumerate("ab"))
    plan = Plan.open(CompareConfig(runs=runs, out=tmp_path / "out", findings=("Effusion",), resamples=20))
    assert plan.sets.findings == ("Pleural Effusion",)


@pytest.mark.parametrize(
    ("asked", "message"),
    [("nowhere.csv", "nowhere.csv is not there"), ("validate", "is no file, and there are no splits")],
)
def test_thresholds_that_are_nowhere(asked, message):
    with pytest.raises(UserError, match=message):
        find_thresholds(asked, {}, FINDINGS, (), "", choose=lambda split: None)
