"""Differences of records."""

import json

from hypothesis import given
from hypothesis import strategies as st

from chexmsn.core.record import differences

VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()).map(tuple)
RECORDS = st.recursive(
    st.dictionaries(st.text(), VALUES), lambda inner: st.dictionaries(st.text(), VALUES | inner), max_leaves=10
)


@given(RECORDS)
def test_a_record_equals_itself_after_it_was_written_and_read(record):
    assert differences(json.loads(json.dumps(record)), record) == []


def test_each_difference_is_named():
    old = {"seed": 0, "labels": {"blank": "zeros", "per_finding": {}}, "gone": None}
    new = {"seed": 0.5, "labels": {"blank": "ignore", "per_finding": {"Mass": "ones"}}, "sizes": (1, 2)}
    assert differences(old, new) == [
        "gone: null before, absent now",
        'labels.blank: "zeros" before, "ignore" now',
        "labels.per_finding: {} before, absent now",
        'labels.per_finding.Mass: absent before, "ones" now',
        "seed: 0 before, 0.5 now",
        "sizes: absent before, [1, 2] now",
    ]
