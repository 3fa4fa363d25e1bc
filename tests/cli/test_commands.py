import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hetmarl_envs.errors import MissingExtraError
from hetmarl_envs.registry import Family, families, get_family, list_tasks, register_family

from .conftest import Outcome

Command = Callable[..., Outcome]
# Families whose packages may be missing here.
OPTIONAL = ("lbf", "mpe", "rware", "smacv2", "smax", "sumo")


def test_usage_names_every_command(hetmarl: Command) -> None:
    for arguments in ([], ["--help"]):
        code, out, _ = hetmarl(*arguments)
        assert code == 0
        for command in ("train", "evaluate", "render", "plot", "list", "doctor", "sc2sim"):
            assert command in out


@pytest.mark.slow
def test_a_reader_that_has_seen_enough() -> None:
    """`hetmarl list tasks | head -1`: no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "hetmarl.cli.main", "list", "tasks"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141 and done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate", "render", "plot", "list", "doctor"])
def test_help(hetmarl: Command, command: str) -> None:
    code, out, _ = hetmarl(command, "--help")
    assert code == 0
    assert f"hetmarl {command}" in out


def test_list(hetmarl: Command) -> None:
    listed = hetmarl("list", "algos").out.splitlines()
    assert {"hasac", "happo", "hatrpo", "mappo"} <= set(listed) and listed == sorted(listed)
    tasks = hetmarl("list", "tasks").out.splitlines()
    assert {"mamujoco/halfcheetah_2x3", "vmas/simple_speaker_listener"} <= set(tasks)
    assert all(task.partition("/")[0].islower() and task.partition("/")[2] for task in tasks)
    only = hetmarl("list", "tasks", "mamujoco/*x1").out.splitlines()
    assert only
    assert all(task.startswith("mamujoco/") and task.endswith("x1") for task in only)
    assert set(hetmarl("list", "tasks", "VMAS").out.splitlines()) == {
        task for task in tasks if "vmas" in task
    }


def test_doctor_tries_every_family(hetmarl: Command) -> None:
    code, out, _ = hetmarl("doctor")
    assert code == 0, out
    tasks = out[out.index("\nTasks\n") :].splitlines()
    for name in families():
        line = next(line for line in tasks if line.strip().startswith(f"{name} "))
        missing = get_family(name).missing()
        expected = "absent" if missing else "works" if list_tasks(name) else "untried"
        no_game = name == "smacv2" and "no StarCraft II" in line  # its packages do without
        assert (expected in line or no_game) and (not missing or name in OPTIONAL)
    for word in ("torchrl", "CPU", "hasac", "neptune", "March 2026"):
        assert word in out


def test_doctor_says_how_to_get_what_is_missing(
    hetmarl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetmarl_envs.registry._families", dict(_registered()))
    register_family(
        Family("chess", _never, lambda: ["one"], ("no_such_chess",), "pip install no-such-chess")
    )
    code, out, _ = hetmarl("doctor")
    assert code == 0, "an extra that is not installed is no failure"
    assert "needs no_such_chess: pip install no-such-chess" in out
    register_family(Family("broken", _never, lambda: ["one"]))
    code, out, _ = hetmarl("doctor")
    assert code == 1
    assert "MissingExtraError: no display" in out


def test_doctor_of_one_family_says_all_of_it(
    hetmarl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetmarl_envs.registry._families", dict(_registered()))
    steps = "no board:\n  buy one\n  set BOARD"
    register_family(Family("chess", _never, lambda: ["one"], problem=lambda: steps))
    code, out, _ = hetmarl("doctor", "chess")
    assert code == 1
    assert out.splitlines()[1:] == steps.splitlines()
    code, out, _ = hetmarl("doctor")
    assert code == 0 and "no board: … (hetmarl doctor chess)" in out
    code, out, _ = hetmarl("doctor", "games")
    assert code == 0 and "games: works" in out
    code, _, err = hetmarl("doctor", "ches")
    assert code == 2 and "Did you mean 'chess'?" in err


def test_sc2sim_install(hetmarl: Command, tmp_path: Path) -> None:
    code, out, _ = hetmarl("sc2sim", "install", "game")
    assert code == 0 and "simulated" in out
    assert f"export SC2PATH={tmp_path / 'game'}" in out
    assert (tmp_path / "game/Maps/SMAC_Maps/32x32_flat.SC2Map").is_file()
    assert hetmarl("sc2sim", "instal", "game").code == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    code, _, err = hetmarl("sc2sim", "install", "other")
    assert code == 2 and "not empty" in err


def _registered() -> dict[str, object]:
    from hetmarl_envs import registry

    return registry._families  # type: ignore[return-value]


def _never(task: str, **options: object) -> object:
    raise MissingExtraError("no display")
