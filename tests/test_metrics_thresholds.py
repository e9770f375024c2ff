"""Thresholds against trying every one."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chexmsn.metrics.thresholds import choose_thresholds

SCORES = arrays(np.float32, 12, elements=st.sampled_from(np.linspace(0, 1, 6, dtype=np.float32)))
LABELS = arrays(np.float64, 12, elements=st.sampled_from([0.0, 1.0, np.nan]))


@given(SCORES, LABELS)
def test_no_threshold_is_better_and_no_higher_one_as_good(scores, labels):
    chosen = choose_thresholds(scores[:, None], labels[:, None], ["Edema"])
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not (positive.size and negative.size):
        assert chosen == {}
        return
    merit = {float(t): (positive >= t).sum() * negative.size - (negative >= t).sum() * positive.size for t in scores}
    best = [t for t in np.concatenate([positive, negative]).tolist() if merit[t] == max(merit.values())]
    assert chosen["Edema"] == max(best)


def test_findings_keep_their_names_and_survive_json():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.6]], np.float32)
    labels = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    thresholds = json.loads(json.dumps(choose_thresholds(scores, labels, ["Edema", "Mass"])))
    assert ((scores >= np.float32([thresholds["Edema"], thresholds["Mass"]])) == labels).all()
