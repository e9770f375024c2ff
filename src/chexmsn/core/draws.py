"""Keyed draws: every random decision is a function of (seed, stable key, stream, epoch or repeat).

The same image gets the same crop, mask or noise for any batch size, order, worker or device count,
which is why a killed run can resume exactly. Parameters come from a counter-based hash (the
splitmix64 finaliser, Steele et al. 2014, doi 10.1145/2660193.2660195) and are equal on every device.
Whole fields of noise come from the same hash on an accelerator, where a batch is one computation and no key is read
back, and from one torch generator per image on a CPU, where that is faster: devices agree in distribution only.

>>> draws = Draws.of(seed=0, keys=keys_of(["a", "b"]))
>>> masks = draws.stream("mask", 3)
>>> masks.uniform(2).shape
torch.Size([2, 2])
>>> bool((masks.uniform(2)[0] == Draws.of(0, keys_of(["a"])).stream("mask", 3).uniform(2)[0]).all())
True
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int16, Int64
from torch import Tensor

from chexmsn.core.shapes import Keys

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number: splitmix64's increment
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


@torch.compiler.assume_constant_result  # where a step is compiled, keys of names are part of its code
def key_of(*parts: str | int) -> int:
    """A signed 64-bit key of text and numbers, the same on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def keys_of(names: Iterable[str]) -> Keys:
    """One key per name, as an int64 tensor."""
    return torch.tensor([key_of(name) for name in names], dtype=torch.int64)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts int64 arithmetically


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch: one independent stream per image."""

    keys: Keys

    @classmethod
    def of(cls, seed: int, keys: Keys) -> "Draws":
        """The draws of these images under a seed."""
        return cls(keys).stream("seed", seed)

    def stream(self, name: str, *numbers: int) -> "Draws":
        """Independent draws for another purpose: `draws.stream("mask", epoch, view)`."""
        return Draws(_mix((self.keys ^ key_of(name, *numbers)) + _GOLDEN))

    def streams(self, name: str, count: int) -> Int64[Tensor, "B n"]:
        """The keys of `stream(name, 0)` to `stream(name, count - 1)` side by side, in a few kernels for all.

        >>> draws = Draws.of(0, keys_of(["a", "b"]))
        >>> bool((draws.streams("view", 3)[:, 2] == draws.stream("view", 2).keys).all())
        True
        """
        named = torch.stack([self.keys.new_full((), key_of(name, number)) for number in range(count)])
        return _mix((self.keys[:, None] ^ named) + _GOLDEN)

    def uniform(self, count: int) -> Float[Tensor, "B n"]:
        """`count` numbers in [0, 1) per image, float32, equal on every device."""
        return _shift_right(self._bits(count), 40).float() * 2.0**-24

    def _bits(self, count: int) -> Int64[Tensor, "B n"]:
        # as bits: a compiler would take multiples of a range for indices, which it does not let overflow
        counter = torch.arange(1, count + 1, device=self.keys.device) & 0x7FFFFFFF
        return _mix(self.keys[:, None] + counter * _GOLDEN)

    @property
    def _on_cpu(self) -> bool:
        return self.keys.device.type == "cpu"

    def permutation(self, count: int) -> Int64[Tensor, "B n"]:
        """A random order of 0 .. count-1 per image; its first k entries are a nested random subset."""
        return self.uniform(count).argsort(dim=1, stable=True)

    def generators(self) -> Iterator[torch.Generator]:
        """One torch generator per image on the device of the keys, for whole fields of noise."""
        for key in self.keys.tolist():
            yield torch.Generator(device=self.keys.device).manual_seed(key)

    def normal_field(self, shape: Sequence[int]) -> Float[Tensor, "B ..."]:
        """Standard normal numbers, B x shape, float32."""
        if not self._on_cpu:  # Box and Muller 1958, doi 10.1214/aoms/1177706645
            length, turn = self.uniform(2 * math.prod(shape)).chunk(2, dim=1)
            return (-2 * torch.log1p(-length)).sqrt_().mul_((2 * math.pi * turn).cos_()).view(-1, *shape)
        field = torch.empty((len(self.keys), *shape))
        for row, generator in zip(field, self.generators(), strict=True):
            row.normal_(generator=generator)
        return field

    def uniform_field(self, shape: Sequence[int]) -> Float[Tensor, "B ..."]:
        """Numbers in [0, 1), B x shape, float32."""
        if not self._on_cpu:
            return self.uniform(math.prod(shape)).view(-1, *shape)
        field = torch.empty((len(self.keys), *shape))
        for row, generator in zip(field, self.generators(), strict=True):
            row.uniform_(generator=generator)
        return field

    def bits_field(self, shape: Sequence[int]) -> Int16[Tensor, "B ..."]:
        """Whole numbers, all 65536 of them equally likely, B x shape: a third of the cost of fractions on a CPU."""
        count = math.prod(shape)
        if not self._on_cpu:
            return (self._bits(count) >> 48).to(torch.int16).view(-1, *shape)
        field = torch.empty((len(self.keys), -(-count // 4)), dtype=torch.int64)
        for row, generator in zip(field, self.generators(), strict=True):
            row.random_(torch.iinfo(torch.int64).min, None, generator=generator)
        return field.view(torch.int16)[:, :count].reshape(-1, *shape)

    def poisson_field(self, rate: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Poisson counts with the given expectation, shaped like `rate`, whose first axis is the batch."""
        rows = [torch.poisson(row, generator=g) for row, g in zip(rate, self.generators(), strict=True)]
        return torch.stack(rows)
