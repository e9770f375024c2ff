"""The findings that a model tells and those that are labelled: the same ones, whatever each calls them."""

import logging
from collections.abc import Sequence
from difflib import get_close_matches

from chexmsn.core.errors import UserError
from chexmsn.data.labels import canonical

log = logging.getLogger(__name__)


def match(told: Sequence[str], labelled: Sequence[str], model: str, data: str) -> dict[str, int]:
    """The findings that both name, by their canonical names, with the places they have among those told.

    Names that look alike and are not the same are told of.

    Args:
        told: names of the model's outputs; "" is none.
        labelled: findings that there are labels of.
        model: what the model is called in messages.
        data: what the labels' place is called.

    Raises:
        UserError: they share none, or two outputs are one finding.

    >>> match(["Edema", "", "effusion"], ["Pleural Effusion", "Mass"], "the model", "the pack")
    {'Pleural Effusion': 2}
    """
    places = {place: canonical(name) for place, name in enumerate(told) if name}
    if twice := [name for name in places.values() if list(places.values()).count(name) > 1]:
        raise UserError(f"{model} has more than one output for {twice[0]}: give its names anew, with the others empty")
    known = {canonical(name) for name in labelled}
    shared = {name: place for place, name in places.items() if name in known}
    near = _near(sorted(set(places.values()) - known), sorted(known - set(places.values())))
    if not shared:
        raise UserError(
            f"the model and the data share no finding: {model} tells {', '.join(filter(None, told))}, "
            f"{data} has labels of {', '.join(labelled) or 'nothing'}{near and f' (is {near}?)'}; name the model's "
            "outputs as the labels are, or choose other data"
        )
    if near:
        log.warning("not taken for the same findings, though alike: %s", near)
    _tell_shared(list(shared), list(places.values()), [canonical(name) for name in labelled])
    return shared


def _tell_shared(shared: Sequence[str], told: Sequence[str], labelled: Sequence[str]) -> None:
    """Which findings are tested, where these are not all there are: a model on another collection's images."""
    of_model, of_data = ([name for name in names if name not in shared] for names in (told, labelled))
    if of_model or of_data:
        log.info(
            "tested on the %d findings that model and data share: %s; left out: of the model %s, of the data %s",
            len(shared),
            ", ".join(shared),
            ", ".join(of_model) or "none",
            ", ".join(of_data) or "none",
        )


def _near(told: Sequence[str], labelled: Sequence[str]) -> str:
    found = {name: alike for name in told for alike in get_close_matches(name, labelled, 1)}
    return ", ".join(f"{name} {alike}" for name, alike in found.items())
