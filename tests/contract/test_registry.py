"""Environments by name: families of others, and what is said where a name or number is wrong."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import hetmarl
from hetmarl_envs import Family, families, list_tasks, make_env, register_family, registry
from hetmarl_envs.errors import (
    ConfigError,
    HetmarlError,
    MissingExtraError,
    UnknownNameError,
    did_you_mean,
    nearest,
)
from tests.teams import CountingEnv


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_families", dict(registry._families))


def counting(task: str, **arguments: Any) -> CountingEnv:
    return CountingEnv(max_steps={"short": 2, "long": 20}[task], **arguments)


COUNTING = Family("counting", counting, lambda: ["short", "long"])


def test_a_family_of_somebody_elses() -> None:
    register_family(COUNTING)
    assert "counting" in families()
    assert list_tasks("counting") == ["counting/long", "counting/short"]
    assert "counting/long" in hetmarl.list_tasks()
    env = make_env("counting/short", num_envs=4, seed=3, terminates=True)
    assert env.batch_size == (4,) and env.max_steps == 2 and env.terminates
    with pytest.raises(ConfigError, match="'counting' is registered already; pass replace=True"):
        register_family(COUNTING)
    register_family(COUNTING, replace=True)


def test_a_family_by_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As entry points name it; imported when it is first used."""
    registry._families["by_path"] = f"{__name__}:COUNTING"
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[__name__])
    assert list_tasks("by_path") == ["by_path/long", "by_path/short"]
    assert make_env("by_path/long").max_steps == 20


def test_a_family_by_its_modules_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever types ``my_pkg/task`` need not register anything."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_pkg_of_test.py").write_text(f"from {__name__} import COUNTING as FAMILY\n")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert make_env("my_pkg_of_test/short").max_steps == 2
    (tmp_path / "my_broken_pkg.py").write_text("import no_such_module\n")
    with pytest.raises(ConfigError, match=r"module 'my_broken_pkg' cannot be imported: ModuleNot"):
        make_env("my_broken_pkg/short")
    (tmp_path / "my_empty_pkg.py").write_text("")
    with pytest.raises(UnknownNameError, match="or a module that defines FAMILY"):
        make_env("my_empty_pkg/short")


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "4", None])
def test_wrong_number_of_environments(number: Any) -> None:
    expected = re.escape(f"num_envs={number!r}: expected a whole number of at least 1")
    with pytest.raises(ConfigError, match=expected):
        make_env("mamujoco/ant_2x4", num_envs=number)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mujoco/ant_2x4", r"unknown environment family 'mujoco'. Did you mean 'mamujoco'\? Known"),
        ("mamujoco/halfcheeta_2x3", r"halfcheeta_2x3.*Did you mean .*halfcheetah_2x3"),
        ("vmas/navigaton", r"navigaton.*Did you mean .*navigation"),
        (
            "halfcheetah_2x3",
            r"not of the form 'family/task'.*Did you mean 'mamujoco/halfcheetah_2x3'",
        ),
        ("vmas/", "not of the form 'family/task'"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(HetmarlError, match=message) as caught:
        make_env(name)
    assert isinstance(caught.value, UnknownNameError | ConfigError)
    assert not str(caught.value).startswith(("'", '"'))  # a KeyError's repr


@pytest.mark.parametrize("requires", [("no_such_simulator",), ("no_such_package.simulator",)])
def test_a_missing_extra_comes_with_its_pip_line(requires: tuple[str, ...]) -> None:
    pip = "pip install 'hetmarl[far]'"
    register_family(Family("far", counting, lambda: ["short"], requires, pip))
    assert "far/short" in list_tasks()
    with pytest.raises(MissingExtraError, match=re.escape(f"not installed here: {pip}")) as caught:
        make_env("far/short")
    assert requires[0] in str(caught.value) and isinstance(caught.value, ImportError)


def test_unknown_options_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"agent_obs.*Did you mean 'agent_obsk'\?"):
        make_env("mamujoco/hopper_3x1", agent_obs=1)


def test_nearest() -> None:
    assert nearest("HASAK", ["hasac", "happo"]) == "hasac"
    assert nearest("zzz", ["hasac"]) is None
    assert did_you_mean("zzz", ["hasac"]) == ""
