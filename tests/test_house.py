"""The house of docs/design.md holds: who imports whom, where torch may be, how long a file may get."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "l2d"
LONGEST_FILE = 400
VAGUE = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}

TORCH = {"torch", "accelerate"}
ALLOWED = {"transformers": {"backbone", "tuning", "testing"}, "peft": {"backbone"}}
"""Stages that may import a package; every stage may import what is not listed."""

AT_LEAST_WITHOUT_TORCH = {"errors", "artifacts", "catalog", "interactions", "sources", "ranking", "prompts"}
AT_LEAST_WITHOUT_TORCH |= {"evidence", "evaluate"}


class Import(NamedTuple):
    """One imported module and where it stands. `runtime` is false below `if TYPE_CHECKING`."""

    module: str
    line: int
    runtime: bool


class House(NamedTuple):
    """The table of the design: floors from the roof down, each a set of stages; and the stages that never see torch."""

    floors: list[list[str]]
    without_torch: set[str]

    def floor(self, stage: str) -> int:
        return next(level for level, stages in enumerate(self.floors) if stage in stages)

    @property
    def stages(self) -> list[str]:
        return [stage for stages in self.floors for stage in stages]


def read_house(text: str) -> House:
    table = text.partition("<!-- house -->")[2].partition("<!-- /house -->")[0]
    floors, without_torch = [], set()
    for line in table.strip().splitlines()[2:]:
        stages, torch, _ = (cell.strip() for cell in line.strip("|").split("|", 2))
        floors.append(re.findall(r"`(\w+)`", stages))
        without_torch |= set(floors[-1]) if torch == "never" else set()
    return House(floors, without_torch)


def imports(tree: ast.AST, runtime: bool = True) -> Iterator[Import]:
    """Every import at any depth; `from l2d import errors` counts as `l2d.errors`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, runtime) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "l2d" else [node.module]
            yield from (Import("." * node.level + (name or ""), node.lineno, runtime) for name in names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imports(ast.Module(node.body, []), runtime=False)
            yield from imports(ast.Module(node.orelse, []), runtime)
        else:
            yield from imports(node, runtime)


def stage_of(path: Path, root: Path = SOURCE) -> str:
    return path.relative_to(root).parts[0].removesuffix(".py")


def faults(house: House, stage: str, tree: ast.AST) -> Iterator[str]:
    """What a file of one stage imports and may not."""
    for module, line, runtime in imports(tree):
        top, *rest = module.split(".")
        if top == "":
            yield f"{line}: relative import {module}"
        elif top == "l2d":
            other = rest[0] if rest else ""
            if other in ("__version__", stage):
                continue
            if other not in house.stages:
                yield f"{line}: {module} is no stage; inside the house import from the module itself"
            elif house.floor(other) <= house.floor(stage):
                yield f"{line}: {module} is not below {stage}"
            elif runtime and stage in house.without_torch and other not in house.without_torch:
                yield f"{line}: {module} may import torch and {stage} may not"
        elif (runtime and top in TORCH and stage in house.without_torch) or stage not in ALLOWED.get(top, house.stages):
            yield f"{line}: {module} in {stage}"


HOUSE = read_house((ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
FILES = sorted(path for path in SOURCE.rglob("*.py"))
INSIDE = [path for path in FILES if path.parent != SOURCE or not path.name.startswith("__")]


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def test_the_design_lists_exactly_the_stages_there_are() -> None:
    assert sorted(HOUSE.stages) == sorted({stage_of(path) for path in INSIDE})
    assert HOUSE.floors[-1] == ["errors"]


@pytest.mark.parametrize("path", INSIDE, ids=name)
def test_a_file_imports_only_from_floors_below_its_own(path: Path) -> None:
    found = [f"{path}:{fault}" for fault in faults(HOUSE, stage_of(path), ast.parse(path.read_text(encoding="utf-8")))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("stage", "code", "fault"),
    [
        ("low", "from l2d.high import x", "1: l2d.high is not below low"),
        ("low", "def f():\n    import l2d.high.part", "2: l2d.high.part is not below low"),
        ("low", "if TYPE_CHECKING:\n    from l2d import high", "2: l2d.high is not below low"),
        ("low", "from l2d.beside import x", "1: l2d.beside is not below low"),
        ("low", "import torch.nn", "1: torch.nn in low"),
        ("low", "def f():\n    from torch import nn", "2: torch in low"),
        ("high", "from transformers import Trainer", "1: transformers in high"),
        ("high", "import peft", "1: peft in high"),
        ("high", "from . import part", "1: relative import ."),
        (
            "high",
            "from l2d import Catalog",
            "1: l2d.Catalog is no stage; inside the house import from the module itself",
        ),
        ("pure", "from l2d.middle import x", "1: l2d.middle may import torch and pure may not"),
        ("pure", "if TYPE_CHECKING:\n    from l2d.middle import x", None),
        ("low", "if TYPE_CHECKING:\n    import torch", None),
        ("high", "import torch\nfrom l2d.low import x\nfrom l2d.high.part import y\nfrom l2d import __version__", None),
    ],
)
def test_the_rules_can_fail(stage: str, code: str, fault: str | None) -> None:
    house = House([["high"], ["pure"], ["middle"], ["low", "beside"]], {"pure", "low"})
    assert list(faults(house, stage, ast.parse(code))) == ([fault] if fault else [])


def test_stages_marked_never_leave_torch_unimported() -> None:
    assert HOUSE.without_torch >= AT_LEAST_WITHOUT_TORCH
    modules = [f"l2d.{stage}" for stage in sorted(HOUSE.without_torch)]
    code = f"import importlib, sys; [importlib.import_module(m) for m in {modules}]; print('torch' in sys.modules)"
    assert run(code) == "False"


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "numpy", "polars", "pyarrow", "lance", "pydantic", "typer", "matplotlib")
    assert run(f"import sys, l2d; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_every_public_name_is_there_and_is_not_a_module() -> None:
    code = "from types import ModuleType; import l2d; print([type(getattr(l2d, n)) is ModuleType for n in l2d.__all__])"
    assert run(code) == str([False] * 11)


@pytest.mark.parametrize(
    "first", ["import l2d.evaluate", "from l2d import evaluate", "from l2d.evaluate import hit_ranks"]
)
def test_evaluate_is_the_function_whoever_imported_the_module_first(first: str) -> None:
    assert run(f"{first}\nimport l2d\nprint(type(l2d.evaluate).__name__, 'evaluate' in dir(l2d))") == "function True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert run("import l2d\nprint(hasattr(l2d, 'Recomender'))") == "False"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_says_what_it_is_and_stays_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert len(text.splitlines()) <= LONGEST_FILE, f"{path} is too long: make it a folder"
    assert path.stem not in VAGUE, f"{path}: name it after what it holds"


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
