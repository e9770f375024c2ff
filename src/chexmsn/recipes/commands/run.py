"""Run a recipe: a whole experiment from one YAML file.

Example:
    chexmsn run recipes/mimic-cxr-published.yaml --set data=/data/mimic-cxr-jpg --out runs/published

Stages that are finished are passed over, so the same command continues after a stop. --stage NAME runs one stage.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexmsn.core.errors import UserError
from chexmsn.recipes.arguments import ArgumentParser, as_dataclass, dataclass_parser
from chexmsn.recipes.recipe import run_recipe


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to run.

    Attributes:
        recipe: the YAML file.
        out: folder for everything the recipe makes.
        set: values for the recipe's variables, each as name=value.
        stage: run this stage only.
    """

    recipe: Path
    out: Path
    set: tuple[str, ...] = ()
    stage: str | None = None


def parser(values: Mapping[str, Any]) -> ArgumentParser:
    """The options of running a recipe."""
    return dataclass_parser("run", Config, positional=["recipe"])


def run(arguments: Any) -> None:
    """Run the recipe."""
    config = as_dataclass(Config, arguments)
    run_recipe(config.recipe, config.out, dict(map(_assignment, config.set)), config.stage)


def _assignment(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise UserError(f"--set takes name=value, not {text!r}")
    return name, value
