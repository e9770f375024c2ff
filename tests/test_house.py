"""The house: imports point down only, and siblings do not know each other."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "chexmsn"
FLOORS = [
    {"cli"},
    {"recipes"},
    {"report"},
    {"evaluation"},
    {"training"},
    {"methods"},
    {"data", "views", "corruptions", "models", "metrics"},
    {"core"},
]
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}


def imported_packages(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("chexmsn.")}


def test_every_package_has_a_floor():
    packages = {folder.name for folder in SOURCE.iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    assert packages == set(FLOOR)


def test_imports_point_down_only():
    wrong = []
    for file in SOURCE.rglob("*.py"):
        own = file.relative_to(SOURCE).parts[0]
        if own not in FLOOR:  # the package's front door may import anything
            continue
        upward = [other for other in imported_packages(file) - {own} if FLOOR[other] <= FLOOR[own]]
        wrong += [f"{file.relative_to(SOURCE)} imports {other}" for other in upward]
    assert not wrong, "imports must point down: " + "; ".join(sorted(wrong))
