"""Any network or function of Python: `file.py:name` or `module:name`.

What is named is one of three: a function that returns a `torch.nn.Module` or a callable; such a module itself; or the
callable itself, from images (B x channels x size x size, on one device) to answers (B x outputs, a tensor or an array).
A function that lacks exactly one argument is the callable. What the object says of itself in attributes called as the
options (`findings`, `size`, ...) counts, where the options say nothing.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

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
    """What is named. It is code, and runs as such.

    Raises UserError where there is no such name, it lacks arguments, it cannot be called or its code raises anything.
    """
    place, name = _split(location)
    with _running(location):
        named = _named(place, name)
        network = _network(named, config.arguments, location)
        if not callable(network):
            raise UserError(f"{location} returns a {type(network).__name__}: a torch.nn.Module or a function is needed")
        # an attribute of the name `size` or `mean` may also be a method
        told = network.called if isinstance(network, Function) else network
        said = {f.name: value for f in fields(Options) if not callable(value := getattr(told, f.name, None))}
        is_network = isinstance(network, nn.Module)
        return Model(
            name=name,
            adapter="python",
            network=type(network).__name__ if is_network else name,
            kind="callable",
            fingerprint=fingerprint(network) if is_network else _source(named),
            call=network.eval() if is_network else network,
            **settled(config, {"answers": "probabilities"} | _given(said), location),
        )


@dataclass(frozen=True)
class Function:
    """Scores images by somebody's function; an array of NumPy is as good as a tensor.

    Attributes:
        called: the function.
        arguments: what it takes besides images.
        location: what was named, for messages.
    """

    called: Callable[..., Any]
    arguments: Mapping[str, Any]
    location: Path

    def __call__(self, images: Float[Tensor, "B C H W"]) -> Any:
        """Its answers. Raises UserError for whatever its code raises."""
        with _running(self.location):
            answers = self.called(images, **self.arguments)
        if isinstance(answers, nn.Module):
            raise UserError(
                f"{self.location} returns a {type(answers).__name__} when it is given images: if it builds a network, "
                "give what it needs with --options.arguments"
            )
        return torch.from_numpy(answers).to(images.device) if isinstance(answers, np.ndarray) else answers


def _network(named: Any, arguments: Mapping[str, Any], location: Path) -> Any:
    """The network or callable that is named, or that what is named returns."""
    if isinstance(named, nn.Module):
        return named
    lacking = _lacking(named, arguments, location)
    if len(lacking) == 1 and not inspect.isclass(named):
        return Function(named, arguments, location)
    if lacking:
        raise UserError(f"{location} needs {', '.join(lacking)}: give them with --options.arguments")
    made = named(**arguments)
    return made if isinstance(made, nn.Module) or not callable(made) else Function(made, {}, location)


def _lacking(named: Callable[..., Any], arguments: Mapping[str, Any], location: Path) -> list[str]:
    """The arguments that it needs and does not get. Raises UserError for one that it does not take."""
    try:
        taken = inspect.signature(named)
    except ValueError:  # some functions written in C do not tell
        return []
    try:
        given = taken.bind_partial(**arguments).arguments
    except TypeError as error:
        raise UserError(f"{location}: {error}; it takes {taken}, see --options.arguments") from None
    return [
        name
        for name, parameter in taken.parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in given
    ]


def _given(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


def _split(location: Path) -> tuple[str, str]:
    place, colon, name = str(location).rpartition(":")
    if not colon or not place or not name:
        raise UserError(f"a model of Python is file.py:function or module:function, not {location}")
    return place, name


@contextmanager
def _running(location: Path) -> Iterator[None]:
    """Somebody's code: it may import the neighbours of its file, and what it raises is told in one line."""
    place = _split(location)[0]
    folder = str(Path(place).resolve().parent) if place.endswith(".py") else None
    if folder:
        sys.path.insert(0, folder)
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # it may raise anything or leave; the traceback stays with what is raised
        raise UserError(f"{location} fails at {_where(error)}: {type(error).__name__}: {_one_line(error)}") from error
    finally:
        if folder:
            sys.path.remove(folder)


def _where(error: BaseException) -> str:
    """File and line of what raised: of the last that is in no installed library, where there is one."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__ and f.filename[0] != "<"]
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    last = (own or frames or traceback.extract_tb(error.__traceback__))[-1]
    return f"{last.filename}, line {last.lineno}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"


def _named(place: str, name: str) -> Callable[..., Any]:
    module = _file(Path(place)) if place.endswith(".py") else _module(place)
    named = getattr(module, name, None)
    if not callable(named):
        offered = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise UserError(f"{place} has no function {name}: it has {', '.join(offered) or 'none'}")
    return named


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


def _source(named: Any) -> str:
    """Of a function that computes without weights that can be seen: its file."""
    written = named if inspect.isroutine(named) or inspect.isclass(named) else type(named)
    return hashlib.sha256(Path(inspect.getfile(written)).read_bytes()).hexdigest()
