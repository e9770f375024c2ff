"""A run folder: what a run was asked to do, what it was made with, how far it has come."""

import dataclasses
import datetime
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chexmsn.core.distributed import is_first
from chexmsn.core.errors import UserError
from chexmsn.core.files import alone, read_json, write_json
from chexmsn.core.record import differences

SCHEMA = 1
SHOWN = 4  # differences that an error names
_LIBRARIES = ("chexmsn", "torch", "torchvision", "timm", "lightning", "numpy", "pandas")


def versions() -> dict[str, str]:
    """The versions that results may depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def plain(value: Any) -> Any:
    """Configuration as JSON holds it: dataclasses become objects, paths text, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A folder with a `run.json`."""

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        return read_json(self.path / "run.json")

    @property
    def finished(self) -> bool:
        return self.record["status"] == "finished"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for this process; the end of the process, however it comes, lets it go.

        Raises UserError where another process holds it.
        """
        with alone(self.path, f"another process is at work in {self.path}: wait for it, or choose another --out"):
            yield

    def begin(self, device: Mapping[str, Any]) -> None:
        """Record that work starts, or goes on, and with what: the first start's device and versions may not be its."""
        start = {"time": _now(), "device": device, "versions": versions()}
        self.update(status="running", starts=[*self.record.get("starts", []), start])

    def update(self, **entries: Any) -> None:
        """Replace entries of `run.json`, in one step. Of several processes the first does it."""
        if is_first():
            write_json(self.path / "run.json", self.record | plain(entries))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def open_run(path: Path, kind: str, config: Mapping[str, Any], facts: Mapping[str, Any]) -> RunFolder:
    """The run folder at `path`: a new one, or the one of an earlier start of the same command.

    `config` and the fingerprints of data and starting weights are compared with what is recorded; the other `facts`
    are only recorded.

    Raises:
        UserError: the folder cannot be made, holds something else, or a run of another configuration (with the
            differences).
    """
    folder = RunFolder(path)
    asked = {"kind": kind, "config": plain(config)}
    check_place(path, kind)
    if (path / "run.json").is_file():
        recorded, now = _identity(folder.record), _identity(asked | plain(facts))
        if changes := differences(recorded, {name: now.get(name) for name in recorded}):
            shown = [change.removeprefix("config.") for change in changes]
            more = f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
            raise UserError(
                f"{path} holds a run of another configuration ({'; '.join(shown[:SHOWN])}{more}): "
                "choose another --out, or remove the folder"
            )
        return folder
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; choose another --out") from None
    write_record(path, kind, config, facts, status="new")
    return folder


def check_place(path: Path, kind: str) -> None:
    """Raise UserError where no run of this kind can be, as `open_run` does: before anything is loaded for it."""
    if (path / "run.json").is_file():
        record = read_json(path / "run.json")
        if not isinstance(record, dict) or not {"kind", "config", "status"} <= record.keys():
            raise UserError(f"{path / 'run.json'} does not describe a run: choose another --out, or remove the folder")
        if record["kind"] != kind:
            raise UserError(f"{path} holds a run of another kind ({record['kind']}, not {kind}): choose another --out")
        return  # a finished one may lie where nothing can be written
    if path.exists() and not _is_empty(path):
        raise UserError(f"{path} is there already and is no run folder (it has no run.json): choose another --out")
    above = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise UserError(
            f"cannot make the folder {path}: {above} is no folder that can be written; choose another --out"
        )


def write_record(path: Path, kind: str, config: Mapping[str, Any], facts: Mapping[str, Any], *, status: str) -> None:
    """Write the `run.json` of a new run: of one that begins, or of one whose results are there already."""
    about = {"schema": SCHEMA, "status": status, "started": _now(), "versions": versions()}
    write_json(path / "run.json", about | {"kind": kind, "config": plain(config)} | plain(facts))


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """What two starts of one run have in common, as far as it is recorded."""
    shared = {name: record.get(name) for name in ("kind", "config", "starting_weights")}
    shared["data.fingerprint"] = record.get("data", {}).get("fingerprint")
    return {name: value for name, value in shared.items() if value is not None}


def _is_empty(path: Path) -> bool:
    """Whether a folder holds nothing but what a kill leaves of a record that was being written."""
    return path.is_dir() and all(file.name.startswith(".run.json.") for file in path.iterdir())
