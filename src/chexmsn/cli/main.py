"""`chexmsn <command> ...`: finds the command, runs it, and turns bad input into one line."""

import ast
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from chexmsn.core.errors import CheckFailed, UserError
from chexmsn.core.libraries import missing

STORY = """\
CheXMSN: representation learning for chest radiographs that stays reliable when the image does not.

  A folder of radiographs becomes a pack, a pack trains encoders, an encoder becomes a classifier, the
  classifier is stressed, and the stress becomes a report:

      chexmsn fake phantom /tmp/phantom                    draw a synthetic collection to try things on
      chexmsn prepare phantom /tmp/phantom packs/phantom   images and labels, decoded once
      chexmsn pretrain --data packs/phantom --method msn --out runs/msn
      chexmsn train --data packs/phantom --encoder_from runs/msn --out runs/classifier
      chexmsn stress runs/classifier packs/phantom --out runs/stress
      chexmsn report runs/stress --out runs/report

  or all of it from one file: chexmsn run recipes/demo.yaml --out runs/demo

Commands (chexmsn <command> --help tells more, with an example):
{commands}

Every command can be stopped and started again: what was finished is kept. Nothing leaves this machine.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a check found something, 2 bad input, 130 stopped by Ctrl-C."""
    words = list(sys.argv[1:] if words is None else words)
    return guarded(lambda: _run(words))


OUT_OF_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory")


def guarded(work: Callable[[], None]) -> int:
    """Call `work` with our log on stderr, and turn what a user can mend into one line and an exit code."""
    level = logging.INFO if _is_first() else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("torch").setLevel(logging.WARNING)  # it reports on its caches when a command is stopped
    # threads that spin while they wait make training half as fast on a machine that does something else too, and
    # sleeping costs nothing on an idle one; OpenMP reads this once, when torch is loaded
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        work()
    except CheckFailed:
        return 1
    except UserError as error:
        _tell(f"chexmsn: {error}")
        return 2
    except ModuleNotFoundError as error:  # a dependency that was removed, or never installed
        if error.name is None or error.name.split(".")[0] == "chexmsn":
            raise
        _tell(f"chexmsn: {missing(error.name)}")
        return 2
    except KeyboardInterrupt:
        _tell("\nchexmsn: stopped; what was finished is kept, and the same command continues")
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has left
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that may not be written, a file in the place of a folder
        if error.strerror is None:
            raise
        _tell(f"chexmsn: {f'{error.filename}: ' if error.filename else ''}{error.strerror}")
        return 2
    except (MemoryError, RuntimeError) as error:  # torch has no type of its own for a CPU that is out of memory
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        _tell("chexmsn: not enough memory: choose a smaller batch_size, image size or network")
        return 2
    return 0


def _is_first() -> bool:
    """Whether this is the one process there is, or the first of those that torchrun or Slurm started."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _tell(text: str) -> None:
    if _is_first():
        print(text, file=sys.stderr)


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(STORY.format(commands=_table_of_commands()))
        return
    if words[0] == "--version":
        print(f"chexmsn {version('chexmsn')}")
        return
    name, *rest = words
    if "-h" in rest or "--help" in rest:
        _print_help(name, rest)
        return
    # imported here: the commands need torch, which takes seconds to load, and the help above does not
    from chexmsn.recipes.arguments import run_command

    run_command(name, rest)


def _print_help(name: str, words: list[str]) -> None:
    from chexmsn.recipes.arguments import help_parsers

    parsers = help_parsers(name, [*words, "--help"])
    print("".join(parser.format_usage() for parser in parsers.values()))
    print(f"{_docstrings()[name]}\n")
    for way, parser in parsers.items():
        print(f"chexmsn {name} {way}\n" if way else "", end="")
        print(parser.format_help().split("\n\n", 1)[-1])


def _docstrings() -> dict[str, str]:
    """Every command's docstring, read without importing it."""
    package = importlib.util.find_spec("chexmsn.recipes.commands")
    files = sorted(Path(package.submodule_search_locations[0]).glob("[!_]*.py"))
    return {
        file.stem.replace("_", "-"): ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) for file in files
    }


def _table_of_commands() -> str:
    return "\n".join(f"  {name:<10} {text.splitlines()[0]}" for name, text in _docstrings().items())
