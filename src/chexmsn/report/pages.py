"""Templates: HTML, where text is escaped by itself, and Markdown, where the filter `escaped` does it."""

import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from chexmsn.report.tables import interval
from chexmsn.report.words import percent, reason, three_digits


def template(name: str) -> Template:
    """The template of this name, with the filters that all of them use."""
    environment = Environment(
        loader=PackageLoader("chexmsn.report"),
        autoescape=".html." in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(three_digits=three_digits, escaped=escaped)
    environment.globals.update(three_digits=three_digits, percent=percent, reason=reason, interval=interval)
    environment.globals.update(table_lines=table_lines)
    return environment.get_template(name)


def escaped(text: str) -> str:
    """Text that stays text in Markdown, in a table too.

    >>> print(escaped("a|b *c* <d>"))
    a\\|b \\*c\\* \\<d\\>
    """
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(str(text).split()))


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a Markdown table.

    >>> table_lines([["a", "b"]])
    ['| a | b |']
    """
    return ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows]
