import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hetmarl.cli.errors import FULL_ERROR
from hetmarl_envs.errors import UnknownNameError

from .conftest import TINY, Outcome

Command = Callable[..., Outcome]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["algo=hasca"], "unknown algo 'hasca'. Did you mean 'hasac'?"),
        (
            ["task=mamujocoo/ant_2x4"],
            "unknown task 'mamujocoo/ant_2x4'. Did you mean 'mamujoco/",
        ),
        (["task=halfcheetah_2x3"], "Did you mean 'mamujoco/halfcheetah_2x3'?"),
        (["task=vmas/balanc"], "Did you mean 'balance'?"),
        (["task=mamujoco/halfchetah_2x3"], "Did you mean 'halfcheetah_2x3'?"),
        (["task=mamujoco/ant_3x5"], "no factorization '3x5'"),
        (["task.agent_obks=2"], "no option 'agent_obks'. Did you mean 'agent_obsk'?"),
        (["task=vmas/balance", "task.n_agnts=2"], "Did you mean 'n_agents'?"),
        (["sed=3"], "unknown key 'sed'. Did you mean 'seed'?"),
        (["gamma=0.9"], "unknown key 'gamma'. Did you mean 'algo.gamma'?"),
        (["algo.gama=0.9"], "unknown key 'algo.gama'. Did you mean 'algo.gamma'?"),
        (["algo.gamma=abc"], "algo.gamma='abc': expected a number"),
        (["num_envs=0"], "num_envs=0: expected 1 or more"),
        (["seed"], "cannot read 'seed': expected key=value"),
        (["seed=1,2"], "add -m for one run after another, or write seed=[1,2]"),
        (["logger=csv,wandb"], "or write logger=[csv,wandb] for a list"),
        (["+seed=3"], "write seed=… without the plus"),
        (["experiment=mamujoco/ant_2x4_hasac"], "+experiment="),
        (["+experiment=mamujoco/ant_2x4_hasca"], "Did you mean 'mamujoco/ant_2x4_hasac'?"),
        (["logger=[cvs]"], "no logger 'cvs'. Did you mean 'csv'?"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed"),
        (["trainer.accelerator=gppu"], "invalid accelerator name"),
        (["trainer.strategy=dpp"], "strategy"),
        (["trainer.extra.nonsense=1"], "nonsense"),
        (["trainer.extra.max_epochs=3"], "trainer.extra.max_epochs is set by hetmarl"),
        (["trainer.extra.gradient_clip_val=1"], "algo.max_grad_norm"),
        (["resume=last"], "set run_dir="),
        (["resume=runs/nowhere"], "there is no such file"),
        (["resume=last", "run_dir=runs/nowhere"], "runs/nowhere does not exist"),
    ],
)
def test_bad_command_lines(hetmarl: Command, arguments: list[str], message: str) -> None:
    code, out, err = hetmarl("train", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("hetmarl: ")
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3
    assert not list(Path().rglob("*.yaml")), "a refused run leaves nothing behind"


def test_missing_extra_names_the_pip_line(
    hetmarl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetmarl.lightning.loggers.find_spec", lambda name: None)
    code, _, err = hetmarl("train", "logger=[wandb]")
    assert code == 2
    assert "pip install" in err


def test_run_dir_that_cannot_be_written(hetmarl: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = hetmarl("train", *TINY, "run_dir=file/below")
    assert code == 2
    assert "run_dir=file/below cannot be written to" in err


def test_run_dir_of_another_run_is_kept(hetmarl: Command, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "precious").write_text("data")
    code, _, err = hetmarl("train", *TINY, "run_dir=old")
    assert code == 2
    assert "run_dir=old is not empty" in err
    assert "resume=last" in err
    assert os.listdir("old") == ["precious"]


def test_full_error_shows_the_traceback(hetmarl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FULL_ERROR, "1")
    with pytest.raises(UnknownNameError, match="Did you mean"):
        hetmarl("train", "algo.gama=1")
    assert os.environ[FULL_ERROR] == "1"


def test_hydras_variable_is_left_as_it_was(hetmarl: Command) -> None:
    hetmarl("train", "algo=hasca")
    assert FULL_ERROR not in os.environ


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'. Did you mean 'train'?"),
        (["list"], "usage: hetmarl list"),
        (["list", "task"], "cannot list 'task'. Did you mean 'tasks'?"),
        (["list", "tasks", "chetah"], "Did you mean 'halfcheetah"),
        (["doctor", "now"], "unknown environment family"),
        (["evaluate"], "expected one run directory, none is given"),
        (["evaluate", "a", "b"], "expected one run directory, 2 are given"),
        (["evaluate", "runs/x"], "runs/x does not exist"),
        (["evaluate", "runs/x", "episods=3"], "Did you mean 'episodes'?"),
        (["evaluate", "runs/x", "episodes=0"], "episodes=0: expected 1 or more"),
        (["evaluate", "runs/x", "episodes=few"], "expected a whole number"),
        (["evaluate", "--runs"], "unknown argument '--runs'"),
        (["render", "runs/x", "out=team.avi"], "expected a file ending in .mp4 or .gif"),
        (["render", "runs/x", "fps=0"], "fps=0.0: expected more than 0"),
        (["plot"], "no run is given"),
        (["plot", "runs/x"], "runs/x does not exist"),
    ],
)
def test_bad_arguments_of_the_small_commands(
    hetmarl: Command, arguments: list[str], message: str
) -> None:
    code, out, err = hetmarl(*arguments)
    assert (code, out) == (2, "")
    assert message in err
