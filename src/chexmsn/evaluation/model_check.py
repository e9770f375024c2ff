"""Is this model fed and read as it should be? Answers to a few clean images tell, before thousands are scored.

What cannot be right is refused. What may be right and rarely is becomes a doubt: a sentence that is told and recorded.
Nothing is chosen here, since the labels are those of the test images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64, Int16

from chexmsn.core.errors import UserError
from chexmsn.core.shapes import Pixels
from chexmsn.data.collection import Collection
from chexmsn.evaluation.adapters._model import Answers, Input, Model
from chexmsn.evaluation.cohort import findings_of, labels_of
from chexmsn.evaluation.scoring import clean_scores, view
from chexmsn.metrics.bootstrap import FEWEST_PATIENTS, Interval, patient_counts, percentile_interval, resampled_auroc
from chexmsn.metrics.ranking import auroc, both_classes, macro

CHECKED = 256  # images: enough to see a macro AUROC within some 0.05, and less than a hundredth of MIMIC-CXR's grid
RESAMPLES = 400
CLEARLY = 0.03  # of macro AUROC: less is no reason to doubt what somebody says of their model
UNSURE = 0.99  # level of intervals here: several ways of feeding are tried, and none may win by chance
DEFINED = 0.5  # share of resamples that may lack a class of some finding, as for every macro interval
ROUNDED = 5e-5  # within this of 0 or 1 a probability reads .0000 or 1.0000
SATURATED = 0.95  # share of such answers to one finding from which on they look cut off
DISTINCT = 10  # values that the answers to 40 images and more should have; a quarter of the images below that
SAME = 1e-3  # by which probabilities of one image may differ from batch to batch; half precision differs by that

# What black and white are fed as, where it is not what a model's owner says, and mean and std of ImageNet's pixels.
FEEDS = {
    "0 to 1": {"value_range": (0.0, 1.0), "mean": (0.0,), "std": (1.0,)},
    "0 to 255": {"value_range": (0.0, 255.0), "mean": (0.0,), "std": (1.0,)},
    "-1 to 1": {"value_range": (-1.0, 1.0), "mean": (0.0,), "std": (1.0,)},
    "-1024 to 1024": {"value_range": (-1024.0, 1024.0), "mean": (0.0,), "std": (1.0,)},
    "0 to 1 with mean 0.45 and std 0.226, ImageNet's": {"value_range": (0.0, 1.0), "mean": (0.45,), "std": (0.226,)},
}


@dataclass(frozen=True)
class Sample:
    """Some clean images, spread over the test set, with their labels.

    Attributes:
        pixels: as they lie in the pack.
        labels: rows of the table of labels.
        outputs: which of the model's outputs the labels are of.
        batch_size: images at once.
    """

    pixels: Pixels
    labels: pd.DataFrame
    outputs: tuple[int, ...]
    batch_size: int

    @classmethod
    def of(cls, images: Collection, labels: pd.DataFrame, outputs: tuple[int, ...], batch_size: int) -> "Sample":
        """At most CHECKED images of a test set."""
        rows = np.unique(np.linspace(0, len(images) - 1, min(CHECKED, len(images))).round().astype(np.int64))
        return cls(torch.from_numpy(images.pixels(rows)), labels.iloc[rows], outputs, batch_size)

    def scores(self, model: Model) -> Float32[np.ndarray, "N C"]:
        """The probabilities of the labelled findings."""
        batches = self.pixels.split(self.batch_size)
        found = [clean_scores(model, batch) for batch in batches]
        return np.concatenate(found)[:, list(self.outputs)]


class Macro(NamedTuple):
    """A macro AUROC and its resamples."""

    value: float
    samples: Float64[np.ndarray, "R"]


def macro_auroc(scores: Float32[np.ndarray, "N C"], labels: pd.DataFrame) -> Macro | None:
    """The macro AUROC over the findings that are there and not there; None without any.

    Its resamples of the patients are the same for all scores.
    """
    known = labels_of(labels)
    judged = both_classes(known)
    if not judged.any():
        return None
    counts = patient_counts(labels["patient_id"].to_numpy(), RESAMPLES, seed=0)
    value = macro(auroc(scores, known), judged)
    return Macro(float(value), macro(resampled_auroc(scores, known, counts), judged))


def doubts(model: Model, sample: Sample) -> list[str]:
    """What a model's answers leave in doubt.

    Raises:
        UserError: the model does not take its input, or its answers are no probabilities, do not tell images apart, or
            depend on chance or on the other images of a batch.
    """
    check_taken(model, sample.pixels[:1])
    scores = sample.scores(model)
    check_probabilities(scores, model.name)
    remedy = "see value_range, mean and std, and whether its weights are loaded"
    check_varied(scores, model.name, f", fed with {model.input}: {remedy}")
    _check_repeated(scores, model, sample)
    return [*_already_probabilities(model, sample), *ranking_doubts(scores, sample.labels)]


def ranking_doubts(scores: Float32[np.ndarray, "N C"], labels: pd.DataFrame) -> list[str]:
    """What scores of clean images leave in doubt, whatever made them."""
    return [
        *_constant(scores, labels),
        *_coarse(scores, labels),
        *(_worse_than_chance(scores, labels) or _findings_worse_than_chance(scores, labels)),
        *_exchanged(scores, labels),
    ]


def few_patients(labels: pd.DataFrame) -> list[str]:
    """Whether a whole test set is of too few patients for intervals."""
    patients = labels["patient_id"].nunique()
    if patients >= FEWEST_PATIENTS:
        return []
    people = "1 patient" if patients == 1 else f"{patients} patients"
    return [
        f"the test images are of {people}, and intervals need at least {FEWEST_PATIENTS}: values stand without, and no "
        "drop is sure"
    ]


def input_doubts(model: Model, sample: Sample) -> list[str]:
    """Whether another value range than the stated one would clearly tell more: one sentence, of the best, or none."""
    stated = macro_auroc(sample.scores(model), sample.labels)
    if stated is None:
        return []
    better: dict[str, float] = {}
    for name, changes in _other_feeds(model.input).items():
        other = _answers_if_any(model.fed(**changes), sample)
        if other is not None and _clearly_above(tried := macro_auroc(other, sample.labels), stated):
            better[name] = tried.value
    if not better:
        return []
    name = max(better, key=better.__getitem__)
    return [
        f"fed with pixels of {name}, the model tells more of {len(sample.labels)} clean images: macro AUROC "
        f"{better[name]:.2f} against {stated.value:.2f} as stated ({model.input}). See value_range, mean and std"
    ]


def check_taken(model: Model, pixels: Pixels) -> None:
    """Raise UserError for a model that cannot compute on images of a pack."""
    feed = model.input
    try:
        model.scores(view(pixels, model))
    except UserError:
        raise
    except Exception as error:  # the code of somebody's network may raise anything; it stays the cause
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise UserError(
            f"{model.name} does not take an image of {feed.channels} x {feed.size} x {feed.size} ({reason}): "
            "see the options size and channels"
        ) from error


def check_probabilities(scores: Float32[np.ndarray, "N C"], name: str) -> None:
    """Raise UserError for scores outside [0, 1]."""
    low, high = float(scores.min()), float(scores.max())
    if low < 0 or high > 1:
        percent = ", or divide by 100 what is per cent" if low >= 0 and high <= 100 else ""
        raise UserError(
            f"{name} gives {low:.3g} to {high:.3g}, which are no probabilities: if these are logits, set the option "
            f"answers to logits (findings) or softmax (classes that exclude each other){percent}"
        )


def check_varied(scores: Float32[np.ndarray, "N C"], name: str, remedy: str) -> None:
    """Raise UserError where no score tells one image from another."""
    if len(scores) > 1 and (np.ptp(scores, axis=0) == 0).all():
        raise UserError(f"{name} answers {len(scores)} different images alike ({_some(scores[0])}){remedy}")


def _check_repeated(scores: Float32[np.ndarray, "N C"], model: Model, sample: Sample) -> None:
    """The first images once more, each alone."""
    count = min(4, len(scores))
    alone = [clean_scores(model, image) for image in sample.pixels[:count].split(1)]
    differ = float(np.abs(np.concatenate(alone)[:, list(sample.outputs)] - scores[:count]).max())
    if differ > SAME:
        raise UserError(
            f"{model.name} answers one image differently, by {differ:.2g}, when it comes alone: it draws numbers or "
            "looks at the whole batch, put it in evaluation mode"
        )


def _constant(scores: Float32[np.ndarray, "N C"], labels: pd.DataFrame) -> list[str]:
    flat = [finding for finding, column in zip(findings_of(labels), scores.T, strict=True) if np.ptp(column) == 0]
    if not flat or len(scores) == 1:
        return []
    return [f"{len(scores)} clean images all have one score of {', '.join(flat)}: was the model trained for it?"]


def _already_probabilities(model: Model, sample: Sample) -> list[str]:
    if model.answers == "probabilities":
        return []
    batches = sample.pixels.split(sample.batch_size)
    return already_probabilities(
        np.concatenate([model.raw(view(b, model)).cpu().numpy() for b in batches]), model.answers
    )


def already_probabilities(answers: Float32[np.ndarray, "N C"], kind: Answers) -> list[str]:
    """Whether answers that are said to be something else look like probabilities."""
    if kind == "probabilities" or answers.min() < 0 or answers.max() > 1:
        return []
    return [
        f"the answers to {len(answers)} clean images lie in [0, 1] and are said to be {kind}: if they are "
        "probabilities already, set the option answers to probabilities"
    ]


def _worse_than_chance(scores: Float32[np.ndarray, "N C"], labels: pd.DataFrame) -> list[str]:
    found = macro_auroc(scores, labels)
    if found is None:
        return []
    interval = percentile_interval(found.samples, UNSURE, undefined_at_most=DEFINED)
    if not interval.high < 0.5:
        return []
    return [
        f"the model ranks {len(scores)} clean images worse than chance (macro AUROC {found.value:.2f}, "
        f"{interval.low:.2f} to {interval.high:.2f}): are black and white exchanged, its outputs in another order, "
        "or named for their opposite?"
    ]


def _coarse(scores: Float32[np.ndarray, "N C"], labels: pd.DataFrame) -> list[str]:
    """Answers cut off at 0 and 1, or of few values, as a sigmoid gives that is fed with another range."""
    varied = np.ptp(scores, axis=0) > 0
    cut = varied & (((scores < ROUNDED) | (scores > 1 - ROUNDED)).mean(axis=0) >= SATURATED)
    distinct = np.array([len(np.unique(column)) for column in scores.T])
    few = varied & ~cut & (distinct < min(DISTINCT, len(scores) / 4))
    names = np.array(findings_of(labels))
    remedy = "see value_range, mean and std, and whether answers are probabilities or logits"
    said = {
        f"nearly all of {len(scores)} clean images have a score of 0 or 1, to rounding, of": cut,
        f"{len(scores)} clean images have fewer than {min(DISTINCT, len(scores) / 4):g} different scores of": few,
    }
    return [f"{what} {', '.join(names[which])}: {remedy}" for what, which in said.items() if which.any()]


def _interval(samples: Float64[np.ndarray, "R *C"], comparisons: int) -> Interval:
    """An interval as unsure as UNSURE over all of these comparisons together."""
    return percentile_interval(samples, 1 - (1 - UNSURE) / comparisons)


def _counts(labels: pd.DataFrame) -> Int16[np.ndarray, "R N"]:
    return patient_counts(labels["patient_id"].to_numpy(), RESAMPLES, seed=0)


def _findings_worse_than_chance(scores: Float32[np.ndarray, "N C"], labels: pd.DataFrame) -> list[str]:
    if labels["patient_id"].nunique() < FEWEST_PATIENTS:
        return []
    known, names = labels_of(labels), findings_of(labels)
    ends = _interval(resampled_auroc(scores, known, _counts(labels)), len(names))
    told = zip(names, auroc(scores, known), *ends, strict=True)
    worse = [f"{name} (AUROC {value:.2f}, {low:.2f} to {high:.2f})" for name, value, low, high in told if high < 0.5]
    if not worse:
        return []
    verb = "is" if len(worse) == 1 else "are"
    return [
        f"{', '.join(worse)} {verb} told worse than by chance on {len(scores)} clean images: inverted, or the scores "
        "of another label?"
    ]


def _exchanged(scores: Float32[np.ndarray, "N C"], labels: pd.DataFrame) -> list[str]:
    """Scores that are not of their own finding and clearly of another.

    Findings occur together, so that the scores of one tell another as well. They are taken for exchanged only where
    they do not tell their own, and tell the other better than they tell their own and than the other's own scores do.
    """
    if labels["patient_id"].nunique() < FEWEST_PATIENTS:
        return []
    known, names, counts = labels_of(labels), findings_of(labels), _counts(labels)
    own = _interval(resampled_auroc(scores, known, counts), len(names) ** 2)
    found = []
    for a in np.flatnonzero(own.low <= 0.5):
        of_a = np.repeat(scores[:, [a]], len(names), axis=1)
        told = auroc(of_a, known)
        if np.isnan(told).all() or (b := int(np.nanargmax(told))) == a:
            continue
        low = _interval(resampled_auroc(of_a[:, [b]], known[:, [b]], counts), len(names) ** 2).low[0]
        if low > max(own.high[a], own.high[b]):
            found.append(f"those of {names[a]} tell {names[b]} (AUROC {told[b]:.2f}) and not {names[a]}")
    if not found:
        return []
    return [
        f"scores of {len(scores)} clean images seem to be of another finding: {'; '.join(found)}: see the names and "
        "the order of the findings"
    ]


def _other_feeds(stated: Input) -> dict[str, dict]:
    """The usual ways of feeding that are not the stated one, and the stated one with black and white exchanged."""
    exchanged = {"black and white exchanged": {"value_range": stated.value_range[::-1]}}
    return {name: feed for name, feed in (FEEDS | exchanged).items() if not _is(stated, feed)}


def _is(stated: Input, feed: dict) -> bool:
    return all(np.allclose(getattr(stated, name), feed[name], atol=0.04) for name in feed)


def _answers_if_any(model: Model, sample: Sample) -> Float32[np.ndarray, "N C"] | None:
    """None where a model fed otherwise answers with what are no numbers."""
    try:
        return sample.scores(model)
    except UserError:
        return None


def _clearly_above(tried: Macro, stated: Macro) -> bool:
    better = percentile_interval(tried.samples - stated.samples, UNSURE, undefined_at_most=DEFINED)
    return bool(tried.value - stated.value > CLEARLY and better.low > 0)


def _some(scores: Float32[np.ndarray, "C"]) -> str:
    return ", ".join(f"{score:.3g}" for score in scores[:3])
