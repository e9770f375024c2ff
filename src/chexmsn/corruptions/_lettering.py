"""Words in a 5 x 7 dot-matrix alphabet, drawn without a font."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

HEIGHT = 7
"""Dots of a letter from top to bottom."""

_LETTERS = {  # seven rows of five dots, a number each, leftmost dot first
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "7": (31, 1, 2, 4, 8, 8, 8),
    ":": (0, 4, 4, 0, 4, 4, 0),
    " ": (0, 0, 0, 0, 0, 0, 0),
}


@cache
def word_pictures(words: tuple[str, ...], device: torch.device) -> Float[Tensor, "n 1 7 w"]:
    """Each word as dots, 1 where there is ink; all as wide as the longest, short ones begin at the left.

    >>> word_pictures(("L", "R"), torch.device("cpu"))[0, 0, -1].tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    """
    longest = max(map(len, words))
    return torch.tensor([_dots(word.ljust(longest)) for word in words], device=device)[:, None]


def _dots(word: str) -> list[list[float]]:
    return [[float(dot) for letter in word for dot in f"{_LETTERS[letter][row]:05b}0"] for row in range(HEIGHT)]
