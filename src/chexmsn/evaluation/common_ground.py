"""What the areas of a comparison are over: the conditions that apply to all the models that are compared.

A mean over missing regions that holds removed tokens for a transformer and only painted pixels for a CNN would compare
two different tests.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from chexmsn.evaluation.areas import families
from chexmsn.evaluation.conditions import Condition, drops_patches
from chexmsn.evaluation.repetitions import Model


class Ground(NamedTuple):
    """What one group of models shares.

    Attributes:
        conditions: of each corruption, those that apply to every model that it applies to at all.
        families: of each family, the corruptions that apply to all models.
        notes: what is left out and what is not the same for all, in sentences.
    """

    conditions: Mapping[str, tuple[Condition, ...]]
    families: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def ground_of(models: Sequence[Model], ladders: Mapping[str, Sequence[Condition]]) -> Ground:
    """The common ground of models, on ladders of the conditions of each corruption."""
    testing = {name: [m for m in models if any(map(m.applies, ladder))] for name, ladder in ladders.items()}
    conditions = {
        name: tuple(c for c in ladder if testing[name] and all(model.applies(c) for model in testing[name]))
        for name, ladder in ladders.items()
    }
    everywhere = [name for name in ladders if conditions[name] and len(testing[name]) == len(models)]
    kept = {family: tuple(name for name in names if name in everywhere) for family, names in families(ladders).items()}
    unlike = _unlike(models) if any(map(drops_patches, ladders)) else ()
    notes = (*_short(conditions, ladders, testing), *_partial(kept, ladders, testing, models), *unlike)
    return Ground(conditions, kept, notes)


def _short(
    conditions: Mapping[str, Sequence[Condition]],
    ladders: Mapping[str, Sequence[Condition]],
    testing: Mapping[str, Sequence[Model]],
) -> Iterator[str]:
    """Of corruptions whose area is not over all severities."""
    for name, ladder in ladders.items():
        gone = [c for c in ladder if c not in conditions[name]]
        if testing[name] and gone:
            who = [model.name for model in testing[name] if not all(map(model.applies, gone))]
            severities = ", ".join(f"{c.severity:g}" for c in gone)
            yield f"The area under {name} is without severity {severities}, which does not apply to {', '.join(who)}."


def _partial(
    kept: Mapping[str, Sequence[str]],
    ladders: Mapping[str, Sequence[Condition]],
    testing: Mapping[str, Sequence[Model]],
    models: Sequence[Model],
) -> Iterator[str]:
    """Of families whose area is not over all their corruptions."""
    for family, names in families(ladders).items():
        gone = [name for name in names if name not in kept[family]]
        if gone:
            who = [model.name for model in models if any(model not in testing[name] for name in gone)]
            over = f"is over {', '.join(kept[family])} alone" if kept[family] else "does not exist"
            yield f"The area over {family} {over}: {', '.join(gone)} does not apply to {', '.join(who)}."


def _unlike(models: Sequence[Model]) -> Iterator[str]:
    """Of models whose images are cut into other patches, so that other regions of one image go missing."""
    grids = {model.name: grid for model in models if (grid := _grid(model))}
    if len(set(grids.values())) > 1:
        told = "; ".join(f"{name} cuts an image into {grid}" for name, grid in grids.items())
        yield f"The regions that go missing are not the same for all, so patch sizes are compared, too: {told}."


def _grid(model: Model) -> str:
    """The patches of an image, as its runs tell; empty for runs that came as scores, which do not."""
    told = [run.record["model"] for of_set in model.runs for run in of_set]
    sides = dict.fromkeys(about["size"] // about["patch"] for about in told if {"size", "patch"} <= about.keys())
    return " or ".join(f"{side} x {side}" for side in sides)
