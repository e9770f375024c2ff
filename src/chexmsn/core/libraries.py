"""Libraries that only some commands and adapters need: extras of the package."""

import importlib
import warnings
from types import ModuleType

from chexmsn.core.errors import UserError


def library(name: str, extra: str = "") -> ModuleType:
    """The library of an extra, or of the package itself. Raises UserError with the command that installs it."""
    try:
        # some of them switch the warnings of the whole process off when they are imported
        with warnings.catch_warnings():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise missing(name, extra) from None


def missing(name: str, extra: str = "") -> UserError:
    """What is said of a library that is not there."""
    command = f"pip install 'chexmsn[{extra}]'" if extra else "pip install chexmsn (in a checkout: pip install -e .)"
    return UserError(f"this needs the library {name}, which is missing: {command}")
