"""The wheel: complete, installable, and working away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import l2d

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools writes beside its sources, and without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder)
    done = python("-m", "pip", "wheel", *options, copy, cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--target", target)
    done = python("-m", "pip", "install", *options, wheel, cwd=target)
    assert done.returncode == 0, done.stderr
    return target


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    expected = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "l2d").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert "l2d/py.typed" in expected
    assert {file for file in packed if not file.startswith(f"l2d-{l2d.__version__}.dist-info/")} == expected


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = f"l2d-{l2d.__version__}.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode()
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
        licence = archive.read(f"{folder}/licenses/LICENSE").decode()
    assert "Name: l2d\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata
    assert "Requires-Dist: transformers<6,>=5.23\n" in metadata
    assert "Provides-Extra: faiss\n" in metadata
    assert "l2d = l2d.cli:main" in scripts
    assert "Apache License" in licence


def test_it_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = python("-c", "import l2d; print(l2d.__file__)", cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(where.stdout.strip()).is_relative_to(installed), where.stderr
    text = python("-m", "l2d", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert text.returncode == 0, text.stderr
    assert "quickstart" in text.stdout


def test_the_installed_script_answers_and_fails_with_code_2(installed: Path, tmp_path: Path) -> None:
    script = installed / "bin" / "l2d"
    doctor = python(script, "doctor", cwd=tmp_path, PYTHONPATH=str(installed))
    assert doctor.returncode == 0, doctor.stderr
    assert "torch" in doctor.stdout
    missing = python(script, "evaluate", tmp_path / "nowhere", cwd=tmp_path, PYTHONPATH=str(installed))
    assert missing.returncode == 2, missing.stderr
    assert "nowhere" in missing.stderr
    assert "Traceback" not in missing.stderr
