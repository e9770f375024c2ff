"""How conditions are named, ordered and chosen for the headline tables and figures."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from chexmsn.core.lookup import load, names
from chexmsn.evaluation.areas import family_of
from chexmsn.evaluation.conditions import REGIONS
from chexmsn.report.words import HARD_SPACE, listed

CLEAN = "clean"
TOKENS, BLACK = "tokens-removed", "patches-black"
HARD_SHARE, HARD_SEVERITY = 0.7, 5.0  # what stands for a corruption, where it was tested
MIDDLE_SEVERITY = 3.0

_TITLES = {
    TOKENS: "Tokens removed",
    BLACK: "Patches black",
    "patches-image-mean": "Patches at the image mean",
    "patches-dataset-mean": "Patches at the data-set mean",
    "patches-noise": "Patches of noise",
    "patches-blur": "Patches blurred",
}
_PATTERNS = {
    "block": "one block",
    "salient": "most salient first",
    "non-salient": "least salient first",
    "inside": "inside the anatomy first",
    "outside": "outside the anatomy first",
}
_PROPER_NOUNS = ("Poisson", "Gaussian", "JPEG")
_CORRUPTIONS = "chexmsn.corruptions"
FAMILIES = {
    "imagenet-c": "Noise, blur and processing",
    "radiographic": "How the radiograph was taken",
    "missing": "Missing rows and tiles",
    "held-back": "Kept for tests only",
    "other": "Other corruptions",
}
IN_WORDS = {
    "imagenet-c": "noise, blur and processing",
    "radiographic": "radiographic corruptions",
    "missing": "missing regions",
    "held-back": "corruptions kept for tests",
    "other": "other corruptions",
}


class Condition(NamedTuple):
    """A corruption at a severity: a share of patches in [0, 1) for missing regions, else a step from 1 to 5."""

    corruption: str
    severity: float

    @property
    def label(self) -> str:
        """Its name in a table.

        >>> Condition("tokens-removed", 0.7).label, Condition("flip", 5).label
        ('Tokens removed, 70\\xa0%', 'Horizontal flip')
        """
        if self.corruption == CLEAN:
            return "Clean"
        title = corruption_title(self.corruption)
        return title if is_all_or_nothing(self.corruption) else f"{title}, {severity_text(self)}"


def corruption_title(corruption: str) -> str:
    """The name of a corruption at the start of a line; of one that is none of ours, the name it came with.

    >>> corruption_title("dose"), corruption_title("scanner-of-1997"), corruption_title("patches-blur/block")
    ('Low dose (quantum noise)', 'Scanner of 1997', 'Patches blurred (one block)')
    """
    way, _, pattern = corruption.partition("/")
    if way in _TITLES:
        return f"{_TITLES[way]} ({_PATTERNS.get(pattern, pattern)})" if pattern else _TITLES[way]
    ours = corruption in names(_CORRUPTIONS)
    return load(_CORRUPTIONS, corruption).TITLE if ours else corruption.replace("-", " ").capitalize()


def steps(corruption: str) -> tuple[str, tuple[float, ...]] | None:
    """The unit of a corruption and what its severities 0 to 5 mean in it; None where nothing is known.

    >>> steps("rotation")
    ('degrees', (0.0, 3.0, 5.0, 10.0, 15.0, 20.0))
    """
    if corruption not in names(_CORRUPTIONS):
        return None
    about = load(_CORRUPTIONS, corruption)
    return about.UNIT, (about.IDENTITY, *about.LEVELS)


def is_all_or_nothing(corruption: str) -> bool:
    """Whether all severities of a corruption are the same, as of a flip, so that none needs to be told."""
    known = steps(corruption)
    return known is not None and len(set(known[1][1:])) == 1


def in_sentence(title: str) -> str:
    """A title inside a sentence: small unless it starts with a name.

    >>> in_sentence("Impulse noise"), in_sentence("Poisson noise")
    ('impulse noise', 'Poisson noise')
    """
    return title if title.startswith(_PROPER_NOUNS) else title[:1].lower() + title[1:]


def severity_text(condition: Condition) -> str:
    """The severity with its unit."""
    if is_missing(condition.corruption):
        return f"{100 * condition.severity:.0f}{HARD_SPACE}%"
    return f"severity {condition.severity:g}"


def short_label(condition: Condition) -> str:
    """Its name beside an axis.

    >>> short_label(Condition("patches-black", 0.7)), short_label(Condition("rotation", 5))
    ('Black 70\\xa0%', 'Rotation 5')
    """
    if condition.corruption == CLEAN:
        return "Clean"
    title = corruption_title(condition.corruption).removeprefix("Patches at the ").removeprefix("Patches ")
    if is_all_or_nothing(condition.corruption):
        return title
    return f"{title[:1].upper()}{title[1:]} {severity_text(condition).removeprefix('severity ')}"


def is_missing(corruption: str) -> bool:
    """Whether the corruption takes regions of the image away, and its severity is a share of patches."""
    return corruption in REGIONS


def conditions_of(table: pd.DataFrame) -> list[Condition]:
    """The condition of each row."""
    return [Condition(c, float(s)) for c, s in zip(table.corruption, table.severity, strict=True)]


def conditions(table: pd.DataFrame) -> list[Condition]:
    """The conditions of a result table: clean, missing regions, then the rest, each by severity."""
    return in_order(set(conditions_of(table)))


def in_order(found: Iterable[Condition]) -> list[Condition]:
    """The order of the page."""
    return sorted(found, key=lambda c: (corruption_order(c.corruption), c.severity))


def at_conditions(table: pd.DataFrame, wanted: Collection[Condition]) -> pd.DataFrame:
    """The rows under some conditions."""
    kept = set(wanted)
    return table[np.array([condition in kept for condition in conditions_of(table)], dtype=bool)]


def corruption_order(corruption: str) -> tuple[int, int, str]:
    """Sorting key: clean, missing regions as listed above, then the others as the standard grid has them."""
    grid = ("poisson-noise", "gaussian-noise", "speckle-noise", "impulse-noise", "gaussian-blur")
    known = (CLEAN, *REGIONS, *grid)
    if corruption in known:
        return (0, known.index(corruption), "")
    return (1, list(FAMILIES).index(family_of(corruption)), corruption)


def hard(table: pd.DataFrame, value: str = "value") -> list[Condition]:
    """The condition that stands for each corruption of a table: 70 % gone or severity 5, else the hardest tested.

    Where not all models were tested alike, it is one under which the most have a value.

    >>> tested = [("clean", 0), ("tokens-removed", 0.7), ("tokens-removed", 0.9), ("fog", 1), ("fog", 2)]
    >>> [tuple(c) for c in hard(pd.DataFrame(tested, columns=["corruption", "severity"]).assign(value=0.8))]
    [('tokens-removed', 0.7), ('fog', 2.0)]
    """
    degraded = table[table.corruption != CLEAN]
    models = degraded[value].notna().groupby([degraded.corruption, degraded.severity]).sum()
    ranked = sorted((told, _is_usual(Condition(*at)), Condition(*at)) for at, told in models.items())
    return in_order({condition.corruption: condition for _, _, condition in ranked}.values())  # the last one stays


def _is_usual(condition: Condition) -> bool:
    return condition.severity == (HARD_SHARE if is_missing(condition.corruption) else HARD_SEVERITY)


def headline(table: pd.DataFrame, value: str = "value") -> list[Condition]:
    """The conditions of the first table: clean, what stands for each corruption, and severity 3."""
    middle = [c for c in conditions(table) if c.severity == MIDDLE_SEVERITY and not is_missing(c.corruption)]
    return in_order({Condition(CLEAN, 0.0), *hard(table, value), *middle})


def at(found: Iterable[Condition]) -> str:
    """How hard some conditions are, in words.

    >>> at([Condition("patches-black", 0.7), Condition("dose", 3), Condition("jpeg", 5)]).replace("\xa0", " ")
    'with 70 % of the patches gone and at severities 3 and 5'
    """
    shares = sorted({c.severity for c in found if is_missing(c.corruption)})
    stepped = [c for c in found if not is_missing(c.corruption) and not is_all_or_nothing(c.corruption)]
    severities = sorted({c.severity for c in stepped})
    gone = listed([f"{100 * share:.0f}{HARD_SPACE}%" for share in shares])
    steps = listed([f"{severity:g}" for severity in severities])
    named = "severity" if len(severities) == 1 else "severities"
    told = [f"with {gone} of the patches gone"] * bool(shares) + [f"at {named} {steps}"] * bool(severities)
    return " and ".join(told)
