"""Arrows go one way: what each room of the house may import."""

from __future__ import annotations

import pytest

from tests.packaging.source_tree import PACKAGES, imports, modules, within

TRAINING = ("lightning", "pytorch_lightning", "lightning_fabric")
CONFIGURATION = ("hydra", "omegaconf")

# Room to what it must not import. Chain: hetmarl_envs <- networks <- objectives <- engines <-
# algorithms <- cli, with data and lightning beside algorithms.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "hetmarl_envs": ("hetmarl", *TRAINING, *CONFIGURATION),
    "hetmarl.networks": (
        *TRAINING,
        *CONFIGURATION,
        "hetmarl.objectives",
        "hetmarl.engines",
        "hetmarl.algorithms",
        "hetmarl.data",
        "hetmarl.lightning",
        "hetmarl.cli",
    ),
    "hetmarl.objectives": (
        *TRAINING,
        *CONFIGURATION,
        "hetmarl.engines",
        "hetmarl.algorithms",
        "hetmarl.data",
        "hetmarl.lightning",
        "hetmarl.cli",
    ),
    "hetmarl.engines": (
        *TRAINING,
        *CONFIGURATION,
        "hetmarl.algorithms",
        "hetmarl.data",
        "hetmarl.lightning",
        "hetmarl.cli",
    ),
    "hetmarl.algorithms": (*CONFIGURATION, "hetmarl.cli"),
    "hetmarl.data": (*CONFIGURATION, "hetmarl.algorithms", "hetmarl.cli"),
    "hetmarl.lightning": (*CONFIGURATION, "hetmarl.algorithms", "hetmarl.cli"),
}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows_go_one_way(room: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in modules().items()
        if within(module, room)
        for name in sorted(imports(module, path))
        if any(within(name, forbidden) for forbidden in FORBIDDEN[room])
    ]
    assert not wrong, "\n".join(wrong)


def test_hydra_stays_in_the_command_line() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in modules().items()
        if not within(module, "hetmarl.cli") and not within(module, "hetmarl.conf")
        for name in sorted(imports(module, path))
        if any(within(name, package) for package in CONFIGURATION)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_folder_with_modules_is_a_package() -> None:
    """A folder without ``__init__.py`` would be missing from the wheel."""
    folders = {path.parent for path in modules().values()}
    assert set(PACKAGES.values()) <= folders
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_reader_of_imports_sees_every_form(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "m.py"
    path.write_text(
        "import a.b\nfrom . import c\nfrom ..d import e\ndef f():\n    from g import h\n"
    )
    found = imports("p.q.m", path)
    assert {"a.b", "p.q.c", "p.d", "p.d.e", "g", "g.h"} <= found
