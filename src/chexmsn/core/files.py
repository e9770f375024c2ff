"""Files that are there whole or not at all."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)` beside `path`, then move the result to `path` in one step; a link stays one."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, in one step."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A place beside `folder` to be filled, which takes its name in one step when it is whole, else disappears.

    Raises UserError where there is something already, or another process is filling it.

    >>> from tempfile import mkdtemp
    >>> out = Path(mkdtemp()) / "out"
    >>> with new_folder(out) as place:
    ...     _ = (place / "a.txt").write_text("whole")
    >>> [file.name for file in out.iterdir()]
    ['a.txt']
    """
    refuse_filled(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")  # always the same, so that a killed run leaves one at most
    try:
        partial.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; name another place") from None
    with alone(partial, f"another process is making {folder}: wait for it, or name another place"):
        _empty(partial)
        try:
            yield partial
            refuse_filled(folder)  # another process may have been faster
            partial.rename(folder)
        except BaseException:  # and only then: once it has moved, what has this name is another process's
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _empty(folder: Path) -> None:
    """Take away what a killed run left."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def alone(folder: Path, refusal: str) -> Iterator[None]:
    """Hold a folder for this process; the end of the process, however it comes, lets it go.

    Raises UserError, with these words, where another process holds it.
    """
    itself = os.open(folder, os.O_RDONLY)
    try:
        _lock(itself, folder, refusal)
        yield
    finally:
        os.close(itself)


def _lock(itself: int, folder: Path, refusal: str) -> None:
    try:
        fcntl.flock(itself, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(itself), folder.stat())  # who held it may have moved or removed it
    except (BlockingIOError, FileNotFoundError):
        is_there = False
    if not is_there:
        raise UserError(refusal)


def refuse_filled(folder: Path) -> None:
    """Raise UserError where a new folder is meant to come and there is something already."""
    if folder.exists() and not is_empty(folder):
        raise UserError(f"{folder} is there already and not empty: name a new folder")


def is_empty(folder: Path) -> bool:
    """Whether there is a folder with nothing in it: as good a place for a new one as none."""
    return folder.is_dir() and next(folder.iterdir(), None) is None


def read_json(path: Path) -> Any:
    """Read JSON. Raises UserError for a missing or broken file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}: is this the right folder?") from None
    except (ValueError, RecursionError) as error:  # no JSON, no text, a number of 5,000 digits, a list in a list in ...
        raise UserError(f"{path} is not valid JSON ({error}): restore it or make the folder anew") from None
