"""Where a report or a card may be written: a folder that is new, empty, or holds nothing but earlier ones."""

from pathlib import Path

from chexmsn.core.errors import UserError

OURS = ("report.html", "figures", "numbers", "card.html", "card.md")


def check_place(out: Path) -> None:
    """Raises UserError for a file, and for a folder that holds anything that no report and no card writes."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file and a report is a folder: choose another place for it")
    foreign = sorted(entry.name for entry in out.iterdir() if not _is_ours(entry.name)) if out.exists() else []
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{out} holds {foreign[0]}{more}, which no report wrote, and a report replaces what is in its folder: "
            "name a new or empty folder"
        )


def _is_ours(name: str) -> bool:
    """Also what a write that was killed may leave (`core.files.write_atomic`)."""
    return name in OURS or name.startswith(tuple(f".{own}." for own in OURS))
