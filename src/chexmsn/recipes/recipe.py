"""A recipe: one YAML file that is a whole experiment.

vars:                      # values that `--set name=value` replaces; empty ones must be given
  data:
stages:
  - name: pretrain         # any name; `--stage pretrain` runs this stage alone
    command: pretrain      # a chexmsn command
    with:                  # its options; ${name} is a variable, ${out} the recipe's output folder
      data: [ "${data}" ]
      out: ${out}/msn
  - name: train-${arm}     # a stage for each entry of the variable `arms`; ${arm.options} is a field of the entry
    for: arm in arms
    command: train
    with: { method: "${arm.method}", options: "${arm.options}", ... }

A recipe with `base: other.yaml` has the stages of that one, beside it, and its variables where it gives none itself.
"""

import logging
import string
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chexmsn.core.errors import UserError
from chexmsn.recipes.arguments import check_command, parse, read_yaml, run_command
from chexmsn.training.processes import launcher

log = logging.getLogger(__name__)


class _Text(string.Template):
    """Text with variables, fields of entries among them: ${arm.method}."""

    braceidpattern = r"[A-Za-z_][\w.]*"


@dataclass(frozen=True)
class Stage:
    """One command of a recipe."""

    name: str
    command: str
    values: dict[str, Any]


def read_recipe(path: Path, out: Path, variables: Mapping[str, str]) -> list[Stage]:
    """The stages of a recipe with every variable filled in.

    Raises:
        UserError: no such file, not a recipe, an unknown variable or one without a value.
    """
    content = _content(path)
    known = content.get("vars") or {}
    if unknown := set(variables) - set(known):
        raise UserError(f"{path} has no variable {', '.join(sorted(unknown))}: it has {', '.join(known) or 'none'}")
    given = {name: _value(name, text) for name, text in variables.items()}
    filled = {name: value for name, value in (known | given).items() if value is not None}
    if missing := [name for name in known if name not in filled]:
        raise UserError(
            f"{path} needs a value for {', '.join(missing)}: add {' '.join(f'--set {m}=...' for m in missing)}"
        )
    scope = filled | {"out": str(out)}
    return [
        _stage(path, stage, scope | entry)
        for stage in content.get("stages") or []
        for entry in _entries(path, stage, filled)
    ]


def read_stages(path: Path) -> dict[str, Stage]:
    """The stages of a recipe by name, variables left as they are written."""
    stages = [_stage(path, stage, None) for stage in _content(path).get("stages") or []]
    return {stage.name: stage for stage in stages}


def _content(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if unknown := set(content) - {"base", "vars", "stages"}:
        named = ", ".join(sorted(map(str, unknown)))
        raise UserError(f"{path} is no recipe: a recipe has vars and stages, not {named}")
    if not isinstance(content.get("vars") or {}, dict) or not isinstance(content.get("stages") or [], list):
        raise UserError(f"{path} is no recipe: vars are values by name, and stages a list")
    if "base" not in content:
        return content
    if "stages" in content:
        raise UserError(f"{path} has both a base and stages: it takes the stages of its base, leave its own out")
    base = _content(path.parent / str(content["base"]))
    return base | {"vars": (base.get("vars") or {}) | (content.get("vars") or {})}


def _entries(path: Path, stage: Any, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a stage's `for` adds to the variables, one time after the other; nothing, once, without it."""
    if not isinstance(stage, dict) or "for" not in stage:
        return [{}]
    match str(stage["for"]).split():
        case [name, "in", variable] if isinstance(variables.get(variable), dict):
            return [{name: key} | _fields(name, entry) for key, entry in variables[variable].items()]
    raise UserError(f"{path}: for takes `name in variable`, a variable with named entries, not {stage['for']!r}")


def _fields(name: str, entry: Any) -> dict[str, Any]:
    return {f"{name}.{field}": value for field, value in entry.items()} if isinstance(entry, dict) else {}


def _value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {name}={text}: the value is not valid YAML, put it in quotes of its own") from None


def _stage(path: Path, stage: Any, variables: Mapping[str, Any] | None) -> Stage:
    needed = {"name", "command", "with"}
    if not isinstance(stage, dict) or set(stage) - {"for"} != needed or not isinstance(stage["with"], dict):
        raise UserError(f"{path}: a stage has name, command and with (options by name), and this one is {stage}")
    filled = stage if variables is None else _fill(stage, variables, path)
    return Stage(filled["name"], filled["command"], filled["with"])


def _fill(value: Any, variables: Mapping[str, Any], path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, variables, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, variables, path) for item in value]
    if not isinstance(value, str):
        return value
    if (name := value.removeprefix("${").removesuffix("}")) in variables and value == f"${{{name}}}":
        return variables[name]  # alone in its place, a variable keeps its type
    try:
        return _Text(value).substitute(variables)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: {value!r} uses a variable that is not there ({error})") from None


def check_recipe(stages: list[Stage], only: str | None) -> None:
    """Check the options of every stage that will run, so that a mistake in the last is found before the first runs.

    Where torchrun or Slurm started several processes, a stage must run alone: they all would run every stage.
    """
    if launcher() is not None and only is None:
        raise UserError("of several processes each would run every stage: run the stages one by one, with --stage")
    for stage in stages:
        try:
            arguments = parse(stage.command, stage.values)
            if only in (None, stage.name):
                check_command(stage.command, arguments)
        except UserError as error:
            raise UserError(f"stage {stage.name}: {error}") from None


def _check_made(stages: list[Stage], only: str) -> None:
    """Raise UserError for a stage by itself that takes what an earlier stage makes and has not made yet."""
    place = [stage.name for stage in stages].index(only)
    taken = list(_texts(stages[place].values))
    for stage in stages[:place]:
        made = stage.values.get("out")
        if made in taken and not Path(made).exists():
            raise UserError(
                f"stage {only} takes {made}, which is not there: run stage {stage.name} first, which makes it"
            )


def _texts(value: Any) -> Iterator[str]:
    """Every text and path in the values of a stage."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def run_recipe(path: Path, out: Path, variables: Mapping[str, str], only: str | None = None) -> None:
    """Run a recipe's stages in order. Each resumes where it was stopped, and a finished one is done at once.

    Raises:
        UserError: a broken recipe, an unknown stage, or what a stage itself refuses.
    """
    stages = read_recipe(path, out, variables)
    check_recipe(stages, only)
    if only is not None and only not in [stage.name for stage in stages]:
        raise UserError(f"{path} has no stage {only!r}: it has {', '.join(stage.name for stage in stages)}")
    if only is not None:
        _check_made(stages, only)
    started = time.monotonic()
    for number, stage in enumerate(stages, 1):
        if only in (None, stage.name):
            log.info("[%d/%d] %s (%s)", number, len(stages), stage.name, stage.command)
            run_command(stage.command, stage.values)
    what = path.name if only is None else f"{path.name}, stage {only}"
    log.info("%s: done in %.1f minutes, everything is in %s", what, (time.monotonic() - started) / 60, out)
