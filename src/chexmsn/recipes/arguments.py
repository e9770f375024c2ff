"""Typed arguments for commands: the same for the command line, a YAML file and a stage of a recipe."""

import argparse
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, get_args, get_origin

import docstring_parser
import jsonargparse
import yaml

from chexmsn.core.errors import UserError
from chexmsn.core.lookup import load, names

SOURCES = "chexmsn.data.sources"

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


class ArgumentParser(jsonargparse.ArgumentParser):
    """A parser whose complaints are ours: one line, which the command line prints.

    `parts` are the types of the options that depend on a choice, such as those of a method.
    """

    parts: Mapping[str, type] = MappingProxyType({})

    def error(self, message: str, exception: Exception | None = None) -> None:
        """Raise UserError instead of printing usage and leaving."""
        told = self._not_there(str(message)) or in_words(str(message))
        raise UserError(f"{told} (see chexmsn {self.prog.split()[-1]} --help)")

    def parse_path(self, cfg_path: Any, *args: Any, **how: Any) -> Any:
        """What the file of --config holds. Raises UserError that names it, where a value in it is of the wrong kind."""
        try:
            return super().parse_path(cfg_path, *args, **how)
        except UserError as error:
            raise UserError(f"{cfg_path}: {error}") from None

    def _not_there(self, message: str) -> str | None:
        """What is said of an option that is not there: the one that was probably meant, or whose it is."""
        of_group = re.search(r"Group '(\w+)' does not accept option '([\w.-]+)'", message)
        of_words = re.search(r"unrecognized arguments: --(?:([\w.-]+)\.)?([\w-]+)", message, re.IGNORECASE)
        if not (found := of_group or of_words):
            return None
        group, name = found.groups()
        whole, dashes = ".".join(filter(None, (group, name))), "" if of_group else "--"
        if group in self.parts:
            return f"{dashes}{whole}: {_not_among(name, self.parts[group])}"
        near = self._meant(whole)
        return f"there is no option {dashes}{whole}" + (f": did you mean {dashes}{near}?" if near else "")

    def _meant(self, name: str) -> str | None:
        """The option of a part that is called so, or else the one of all that is most alike."""
        names = [action.dest for action in self._actions]
        of_parts = [f"{part}.{name}" for part in self.parts]
        return next(iter([*filter(names.__contains__, of_parts), *get_close_matches(name, names, 1)]), None)

    def check_file(self, file: Path) -> None:
        """Raise UserError naming a key of the YAML file of --config that is no option."""
        content = read_yaml(file)
        offered = [action.dest for action in self._actions]
        for key in _dotted(content):
            if (group := key.partition(".")[0]) in self.parts and isinstance(content[group], dict):
                _check_keys(file, content[group], self.parts[group])
            elif not _is_among(key, offered):
                raise UserError(f"{file} has the key {key}, and there is no such option{self._remedy_of(key)}")

    def check_part(self, file: Path, part: str) -> None:
        """Raise UserError naming a key that is no option of the part, such as `options`, whose YAML file this is."""
        content = read_yaml(file)
        if part in content:
            raise UserError(f"{file} holds `{part}:`, so it is not of the {part} alone: give it as --config")
        _check_keys(file, content, self.parts[part])

    def _remedy_of(self, key: str) -> str:
        near = self._meant(key)
        if near is None:
            return f" (see {self.prog} --help)"
        part, _, name = near.rpartition(".")
        place = f"it goes under `{part}:`, or give the file as --{part}"
        return f": {place}" if part in self.parts and name == key else f": did you mean {near}?"


def _not_among(name: str, part: type) -> str:
    """Of a part's options: which there are, and which other file of its folder has the one that is not among them.

    >>> from chexmsn.methods.simsiam import Config
    >>> _not_among("entropy", Config).partition(":")[0]
    'simsiam has no option entropy (msn, pmsn have one)'
    """
    package, _, file = part.__module__.rpartition(".")
    offered = [field.name for field in dataclasses.fields(part)]
    others = [other for other in names(package) if name in _options_of(load(package, other))]
    theirs = f" ({', '.join(others)} {'has' if len(others) == 1 else 'have'} one)" if others else ""
    near = get_close_matches(name, offered, 1)
    remedy = f"did you mean {near[0]}?" if near else f"it has {', '.join(offered) or 'none'}"
    return f"{file.replace('_', '-')} has no option {name}{theirs}: {remedy}"


def _dotted(content: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Names of all values, of nested ones such as `encoder.patch`."""
    for key, value in content.items():
        yield from _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]


def _is_among(key: str, offered: Sequence[str]) -> bool:
    """Whether a key is an option, or holds options, or is a name within an option that takes values by name."""
    single = [name for name in offered if not any(other.startswith(f"{name}.") for other in offered)]
    return any(name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.") for name in single)


def _check_keys(file: Path, content: Mapping[str, Any], part: type) -> None:
    offered = {field.name for field in dataclasses.fields(part)}
    if wrong := next((str(key) for key in content if str(key).partition(".")[0] not in offered), None):
        raise UserError(f"{file}: {_not_among(wrong, part)}")


def _options_of(module: ModuleType) -> list[str]:
    return [field.name for field in dataclasses.fields(module.Config)] if hasattr(module, "Config") else []


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "tuple": "a list in brackets",
}
_KINDS |= {"Sequence": _KINDS["tuple"], "Mapping": "values by name"}

_COMPLAINTS = (
    (
        r"Expected a <class '(?:[a-z.]+\.)?(\w+)'>\. Got value: (.*)",
        lambda key, a, b: f"{key} takes {_KINDS.get(a, a)}, not {b}",
    ),
    (r"Expected a tuple with (\d+) elements\. Got value: (.*)", lambda key, a, b: f"{key} takes {a} values, not {b}"),
    (r"Expected a typing\.Literal\[(.*)\]\. Got value: (.*)", lambda key, a, b: f"{key} is one of {a}, not {b}"),
    (r"'\w+' object does not support item assignment", lambda key: f"{key} takes a list in brackets"),
    (r"Option '(.*)' is not accepted(.*)", lambda key, a, b: f"{key} has no option {a}"),
)


def in_words(message: str) -> str:
    """What jsonargparse complains of, for those who do not know Python's types.

    >>> in_words('Parser key "ema": Expected a tuple with 2 elements. Got value: [1]')
    'ema takes 2 values, not [1]'
    """
    message = re.sub(r" ?\(see chexmsn \S+ --help\)", "", " ".join(message.split()))
    if not (named := re.fullmatch(r'Parser key "(.+?)": (.*)', message)):
        return message
    key, complaint = named.groups()
    if of_file := re.fullmatch(r"Unable to load config '(.+?)' - (Parser key .*)", complaint):
        return f"{of_file[1]}: {in_words(of_file[2])}"
    if "Union subtypes" in complaint:
        return _of_several_kinds(key, complaint)
    for pattern, words in _COMPLAINTS:
        if found := re.fullmatch(pattern, complaint):
            return words(key, *found.groups())
    return f"{key}: {complaint}"


def _of_several_kinds(key: str, complaint: str) -> str:
    """A complaint of every kind that a value may have; those of the kinds nobody meant say nothing."""
    attempts, _, value = re.search(r"Errors: - (.*) Given value type: (.*?) Given value: (.*)", complaint).groups()
    meant = [a for a in attempts.split(" - ") if "<class 'NoneType'>" not in a and "dot import path" not in a]
    if not meant:
        return f"{key} takes options by name ({key}.<option>) or null, not {value}"
    if told := re.fullmatch(r"(\S+ (?:takes|is one of|has no) .*)", meant[0]):  # by the parser of the part
        return f"{key}.{told[1]}"
    reason = meant[0] if "Got value" in meant[0] else f"{meant[0]}. Got value: {value}"
    return in_words(f'Parser key "{key}": {reason}')


class Collect(argparse.Action):
    """Takes several values; an option that is given again adds to them instead of replacing them unseen."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        self._given = [*getattr(self, "_given", []), *values]
        setattr(namespace, self.dest, self._given)


def command_parser(name: str, words: Sequence[str] | Mapping[str, Any]) -> ArgumentParser:
    """The parser of a command, with the options that the choices among `words` bring."""
    return load("chexmsn.recipes.commands", name).parser(chosen(words))


def help_parsers(name: str, words: Sequence[str]) -> dict[str, ArgumentParser]:
    """The parser of a command; of one with several KINDS, of which none is among the words, one for each of them."""
    kinds = getattr(load("chexmsn.recipes.commands", name), "KINDS", {})
    ways = [""] if not kinds or set(kinds) & set(words) else list(kinds)
    return {way: command_parser(name, [*filter(None, [way]), *words]) for way in ways}


def parse(name: str, words: Sequence[str] | Mapping[str, Any]) -> Any:
    """The command's configuration from command-line words or from the values of a stage.

    Raises:
        UserError: an unknown option or a value of the wrong kind.
    """
    parser = command_parser(name, words)
    if not isinstance(words, Mapping):
        _check_files(parser, chosen(words))
    known = parser.parse_object(dict(words)) if isinstance(words, Mapping) else parser.parse_args(list(words))
    known.pop("config", None)
    try:
        return parser.instantiate(known)
    except ValueError as error:  # a part that may be left out, refused: what refused it stands in a list of attempts
        attempts = [line[4:] for line in str(error).splitlines() if line.startswith("  - ")]
        reasons = [attempt for attempt in attempts if not attempt.startswith("Expected a <class")]
        raise UserError(f"{'; '.join(reasons) or ' '.join(str(error).split())} (see chexmsn {name} --help)") from None


def _check_files(parser: ArgumentParser, found: Mapping[str, Any]) -> None:
    """Raise UserError for wrong keys in YAML files: `--config FILE`, and `--options FILE` of a part."""
    if "config" in found:
        parser.check_file(Path(found["config"]))
    for part in parser.parts:
        if str(found.get(part)).endswith((".yaml", ".yml")):
            parser.check_part(Path(found[part]), part)


def check_command(name: str, arguments: Any) -> None:
    """Raise UserError for parsed arguments that cannot work, as far as the command can tell without its data."""
    command = load("chexmsn.recipes.commands", name)
    if hasattr(command, "check"):
        command.check(arguments)


def run_command(name: str, words: Sequence[str] | Mapping[str, Any]) -> Any:
    """Parse and run one command."""
    return load("chexmsn.recipes.commands", name).run(parse(name, words))


def chosen(words: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The choices made by name, before the options they bring are known: `--method mae` or `method: mae`."""
    if isinstance(words, Mapping):
        return dict(words)
    found: dict[str, Any] = {"": [word for word in words if not word.startswith("-")]}
    for word, following in pairwise([*words, ""]):
        name, sign, value = word.partition("=")
        if name.startswith("--"):
            found[name.removeprefix("--").replace("-", "_")] = value if sign else following
    return (read_yaml(Path(found["config"])) if "config" in found else {}) | found


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of options by name. Raises UserError where it is not that."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold options by name, not {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def dataclass_parser(
    command: str, kind: type, parts: Mapping[str, type] | None = None, positional: Sequence[str] = ()
) -> ArgumentParser:
    """A parser for the fields of a dataclass; fields that hold several values take them one after the other, and
    what is off by default is a switch (`--json`).

    Args:
        command: the command's name, for usage and complaints.
        kind: the dataclass.
        parts: types of the fields that depend on a choice (a method's own options).
        positional: fields that are given by position.
    """
    parts, help_of = parts or {}, _field_help(kind)
    switches = {field.name for field in dataclasses.fields(kind) if field.type is bool and field.default is False}
    several = {field.name: item for field in dataclasses.fields(kind) if (item := _item_type(field.type)) is not None}
    parser = ArgumentParser(prog=f"chexmsn {command}", allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with options; later options override it")
    for field in dataclasses.fields(kind):
        if field.name in positional:
            settings = {"nargs": "+", "type": several[field.name]} if field.name in several else {"type": field.type}
            parser.add_argument(field.name, help=help_of.get(field.name), **settings)
        elif field.name in switches:
            parser.add_argument(f"--{field.name}", action="store_true", help=help_of.get(field.name))
        elif field.name in several:
            missing = field.default is dataclasses.MISSING
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            settings = {"required": True} if missing else {"default": default}
            item = several[field.name]
            told = {"action": Collect, "nargs": "+", "type": item, "help": help_of.get(field.name)}
            parser.add_argument(f"--{field.name}", **told, **settings)
    parser.add_class_arguments(kind, as_group=False, skip={*parts, *positional, *switches, *several})
    for name, part in parts.items():
        parser.add_class_arguments(part, name)
    parser.parts = parts
    return parser


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Which options a source has is not known before it is named."""


def source_parser(command: str, kind: type, values: Mapping[str, Any], positional: Sequence[str]) -> ArgumentParser:
    """A parser for a dataclass with a `source`, and with `options` that are those of the source named in `values`."""
    source = values.get("source") or _source_among(values.get("", []))
    if source is None and "help" not in values:
        raise UserError(f"chexmsn {command} needs a source: one of {', '.join(names(SOURCES))}")
    options = NoOptions if source is None else load(SOURCES, source).Config
    return dataclass_parser(command, kind, {"options": options}, positional=positional)


def _source_among(words: Sequence[str]) -> str | None:
    """The source among words of which some may be the values of options."""
    return next((word for word in words if word.replace("_", "-") in names(SOURCES)), next(iter(words), None))


def _item_type(annotation: Any) -> type | None:
    """X for `tuple[X, ...]` and `tuple[X, ...] | None`, else None."""
    for candidate in (annotation, *get_args(annotation)):
        if get_origin(candidate) is tuple and get_args(candidate)[1:] == (Ellipsis,):
            return get_args(candidate)[0]
    return None


def _field_help(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass and its ancestors say of its fields."""
    documented = [docstring_parser.parse(ancestor.__doc__ or "") for ancestor in reversed(kind.__mro__)]
    return {param.arg_name: " ".join(param.description.split()) for text in documented for param in text.params}


def as_dataclass(kind: type, arguments: Any) -> Any:
    """The parsed arguments as the dataclass they were made from; lists become tuples."""
    values = {field.name: arguments[field.name] for field in dataclasses.fields(kind) if field.name in arguments}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
