"""A classifier from anywhere, as the stress test sees it: gray images in [0, 1] go in, probabilities come out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from chexmsn.core.errors import UserError
from chexmsn.core.limits import check_limits
from chexmsn.core.shapes import Images, Kept

Answers = Literal["probabilities", "logits", "softmax"]
Values = tuple[float, ...]

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a network is fed.

    Attributes:
        size: side of its images in pixels; they are square.
        shown: share of an image's short side that it sees, around the centre.
        channels: 1 or 3, which are equal: radiographs are gray.
        value_range: the numbers that black and white are, before mean and std.
        mean: taken off, one number or one per channel.
        std: what the difference is divided by, one number or one per channel.

    >>> Input(size=2, value_range=(-1024.0, 1024.0)).feed(torch.tensor([[[[0.0, 0.5], [0.75, 1.0]]]]))[0, 2]
    tensor([[-1024.,     0.],
            [  512.,  1024.]])
    """

    size: int
    shown: float = 1.0
    channels: int = 3
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: Values = (0.0,)
    std: Values = (1.0,)

    def __post_init__(self) -> None:
        check_limits(self, size="[1, inf)", shown="(0, 1]", std="(0, inf)")
        if self.channels not in (1, 3):
            raise UserError(f"a model of radiographs takes 1 or 3 channels, not {self.channels}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise UserError(f"{name} is one number or one per channel ({self.channels}), not {getattr(self, name)}")
        if self.value_range[0] == self.value_range[1]:
            raise UserError(f"black and white must be two different numbers, not {self.value_range}: give value_range")

    def feed(self, images: Images) -> Float[Tensor, "B channels H W"]:
        """The tensor that the network takes, of images of its size in [0, 1]."""
        black, white = self.value_range
        mean, std = (_on_device(numbers, images).view(-1, 1, 1) for numbers in (self.mean, self.std))
        return ((black + (white - black) * images - mean) / std).expand(-1, self.channels, -1, -1)

    def __str__(self) -> str:
        black, white = self.value_range
        told = f"black {black:g}, white {white:g}"
        return told if self.mean == (0.0,) and self.std == (1.0,) else f"{told}, mean {self.mean}, std {self.std}"


def _on_device(numbers: Values, like: Images) -> Float[Tensor, "n"]:
    """Filled in there: numbers that are sent would have to be waited for."""
    return torch.cat([like.new_full((1,), number) for number in numbers])


@dataclass(frozen=True, kw_only=True)
class Model:
    """A classifier, on the device to compute on and in evaluation mode.

    Attributes:
        name: what it is called where nobody says otherwise.
        adapter: where it comes from.
        network: its architecture.
        kind: transformer, cnn, or callable, where nothing is known of it.
        findings: names of its outputs in their order, as it calls them; "" is an output that means nothing.
        input: what it is fed.
        answers: what it gives: probabilities, logits of findings that do not exclude each other, or logits of
            classes that do (softmax).
        patch: side in pixels of the squares that pixel fills replace; those of its tokens, where it has some.
        fingerprint: tells two models apart by what they compute.
        call: from what `input` feeds to B x C answers; takes the kept patches besides, if tokens can be removed.
        supports_token_removal: whether it does.
        thresholds: from which probability on a finding counts as present; a finding may have none.
        provenance: what is known of its making.
        curves: files with the curves of its training, by name.
        device: what it computes on.
    """

    name: str
    adapter: str
    network: str
    kind: Literal["transformer", "cnn", "callable"]
    findings: tuple[str, ...]
    input: Input
    answers: Answers
    patch: int
    fingerprint: str
    call: Callable[..., Any]
    supports_token_removal: bool = False
    thresholds: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Path] = field(default_factory=dict)
    device: torch.device = CPU

    def __post_init__(self) -> None:
        named = [finding for finding in self.findings if finding]
        if not named or len(set(named)) < len(named):
            raise UserError(f"a model needs outputs with different names, not {list(self.findings)}: give findings")
        if self.input.size % self.patch:
            fits = min((n for n in range(1, self.input.size + 1) if self.input.size % n == 0), key=self._distance)
            raise UserError(
                f"squares of {self.patch} px, which pixel fills replace, do not fill images of {self.input.size} px: "
                f"choose --options.patch {fits}"
            )

    def _distance(self, divisor: int) -> int:
        return abs(divisor - self.patch)

    @property
    def patches(self) -> int:
        """How many squares an image has."""
        return (self.input.size // self.patch) ** 2

    @property
    def about(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "adapter": self.adapter,
            "fingerprint": self.fingerprint,
            "kind": self.kind,
            "encoder": self.network,
            "size": self.input.size,
            "patch": self.patch,
            "input": asdict(self.input),
            "answers": self.answers,
            "outputs": self.findings,
        }

    def to(self, device: torch.device) -> "Model":
        """The same model, on a device."""
        if isinstance(self.call, nn.Module):
            self.call.to(device)
        return replace(self, device=device)

    def fed(self, **changes: Any) -> "Model":
        """The same network, fed with something else."""
        return replace(self, input=replace(self.input, **changes))

    def scores(self, images: Images, kept: Kept | None = None) -> Float[Tensor, "B C"]:
        """The probability of each output for images of its size in [0, 1], of the `kept` patches alone if given.

        Raises UserError where its answers are not what it promises.
        """
        return probabilities_of(self.raw(images, kept), self.answers)

    @torch.inference_mode()
    def raw(self, images: Images, kept: Kept | None = None) -> Float[Tensor, "B C"]:
        """What the network itself answers. Raises UserError for another number of outputs than names."""
        fed = self.input.feed(images)
        answers = self.call(fed) if kept is None else self.call(fed, kept)
        if not isinstance(answers, Tensor):
            raise UserError(
                f"{self.name} answers with a {type(answers).__name__}: it must be a tensor, images x outputs"
            )
        return _checked(answers, len(images), self).float()


def probabilities_of(answers: Float[Tensor, "B C"], kind: Answers) -> Float[Tensor, "B C"]:
    """Answers of a kind as probabilities.

    >>> probabilities_of(torch.zeros(1, 4), "logits"), probabilities_of(torch.zeros(1, 4), "softmax")
    (tensor([[0.5000, 0.5000, 0.5000, 0.5000]]), tensor([[0.2500, 0.2500, 0.2500, 0.2500]]))
    """
    if kind == "probabilities":
        return answers
    return answers.sigmoid() if kind == "logits" else answers.softmax(dim=1)


def _checked(answers: Shaped[Tensor, "..."], images: int, model: Model) -> Shaped[Tensor, "..."]:
    if answers.shape != (images, len(model.findings)):
        raise UserError(
            f"{model.name} answers {images} images with numbers of shape {tuple(answers.shape)}, and has "
            f"{len(model.findings)} names ({', '.join(model.findings)}): one column per name is needed, see findings"
        )
    return answers


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a model from elsewhere does not say of itself, or says wrongly; what is empty it says itself.

    Attributes:
        findings: names of its outputs in their order; "" for one that means nothing.
        size: side of its images in pixels.
        shown: share of an image's short side that it sees, around the centre; 1 is all.
        channels: 1 or 3.
        value_range: the numbers that black and white are, before mean and std: (0, 1), (0, 255), (-1024, 1024) ...
        mean: taken off the pixels, one number or one per channel.
        std: what the difference is divided by, one number or one per channel.
        answers: what it gives: probabilities, logits (sigmoid) or softmax (logits of classes that exclude each other).
        patch: side in pixels of the squares that pixel fills replace; 16 when empty.
        corruptions_seen: corruptions that it was trained on.
    """

    findings: tuple[str, ...] | None = None
    size: int | None = None
    shown: float | None = None
    channels: int | None = None
    value_range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    answers: Answers | None = None
    patch: int | None = None
    corruptions_seen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_limits(self, size="[1, inf)", shown="(0, 1]", std="(0, inf)", patch="[1, inf)")


_CHOICES = {"answers": ", logits for findings that do not exclude each other, softmax for classes that do"}


def settled(options: Options, said: Mapping[str, Any], location: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The arguments of a `Model` that options and its own files decide; `Input` is made of them.

    Raises UserError for something needed that neither says; findings, size and answers always are.
    """
    given = {f.name: getattr(options, f.name) for f in fields(Options) if getattr(options, f.name) is not None}
    values = {name: value for name, value in said.items() if value is not None} | given
    for name in ("findings", "size", "answers", *needed):
        if name not in values:
            raise UserError(f"{location} does not say its {name}: give --options.{name}{_CHOICES.get(name, '')}")
    feed = Input(**{f.name: values[f.name] for f in fields(Input) if f.name in values})
    return {
        "findings": tuple(values["findings"]),
        "input": feed,
        "answers": values["answers"],
        "patch": values.get("patch", 16),
        "provenance": {"corruptions_seen": [{"corruption": name} for name in options.corruptions_seen]},
    }
