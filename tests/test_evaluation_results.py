"""The table of results, against scikit-learn and plain loops over the same resamples."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from chexmsn.core.errors import UserError
from chexmsn.evaluation.cohort import Cohort, Resampling
from chexmsn.evaluation.conditions import CLEAN, Condition
from chexmsn.evaluation.measures import RANKING, read_cells
from chexmsn.evaluation.results import COLUMNS, results_table, without_interval
from chexmsn.metrics.bootstrap import patient_counts

FINDINGS = ("Edema", "Mass", "Hernia")
BLUR = Condition("gaussian-blur", 3.0)
NOISE = Condition("poisson-noise", 1.0)
TOKENS = Condition("tokens-removed", 0.5)
ORACLE = {"auroc": roc_auc_score, "average_precision": average_precision_score}


@pytest.fixture(scope="module")
def labels() -> pd.DataFrame:
    draw = np.random.default_rng(1)
    images = 160
    truth = (draw.random((images, 3)) < [0.4, 0.3, 0.5]).astype(np.float32)
    truth[draw.random((images, 3)) < 0.1] = np.nan
    keys = [f"image-{i:03}" for i in range(images)]
    patients = [f"p{i}" for i in draw.integers(0, 60, images)]
    table = pd.DataFrame({"image_key": keys, "patient_id": patients})
    return table.join(pd.DataFrame(truth, columns=[f"label:{finding}" for finding in FINDINGS]))


def make_scores(labels: pd.DataFrame, condition: Condition, noise: float, repeat: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng([round(10 * condition.severity), repeat])
    truth = labels.filter(like="label:").fillna(0.5).to_numpy()
    scores = (truth + noise * draw.normal(size=truth.shape)).round(1).astype(np.float32)  # rounded: many ties
    table = labels[["image_key", "patient_id"]].assign(
        corruption=condition.corruption, severity=condition.severity, repeat=repeat
    )
    table = table.join(pd.DataFrame(scores, columns=[f"score:{finding}" for finding in FINDINGS]))
    return table.sample(frac=1, random_state=0)  # the order of the rows must not matter


@pytest.fixture(scope="module")
def scores(labels: pd.DataFrame) -> pd.DataFrame:
    cells = [(CLEAN, 0.8, 0), (BLUR, 1.2, 0), (NOISE, 1.5, 0), (NOISE, 1.5, 1)]
    return pd.concat([make_scores(labels, condition, noise, repeat) for condition, noise, repeat in cells])


def plain_table(scores: pd.DataFrame, labels: pd.DataFrame, conditions, resamples: int, **about) -> pd.DataFrame:
    cohort = Cohort.of(labels, Resampling(resamples=resamples, seed=7))
    cells = read_cells(scores, cohort)
    estimates = {c: {name: m.estimate(repeats, cohort) for name, m in RANKING.items()} for c, repeats in cells.items()}
    return results_table(estimates, cohort, conditions, **({"model": "m", "not_applicable": {}, "seen": ()} | about))


def table_of(scores: pd.DataFrame, labels: pd.DataFrame, conditions=(CLEAN, BLUR, NOISE), **about) -> pd.DataFrame:
    return plain_table(scores, labels, conditions, 40, **about).set_index(["corruption", "finding", "metric"])


@pytest.fixture(scope="module")
def table(scores: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    return table_of(scores, labels)


def oracle(scores: pd.DataFrame, labels: pd.DataFrame, metric: str, weights: np.ndarray | None = None) -> np.ndarray:
    """Macro first, by scikit-learn; weights are the counts of a resample."""
    joined = labels.merge(scores, on="image_key")
    values = []
    for finding in FINDINGS:
        known = joined[f"label:{finding}"].notna().to_numpy()
        truth, score = joined.loc[known, f"label:{finding}"], joined.loc[known, f"score:{finding}"]
        values.append(ORACLE[metric](truth, score, sample_weight=None if weights is None else weights[known]))
    return np.array([np.mean(values), *values])


def cell(scores: pd.DataFrame, condition: Condition, repeat: int = 0) -> pd.DataFrame:
    return scores[(scores["corruption"] == condition.corruption) & (scores["repeat"] == repeat)]


@pytest.mark.parametrize("metric", ORACLE)
@pytest.mark.parametrize("condition", [CLEAN, BLUR])
def test_values_are_those_of_scikit_learn(scores, labels, table, condition, metric):
    got = table.loc[condition.corruption].xs(metric, level="metric")["value"]
    np.testing.assert_allclose(got, oracle(cell(scores, condition), labels, metric), atol=1e-12)


@pytest.mark.parametrize("metric", ORACLE)
def test_repeats_are_averaged(scores, labels, table, metric):
    want = np.mean([oracle(cell(scores, NOISE, repeat), labels, metric) for repeat in (0, 1)], axis=0)
    np.testing.assert_allclose(table.loc[NOISE.corruption].xs(metric, level="metric")["value"], want, atol=1e-12)


@pytest.mark.parametrize("metric", ORACLE)
def test_intervals_are_those_of_a_loop_over_paired_resamples(scores, labels, table, metric):
    counts = patient_counts(labels["patient_id"].to_numpy(), 40, 7)
    clean, blurred = (
        np.array([oracle(cell(scores, c), labels, metric, weights) for weights in counts]) for c in (CLEAN, BLUR)
    )
    truth = labels.filter(like="label:").to_numpy()
    shares = np.array([np.nansum(truth * w[:, None], 0) / (~np.isnan(truth) * w[:, None]).sum(0) for w in counts])
    chance = 0.5 if metric == "auroc" else np.column_stack([shares.mean(1), shares])
    want = {
        "": blurred,
        "absolute_drop_": clean - blurred,
        "relative_drop_": (clean - blurred) / clean,
        "above_chance_drop_": (clean - blurred) / (clean - chance),
    }
    got = table.loc[BLUR.corruption].xs(metric, level="metric")
    for prefix, samples in want.items():
        np.testing.assert_allclose(got[f"{prefix}low"], np.quantile(samples, 0.025, axis=0), atol=1e-9)
        np.testing.assert_allclose(got[f"{prefix}high"], np.quantile(samples, 0.975, axis=0), atol=1e-9)


def test_drops_are_ratios_of_the_values(table):
    clean, blurred = (table.loc[(c.corruption, "macro", "auroc")] for c in (CLEAN, BLUR))
    lost = clean["value"] - blurred["value"]
    assert blurred["absolute_drop"] == pytest.approx(lost)
    assert blurred["relative_drop"] == pytest.approx(lost / clean["value"])
    assert blurred["above_chance_drop"] == pytest.approx(lost / (clean["value"] - 0.5))
    assert clean["absolute_drop"] == clean["absolute_drop_low"] == clean["absolute_drop_high"] == 0


def test_sizes_count_labelled_images_their_patients_and_positives(labels, table):
    row = table.loc[("clean", "Edema", "auroc")]
    known = labels[labels["label:Edema"].notna()]
    assert (row["images"], row["patients"], row["positives"]) == (
        len(known),
        known["patient_id"].nunique(),
        known["label:Edema"].sum(),
    )


def test_columns_and_order(scores, labels):
    table = plain_table(scores, labels, (CLEAN, NOISE), 5, seen={"poisson-noise"})
    assert tuple(table.columns) == COLUMNS
    assert table["finding"].head(4).tolist() == ["macro", *FINDINGS]
    assert len(table) == 2 * 2 * 4
    assert table.groupby("corruption")["seen_in_training"].all().to_dict() == {"clean": False, "poisson-noise": True}


def test_resamples_do_not_depend_on_what_else_is_measured(scores, labels, table):
    alone = table_of(scores, labels, (CLEAN, BLUR))
    pd.testing.assert_frame_equal(alone, table.loc[["clean", "gaussian-blur"]])


def test_a_condition_that_does_not_apply_is_a_cell_that_says_so(scores, labels):
    table = table_of(scores, labels, (CLEAN, TOKENS), not_applicable={TOKENS: "a CNN has no tokens"})
    cells = table.loc["tokens-removed"]
    assert set(cells["status"]) == {"a CNN has no tokens"}
    assert cells[["value", "low", "high", "absolute_drop"]].isna().all(axis=None)


def test_a_finding_of_one_class_is_named_and_stays_out_of_the_macro(scores, labels):
    table = table_of(scores, labels.assign(**{"label:Mass": 0.0}))
    row = table.loc[("clean", "Mass", "auroc")]
    assert row["status"] == "no positives among 160 labelled images"
    assert np.isnan(row["value"]) and np.isnan(row["low"])
    others = [table.loc[("clean", finding, "auroc"), "value"] for finding in ("Edema", "Hernia")]
    assert table.loc[("clean", "macro", "auroc"), "value"] == pytest.approx(np.mean(others))


@pytest.mark.parametrize(
    ("truth", "reason"),
    [(1.0, "no negatives among 160 labelled images"), (np.nan, "no labelled images")],
)
def test_why_a_finding_is_left_out(labels, truth, reason):
    cohort = Cohort.of(labels.assign(**{"label:Mass": truth}), Resampling(resamples=3))
    assert cohort.left_out == {"Mass": reason}


def test_few_positive_patients_give_a_value_without_an_interval(scores, labels):
    rare = labels["label:Mass"].mask(labels["label:Mass"].notna(), 0.0)
    rare[0] = 1.0
    table = table_of(scores, labels.assign(**{"label:Mass": rare}))
    row = table.loc[("gaussian-blur", "Mass", "auroc")]
    assert row["status"] == "ok" and np.isfinite(row["value"]) and np.isnan(row["low"])
    assert np.isfinite(table.loc[("clean", "macro", "auroc"), "low"])
    assert without_interval(table.reset_index()) == ["Mass"]


def test_constant_scores_are_chance(scores, labels):
    constant = scores.assign(**{"score:Mass": np.float32(0.5)})
    table = table_of(constant, labels)
    prevalence = labels["label:Mass"].mean()
    assert table.loc[("clean", "Mass", "auroc"), ["value", "low", "high"]].tolist() == [0.5, 0.5, 0.5]
    assert table.loc[("clean", "Mass", "average_precision"), "value"] == pytest.approx(prevalence)
    assert np.isnan(table.loc[("gaussian-blur", "Mass", "auroc"), "above_chance_drop"])  # no skill to lose


def test_nothing_to_rank_is_told(scores, labels):
    hopeless = labels.assign(**{f"label:{finding}": 0.0 for finding in FINDINGS})
    with pytest.raises(UserError, match="both positives and negatives among the 160"):
        table_of(scores, hopeless)


def test_scores_of_other_images_are_refused(scores, labels):
    with pytest.raises(UserError, match="not one per labelled image"):
        table_of(scores[scores["image_key"] != "image-003"], labels)
    with pytest.raises(UserError, match="score:Mass"):
        table_of(scores.drop(columns="score:Mass"), labels)
