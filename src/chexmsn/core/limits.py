"""Limits of options: one text is the rule that is checked and the rule that is told."""

import dataclasses
import math
from typing import Any

from chexmsn.core.errors import UserError

Number = int | float


def check_limits(options: Any, of: str = "", /, **limits: str) -> None:
    """Raise UserError for the first named field of a dataclass that is outside its interval.

    An interval is written as mathematics writes it: "[0, 1)", "(0, inf)". A number must be finite, even where the
    interval has no end. Of several numbers each must lie in the interval; two are a range, the lower one first. None,
    an option that is left out, is always allowed. The remedy that is told is the field's default.

    Args:
        options: the dataclass.
        of: whose fields these are, where their names alone do not say it.
        limits: interval by field.

    >>> @dataclasses.dataclass
    ... class Mask:
    ...     mask_ratio: float = 0.15
    >>> check_limits(Mask(0.5), mask_ratio="[0, 1)")
    >>> check_limits(Mask(float("nan")), mask_ratio="[0, 1)")
    Traceback (most recent call last):
    ...
    chexmsn.core.errors.UserError: mask_ratio must lie in [0, 1), not nan: choose for example 0.15
    """
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for name, interval in limits.items():
        value = getattr(options, name)
        if value is not None and not _allowed(value, interval):
            what = f"{name}{of and f' of {of}'}"
            raise UserError(f"{what} must {_rule(value, interval)}, not {value}{_remedy(defaults[name])}")


def _allowed(value: Number | tuple[Number, ...], interval: str) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return all(_inside(number, interval) for number in numbers) and not (len(numbers) == 2 and numbers[0] > numbers[1])


def _inside(number: Number, interval: str) -> bool:
    low, high = _ends(interval)
    above = number > low if interval.startswith("(") else number >= low
    below = number < high if interval.endswith(")") else number <= high
    return above and below and math.isfinite(number)


def _ends(interval: str) -> tuple[float, float]:
    low, high = interval[1:-1].split(",")
    return float(low), float(high)


def _rule(value: Any, interval: str) -> str:
    if isinstance(value, tuple) and len(value) == 2:
        return f"be (low, high) in {interval}"
    if _ends(interval)[1] == math.inf and value != math.inf:
        return f"be {'above' if interval.startswith('(') else 'at least'} {interval[1:].split(',')[0]}"
    return f"lie in {interval}"


def _remedy(default: Any) -> str:
    if default is dataclasses.MISSING:
        return ""
    return ": leave it out for the default" if default is None else f": choose for example {default}"
