"""What is installed: one version everywhere, and everything that the code reads at runtime."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml

import hetmarl
from tests.packaging.source_tree import PACKAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def data_files() -> set[str]:
    """Files beside the modules, as they stand in a wheel."""
    found = set()
    for directory in PACKAGES.values():
        for path in directory.rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                found.add(path.relative_to(directory.parent).as_posix())
    return found


def test_one_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    stated = {
        "pyproject.toml": PROJECT["version"],
        "hetmarl.__version__": hetmarl.__version__,
        "CITATION.cff": yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"],
        "CHANGELOG.md": re.findall(r"^## (\S+)", changes, re.M)[0],
    }
    with contextlib.suppress(PackageNotFoundError):  # run from the checkout
        stated["installed"] = version("hetmarl")
    assert len(set(stated.values())) == 1, stated


def test_licence_is_the_declared_one() -> None:
    assert PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_typed_and_configured() -> None:
    files = data_files()
    assert {"hetmarl/py.typed", "hetmarl_envs/py.typed", "hetmarl/conf/train.yaml"} <= files


@pytest.mark.slow
def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("hetmarl", "envs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-c", "import setuptools.build_meta as b; b.build_wheel('out')"]
    (source / "out").mkdir()
    result = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = (source / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (n for n in names if n.endswith("entry_points.txt"))
        assert "hetmarl = hetmarl.cli.main:main" in archive.read(entry_points).decode()
    modules = {
        path.relative_to(directory.parent).as_posix()
        for directory in PACKAGES.values()
        for path in directory.rglob("*.py")
    }
    assert sorted((modules | data_files()) - names) == []
    outside = {n for n in names if not n.startswith(("hetmarl/", "hetmarl_envs/", "hetmarl-"))}
    assert outside == set()
