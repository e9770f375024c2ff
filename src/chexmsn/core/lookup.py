"""Found by file name: a method, source or corruption is one file, and the file's name is its registration."""

import functools
import importlib
import pkgutil
from collections.abc import Sequence
from difflib import get_close_matches
from types import ModuleType

from chexmsn.core.errors import UserError


@functools.cache
def names(package: str) -> list[str]:
    """The names offered by a package: its modules without a leading underscore, written with dashes."""
    path = importlib.import_module(package).__path__
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def unknown(what: str, name: str, offered: Sequence[str]) -> UserError:
    """The error of a name that is not offered, with the one that was probably meant.

    >>> str(unknown("probe", "KNN", ["knn", "logistic"]))
    "there is no probe called 'KNN' (did you mean knn?): choose one of knn, logistic"
    """
    near = get_close_matches(name.casefold().replace("_", "-"), offered, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return UserError(f"there is no {what} called {name!r}{hint}: choose one of {', '.join(offered)}")


def load(package: str, name: str) -> ModuleType:
    """The module behind a name (dashes and underscores are the same).

    Raises UserError with the names there are, when there is no such file.
    """
    offered = names(package)
    wanted = name.replace("_", "-")
    if wanted not in offered:
        raise unknown(package.rpartition(".")[2].rstrip("s"), name, offered)
    return importlib.import_module(f"{package}.{wanted.replace('-', '_')}")
