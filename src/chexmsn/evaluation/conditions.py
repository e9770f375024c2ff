"""What is done to an image before a model sees it, and how much of it.

The shares of dropped patches and the five kinds of noise are those the published system names; the
severities 1 to 5 are explained in `chexmsn.corruptions` and are defined at 224 px.

A missing region is called by how it goes missing and, unless that is at random, by the pattern in which it does:
`tokens-removed`, `patches-black`, `tokens-removed/block`, `patches-blur/salient`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from chexmsn.core import lookup
from chexmsn.core.errors import UserError
from chexmsn.corruptions import FILLS, PATTERNS, Fill, Pattern

CORRUPTIONS = "chexmsn.corruptions"
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SEVERITIES = (1.0, 2.0, 3.0, 4.0, 5.0)
TOKENS = "tokens-removed"
PATCHES = "patches-"
NOISES = ("poisson-noise", "gaussian-noise", "speckle-noise", "impulse-noise", "gaussian-blur")
FAMILIES = ("missing", "imagenet-c", "radiographic")


class Region(NamedTuple):
    """How a region goes missing.

    Attributes:
        fill: what its pixels are replaced by; None: its tokens are removed.
        pattern: in which order the patches go.
    """

    fill: Fill | None
    pattern: Pattern

    @property
    def name(self) -> str:
        """What it is called in results.

        >>> Region("blur", "salient").name, Region(None, "random").name
        ('patches-blur/salient', 'tokens-removed')
        """
        way = PATCHES + self.fill if self.fill else TOKENS
        return way if self.pattern == "random" else f"{way}/{self.pattern}"

    @property
    def needs(self) -> str | None:
        """What must be known of an image beside its pixels, if anything: a field of `chexmsn.corruptions.Known`."""
        return _NEEDS.get(self.pattern)


_NEEDS = {"salient": "saliency", "non-salient": "saliency", "inside": "anatomy", "outside": "anatomy"}
REGIONS = {region.name: region for pattern in PATTERNS for fill in (None, *FILLS) if (region := Region(fill, pattern))}


@dataclass(frozen=True)
class Condition:
    """One cell of the grid.

    Attributes:
        corruption: `clean`, a name of `REGIONS`, or the name of a file in `chexmsn/corruptions`.
        severity: 0 when clean; the share of patches lost, in (0, 1); or 1 to 5 for a corruption (in between allowed).
            Kept to six decimals: tables that hold a third, or 0.7 in single precision, mean one condition.
    """

    corruption: str
    severity: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "severity", round(float(self.severity), 6))


CLEAN = Condition("clean", 0.0)


def standard_grid() -> tuple[Condition, ...]:
    """The 36 conditions of the published evaluation: clean, ten shares of tokens removed, 5 noises x 5 severities.

    >>> len(standard_grid())
    36
    """
    return (CLEAN, *_ladder(TOKENS), *(condition for noise in NOISES for condition in _ladder(noise)))


def pixel_fills() -> tuple[Condition, ...]:
    """Patches replaced instead of removed, by black, by the image's mean or by the data set's: works for every network.

    >>> len(pixel_fills())
    30
    """
    names = ("patches-black", "patches-image-mean", "patches-dataset-mean")
    return tuple(condition for name in names for condition in _ladder(name))


def family_grid(family: str) -> tuple[Condition, ...]:
    """All corruptions of a family; to `missing` belong the regions too, but for those that need anatomical masks.

    >>> len({condition.corruption for condition in family_grid("missing")})
    26
    """
    names = [name for name, region in REGIONS.items() if region.needs != "anatomy"] if family == "missing" else []
    names += [name for name, of in _families().items() if of == family]
    return tuple(condition for name in names for condition in _ladder(name))


def extended_grid() -> tuple[Condition, ...]:
    """Everything: the families and what is in none of them."""
    return tuple(
        condition for family in dict.fromkeys([*FAMILIES, *_families().values()]) for condition in family_grid(family)
    )


def _families() -> dict[str, str]:
    return {name: lookup.load(CORRUPTIONS, name).FAMILY for name in lookup.names(CORRUPTIONS)}


GRIDS = {"clean": lambda: (CLEAN,), "standard": standard_grid, "fills": pixel_fills, "extended": extended_grid}


def chosen(names: Sequence[str]) -> tuple[Condition, ...]:
    """The conditions behind names: grids, corruptions (all their severities), or single ones as `name:severity`.

    Grids are `standard`, `fills`, the families (`missing`, `imagenet-c`, `radiographic`) and `extended`, which is
    everything. The clean condition always comes first, since every drop is measured against it; nothing comes twice.

    Raises UserError for a name or severity that does not exist.

    >>> chosen(["gaussian-blur:2"])
    (Condition(corruption='clean', severity=0.0), Condition(corruption='gaussian-blur', severity=2.0))
    """
    found = [condition for name in names for condition in _named(name)]
    return tuple(dict.fromkeys([CLEAN, *found]))


def with_pixels(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """The conditions, and for each share of tokens removed the same patches black: what the grid asks of a CNN.

    >>> [condition.corruption for condition in with_pixels(chosen(["tokens-removed/block:0.7"]))]
    ['clean', 'tokens-removed/block', 'patches-black/block']
    """
    black = [
        Condition(Region("black", region.pattern).name, condition.severity)
        for condition in conditions
        if (region := REGIONS.get(condition.corruption)) and region.fill is None
    ]
    return tuple(dict.fromkeys([*conditions, *black]))


def _named(name: str) -> Sequence[Condition]:
    if name in GRIDS:
        return GRIDS[name]()
    if name in FAMILIES:
        return family_grid(name)
    corruption, told, severity = name.partition(":")
    _check_name(corruption)
    return [_at(corruption, severity)] if told else _ladder(corruption)


def _ladder(corruption: str) -> list[Condition]:
    """The severities of a grid; what has one level only has it at 5, since it is all or nothing."""
    if drops_patches(corruption):
        return [Condition(corruption, share) for share in SHARES]
    one_level = len(set(lookup.load(CORRUPTIONS, corruption).LEVELS)) == 1
    return [Condition(corruption, severity) for severity in (SEVERITIES[-1:] if one_level else SEVERITIES)]


def needed_by(conditions: Iterable[Condition]) -> set[str]:
    """What must be known of the images beside their pixels: saliency, anatomy, both or nothing.

    >>> needed_by(chosen(["patches-black/salient", "gaussian-blur"]))
    {'saliency'}
    """
    regions = (REGIONS.get(condition.corruption) for condition in conditions)
    return {region.needs for region in regions if region and region.needs}


def drops_patches(corruption: str) -> bool:
    """Whether severity is a share of patches."""
    return corruption in REGIONS


_IN_PATTERN = {
    "random": "at random",
    "block": "as one contiguous block",
    "salient": "the most salient first",
    "non-salient": "the least salient first",
    "inside": "those inside the anatomical mask first",
    "outside": "those outside the anatomical mask first",
}


def mechanism(condition: Condition) -> str:
    """How the condition comes about, in words.

    >>> mechanism(Condition("patches-black/block", 0.3))
    "pixels of patches filled before the model's own normalisation; they go as one contiguous block"
    """
    if condition == CLEAN:
        return "the image as it is"
    if region := REGIONS.get(condition.corruption):
        filled = "pixels of patches filled before the model's own normalisation"
        removed = "patch tokens taken out after the position embedding, class token kept"
        return f"{filled if region.fill else removed}; they go {_IN_PATTERN[region.pattern]}"
    return "image changed in [0, 1] at the network's resolution, before the model's own normalisation"


def _check_name(corruption: str) -> None:
    grids, corruptions = [*GRIDS, *FAMILIES], lookup.names(CORRUPTIONS)
    offered = [*grids, *REGIONS, *corruptions]
    if corruption in offered:
        return
    near = get_close_matches(corruption, offered, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(
        f"there is no condition called {corruption!r}{hint}: choose one of the grids {', '.join(grids)}, or a "
        "condition of docs/stress.md and docs/corruptions.md"
    )


def _at(corruption: str, text: str) -> Condition:
    try:
        severity = float(text)
    except ValueError:
        severity = float("nan")
    condition = Condition(corruption, severity)
    if rule := broken_rule(condition):
        example = 0.7 if drops_patches(corruption) else 3
        raise UserError(f"{rule}, not {text!r}: take for example {corruption}:{example}")
    return condition


def broken_rule(condition: Condition) -> str | None:
    """What a condition of ours has to keep and does not; None for the others, whose severities mean what they like.

    >>> broken_rule(Condition("tokens-removed", 70.0))
    'the severity of tokens-removed is a share in (0, 1)'
    >>> broken_rule(Condition("gaussian-blur", 3.0)), broken_rule(Condition("dust", 70.0))
    (None, None)
    """
    corruption, severity = condition.corruption, condition.severity
    if drops_patches(corruption):
        return None if 0 < severity < 1 else f"the severity of {corruption} is a share in (0, 1)"
    if corruption in lookup.names(CORRUPTIONS) and not 0 < severity <= 5:
        return f"the severity of {corruption} lies in (0, 5]"
    return None
