"""Comparing what a folder was made with against what is asked of it now."""

import json
from collections.abc import Mapping
from typing import Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per option that is not the same, nested options by their dotted name, in alphabetical order.

    Both are compared as JSON holds them, so a record equals itself after it was written and read back.

    >>> differences({"seed": 0, "views": {"sizes": [96]}}, {"seed": 1, "views": {"sizes": (96,)}, "workers": 2})
    ['seed: 0 before, 1 now', 'workers: absent before, 2 now']
    """
    before, now = _flat(old), _flat(new)
    return [
        f"{name}: {before.get(name, 'absent')} before, {now.get(name, 'absent')} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, ensure_ascii=False)
    return flat
