"""Comparing what a folder was made with against what is asked of it now."""

from collections.abc import Mapping
from typing import Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per option that is not the same, nested options by their dotted name, in alphabetical order.

    Tuples equal lists of the same values, because a record that was read back from JSON has lists only.

    >>> differences({"seed": 0, "views": {"size": 96}}, {"seed": 1, "views": {"size": 96}, "workers": 2})
    ['seed: 0 before, 1 now', 'workers: absent before, 2 now']
    """
    before, now = _flat(old), _flat(new)
    return [
        f"{name}: {_told(before, name)} before, {_told(now, name)} now"
        for name in sorted(before.keys() | now.keys())
        if _told(before, name) != _told(now, name)
    ]


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _told(flat: dict[str, Any], name: str) -> str:
    return repr(flat[name]) if name in flat else "absent"
