"""Numbers and lists as a reader expects them in print."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

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


def reason(note: str, missing: str) -> str:
    """What a `note` says of something that is missing; where it says nothing, only that it is.

    >>> reason("no interval: fewer than 10 patients; no drop above chance: why", "no drop above chance")
    'no drop above chance: why'
    >>> reason("", "no interval")
    'no interval'
    """
    return next((part for part in note.split("; ") if part.startswith(missing)), missing)


def p_value(p: float) -> str:
    """A p value; one that resamples cannot tell from 0 says so.

    >>> p_value(0.0312), p_value(0.0004)
    ('0.031', 'below 0.001')
    """
    if pd.isna(p):
        return "none"
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def runnable(command: str) -> str:
    """A recorded command as it is typed: earlier versions recorded the place of the program.

    >>> runnable("/opt/lib/chexmsn/__main__.py stress runs/vit")
    'chexmsn stress runs/vit'
    """
    return re.sub(r"^\S*/(__main__\.py|chexmsn)(?=\s|$)", "chexmsn", command)


def shareable(command: str | None) -> str | None:
    """A recorded command for a public page: of a path that tells where a user's files lie, only the last part.

    >>> shareable("chexmsn stress /data/ada/vit --out=~/runs/vit --conditions tokens-removed/block:0.7")
    'chexmsn stress vit --out=vit --conditions tokens-removed/block:0.7'
    """
    return command and shlex.join(map(_last_part, shlex.split(runnable(command))))


def without_places(told: Any) -> Any:
    """A record for a public page: of absolute paths, which name users and their folders, only the last part.

    >>> without_places({"data": "/data/ada/my pack", "doubts": ["seen in /data/ada/runs/vit: why?"], "size": 32})
    {'data': 'my pack', 'doubts': ['seen in vit: why?'], 'size': 32}
    """
    if isinstance(told, dict):
        return {
            name: shareable(value) if name == "command" and isinstance(value, str) else without_places(value)
            for name, value in told.items()
        }
    if isinstance(told, list):
        return [without_places(value) for value in told]
    if not isinstance(told, str):
        return told
    if told.startswith("/") and Path(told).parent != Path("/") and ": " not in told:
        return PurePath(told).name
    return _PLACE.sub(lambda found: PurePath(found[0]).name, told)


_PLACE = re.compile(r"""(?<![\w/.:~-])(?:~\w*)?/(?:[^\s/'",;:()]+/)+[^\s/'",;:()]*""")


def _last_part(word: str) -> str:
    option, is_set, value = word.rpartition("=")
    return option + is_set + (PurePath(value).name if value.startswith(("/", "~", "..")) else value)
