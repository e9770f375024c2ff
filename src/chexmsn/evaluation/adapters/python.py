"""Any network or function of Python: `file.py:function` or `module:function`, a function that returns it.

It returns a `torch.nn.Module` or a callable from images (B x channels x size x size) to answers (B x outputs), tensors
on one device. What the returned object says of itself in attributes called as the options (`findings`, `size`, ...)
counts, where the options say nothing.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from chexmsn.core.errors import UserError
from chexmsn.evaluation.adapters._model import Model, Options, settled
from chexmsn.models.artefact import fingerprint

TITLE = "Python"


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """What the returned object does not say of itself.

    Attributes:
        arguments: what the function is called with, by name.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)


def open(location: Path, config: Config) -> Model:
    """Call the function. It is code, and runs as such; whatever it raises comes through as it is.

    Raises UserError where there is no such function, or what it returns cannot be called.
    """
    place, name = _split(location)
    with _neighbours(Path(place)) if place.endswith(".py") else nullcontext():
        function = _function(place, name)
        network = function(**config.arguments)
    if not callable(network):
        raise UserError(f"{location} returns a {type(network).__name__}: a torch.nn.Module or a function is needed")
    if isinstance(network, nn.Module):
        network.eval()
    # an attribute of the name `size` or `mean` may also be a method
    said = {f.name: value for f in fields(Options) if not callable(value := getattr(network, f.name, None))}
    return Model(
        name=function.__name__,
        adapter="python",
        network=type(network).__name__ if isinstance(network, nn.Module) else function.__name__,
        kind="callable",
        fingerprint=fingerprint(network) if isinstance(network, nn.Module) else _source(function),
        call=network,
        **settled(config, {"answers": "probabilities"} | _given(said), location),
    )


def _given(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


def _split(location: Path) -> tuple[str, str]:
    place, colon, name = str(location).rpartition(":")
    if not colon or not place or not name:
        raise UserError(f"a model of Python is file.py:function or module:function, not {location}")
    return place, name


@contextmanager
def _neighbours(path: Path) -> Iterator[None]:
    """While a file is run and its function called, they may import its neighbours."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _function(place: str, name: str) -> Callable[..., Any]:
    module = _file(Path(place)) if place.endswith(".py") else _module(place)
    function = getattr(module, name, None)
    if not callable(function):
        offered = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise UserError(f"{place} has no function {name}: it has {', '.join(offered) or 'none'}")
    return function


def _file(path: Path) -> ModuleType:
    """The module in a file, under a name that no other module has: dataclasses and pickle look it up by that."""
    if not path.is_file():
        raise UserError(f"there is no file {path}: name the one that holds the function")
    described = importlib.util.spec_from_file_location(str(path.resolve()), path)
    module = importlib.util.module_from_spec(described)
    sys.modules[module.__name__] = module
    try:
        described.loader.exec_module(module)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise UserError(f"there is no module {name}: install it, or name the file, as ./{name}.py:function") from None


def _source(function: Callable[..., Any]) -> str:
    """Of a function that computes without weights that can be seen: its file."""
    return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()
