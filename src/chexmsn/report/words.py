"""Numbers and lists as a reader expects them in print."""

from collections.abc import Sequence

import pandas as pd

MINUS, DASH, TIMES, HARD_SPACE = "\u2212", "\u2013", "\u00d7", "\u00a0"


def three_digits(value: float) -> str:
    """An AUROC, or a difference of two.

    >>> three_digits(0.78149), three_digits(-0.0001)
    ('0.781', '0.000')
    """
    return f"{value:z.3f}".replace("-", MINUS)


def percent(share: float) -> str:
    """A share in per cent.

    >>> percent(0.0587)
    '5.9\\xa0%'
    """
    return f"{100 * share:z.1f}{HARD_SPACE}%".replace("-", MINUS) if pd.notna(share) else "an undefined share"


def listed(names: Sequence[str], comma: str = ", ") -> str:
    """Names as a list in words.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [comma.join(names[:-1]), *names[-1:]]))


def p_value(p: float) -> str:
    """A p value; one that resamples cannot tell from 0 says so.

    >>> p_value(0.0312), p_value(0.0004)
    ('0.031', 'below 0.001')
    """
    if pd.isna(p):
        return "none"
    return "below 0.001" if p < 0.001 else f"{p:.3f}"
