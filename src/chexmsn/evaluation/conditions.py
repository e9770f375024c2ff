"""What is done to an image before a model sees it, and how much of it.

The shares of dropped patches and the five kinds of noise are those the published system names; the
severities 1 to 5 are explained in `chexmsn.corruptions` and are defined at 224 px.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from chexmsn.core import lookup
from chexmsn.core.errors import UserError

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SEVERITIES = (1.0, 2.0, 3.0, 4.0, 5.0)
TOKENS = "tokens-removed"
FILLS = {"patches-black": "black", "patches-image-mean": "image-mean", "patches-dataset-mean": "dataset-mean"}
NOISES = ("poisson-noise", "gaussian-noise", "speckle-noise", "impulse-noise", "gaussian-blur")


@dataclass(frozen=True)
class Condition:
    """One cell of the grid.

    Attributes:
        corruption: `clean`, `tokens-removed`, a fill of `FILLS`, or the name of a file in `chexmsn/corruptions`.
        severity: 0 when clean; the share of patches lost, in (0, 1); or 1 to 5 for a corruption (in between allowed).
    """

    corruption: str
    severity: float


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
    return tuple(condition for fill in FILLS for condition in _ladder(fill))


def chosen(names: Sequence[str]) -> tuple[Condition, ...]:
    """The conditions behind names: grids, corruptions (all their severities), or single ones as `name:severity`.

    `standard` and `fills` are the grids above. The clean condition always comes first, since every
    drop is measured against it; nothing comes twice.

    Raises UserError for a name or severity that does not exist.

    >>> chosen(["gaussian-blur:2"])
    (Condition(corruption='clean', severity=0.0), Condition(corruption='gaussian-blur', severity=2.0))
    """
    found = [condition for name in names for condition in _named(name)]
    return tuple(dict.fromkeys([CLEAN, *found]))


def with_pixels(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """The conditions, and for each share of tokens removed the same patches black: what the grid asks of a CNN.

    >>> [condition.corruption for condition in with_pixels(chosen(["tokens-removed:0.7"]))]
    ['clean', 'tokens-removed', 'patches-black']
    """
    black = [Condition("patches-black", c.severity) for c in conditions if c.corruption == TOKENS]
    return tuple(dict.fromkeys([*conditions, *black]))


def _named(name: str) -> Sequence[Condition]:
    grids = {"clean": (CLEAN,), "standard": standard_grid(), "fills": pixel_fills()}
    if name in grids:
        return grids[name]
    corruption, _, severity = name.partition(":")
    _check_name(corruption, list(grids))
    return [Condition(corruption, _severity(corruption, severity))] if severity else _ladder(corruption)


def _ladder(corruption: str) -> list[Condition]:
    return [Condition(corruption, severity) for severity in (SHARES if drops_patches(corruption) else SEVERITIES)]


def drops_patches(corruption: str) -> bool:
    """Whether severity is a share of patches."""
    return corruption == TOKENS or corruption in FILLS


def mechanism(condition: Condition) -> str:
    """How the condition comes about, in words."""
    if condition == CLEAN:
        return "the image as it is"
    if condition.corruption == TOKENS:
        return "patch tokens taken out after the position embedding, class token kept"
    if condition.corruption in FILLS:
        return "pixels of patches filled before the model's own normalisation"
    return "image changed in [0, 1] at the network's resolution, before the model's own normalisation"


def _check_name(corruption: str, grids: list[str]) -> None:
    offered = [*grids, TOKENS, *FILLS, *lookup.names("chexmsn.corruptions")]
    if corruption not in offered:
        near = get_close_matches(corruption, offered, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"there is no condition called {corruption!r}{hint}: choose from {', '.join(offered)}")


def _severity(corruption: str, text: str) -> float:
    try:
        severity = float(text)
    except ValueError:
        severity = float("nan")
    if drops_patches(corruption) and not 0 < severity < 1:
        raise UserError(f"the severity of {corruption} is a share in (0, 1), not {text!r}: take {corruption}:0.7")
    if not drops_patches(corruption) and not 0 < severity <= 5:
        raise UserError(f"the severity of {corruption} lies in (0, 5], not {text!r}: take for example {corruption}:3")
    return severity
