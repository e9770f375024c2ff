"""Libraries that only some commands and adapters need: extras of the package."""

import importlib
import warnings
from types import ModuleType

from chexmsn.core.errors import UserError


def library(name: str, extra: str) -> ModuleType:
    """The library. Raises UserError with the command that installs it where it is missing."""
    try:
        # some of them switch the warnings of the whole process off when they are imported
        with warnings.catch_warnings():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"this needs the library {name}, which is missing: pip install 'chexmsn[{extra}]'") from None
