"""A user's own environment, algorithm and network, from their own directory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from hetmarl.algorithms import registry as algorithms
from hetmarl_envs import registry as environments

from .conftest import TINY, Outcome

Command = Callable[..., Outcome]
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SHORT = [argument for argument in TINY if not argument.startswith("task")]


@pytest.fixture(autouse=True)
def _registries_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(environments, "_families", dict(environments._families))
    monkeypatch.setattr(algorithms, "_algorithms", dict(algorithms._algorithms))
    yield
    for group in ("algo", "task", "schema"):
        ConfigStore.instance().repo.pop(group, None)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration directory beside the recipes that the documentation shows."""
    monkeypatch.syspath_prepend(str(RECIPES))
    files = {
        "task/meeting.yaml": "_target_: custom_env.make\nname: meeting/plane\nmax_steps: 10\n",
        "algo/drifting.yaml": "_target_: maximum_entropy_drift.ENTRY\nweight: 0.25\n",
        "algo/tsallis.yaml": "_target_: custom_algorithm.ENTRY\nweight: 0.1\n",
        "algo/hasac_far.yaml": "defaults: [hasac]\nalgo:\n  gamma: 0.999\n",
        "network/wide.yaml": "defaults: [mlp]\nhidden_sizes: [12, 12]\n",
        "experiment/small.yaml": "# @package _global_\ndefaults:\n  - override /network: wide\n"
        "seed: 5\n",
    }
    files["algo/hasac_far.yaml"] = "# @package _global_\n" + files["algo/hasac_far.yaml"]
    for name, text in files.items():
        file = tmp_path / "my_conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "my_conf"


@pytest.mark.slow
def test_environment_and_algorithm_by_import_path(hetmarl: Command, own: Path) -> None:
    mine = ["--config-dir", "my_conf", "task=meeting", "algo=drifting", "+experiment=small"]
    code, _, err = hetmarl("train", *mine, *SHORT, "task.max_steps=8", "run_dir=a")
    assert code == 0, err
    config = OmegaConf.load("a/config.yaml")
    assert config.task == {"_target_": "custom_env.make", "name": "meeting/plane", "max_steps": 8}
    assert (config.algo._target_, config.algo.weight) == ("maximum_entropy_drift.ENTRY", 0.25)
    assert (config.seed, config.network.hidden_sizes) == (5, [8])

    code, out, err = hetmarl("evaluate", "a", "episodes=2")
    assert code == 0, err
    assert '"task": "meeting/plane"' in out
    code, out, err = hetmarl("train", "resume=a", "total_frames=1000", "algo.weight=0.5")
    assert code == 0, err
    assert "Changed: total_frames=1000 (was 800)" in out
    assert "Changed: algo.weight=0.5 (was 0.25)" in out


@pytest.mark.slow
def test_a_task_by_the_name_of_its_module(hetmarl: Command, own: Path) -> None:
    """Nothing is registered, no file of configuration: ``task=<module>/<task>``."""
    given = ["task=custom_env/plane", "+task.max_steps=8"]
    code, _, err = hetmarl("train", *given, *SHORT, "run_dir=b")
    assert code == 0, err
    assert OmegaConf.load("b/config.yaml").task == {"name": "custom_env/plane", "max_steps": 8}
    code, out, err = hetmarl("evaluate", "b", "episodes=2")
    assert code == 0, err
    assert '"task": "custom_env/plane"' in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["algo=drifting", "algo.wieght=1"], "Did you mean 'algo.weight'?"),
        (["algo=drifting", "algo.weight=far"], "algo.weight='far': expected a number"),
        (["algo=drfting"], "Did you mean 'drifting'?"),
        (["task=meetin"], "Did you mean 'meeting'?"),
        (["+experiment=smal"], "Did you mean 'small'?"),
        (["algo=drifting", "algo._target_=maximum_entropy_drift.ENTY"], "Did you mean 'ENTRY'?"),
        (["algo=drifting", "algo._target_=no_module.ENTRY"], "No module named 'no_module'"),
        (
            ["algo=drifting", "algo._target_=maximum_entropy_drift.HASACJeffreys"],
            "expected a hetmarl.algor",
        ),
        (["algo=drifting", "algo._target_=ENTRY"], "expected 'package.module.name'"),
    ],
)
def test_mistakes_in_own_parts(
    hetmarl: Command, own: Path, arguments: list[str], message: str
) -> None:
    code, _, err = hetmarl("train", "--config-dir=my_conf", *arguments)
    assert code == 2
    assert message in err


def test_an_overlay_of_ours_keeps_its_data(hetmarl: Command, own: Path) -> None:
    given = ["train", "--config-dir", "my_conf", "algo=hasac_far", "network=wide", "--cfg", "job"]
    code, out, err = hetmarl(*given)
    assert code == 0, err
    config = OmegaConf.create(out)
    assert (config.algo.name, config.algo.gamma) == ("hasac", 0.999)
    assert config.data.buffer_size == 1_000_000
    assert config.network.hidden_sizes == [12, 12]
    assert config.network.activation == "relu"


@pytest.mark.slow
def test_an_on_policy_algorithm_gets_rollouts(hetmarl: Command, own: Path) -> None:
    given = ["--config-dir=my_conf", "algo=tsallis", "algo.order=1.5", "task=games/mixed"]
    small = ["num_envs=4", "data.rollout_steps=4", "total_frames=32", "network.hidden_sizes=[8]"]
    few = ["eval.interval_frames=32", "eval.episodes=2", "torch_threads=1", "run_dir=c"]
    code, _, err = hetmarl("train", *given, *small, *few)
    assert code == 0, err
    config = OmegaConf.load("c/config.yaml")
    assert (config.algo.weight, config.algo.order) == (0.1, 1.5)
    header = Path("c/metrics.csv").read_text().splitlines()[0]
    assert "train/drift/agent_0" in header.split(",")


def test_registered_parts_are_options(hetmarl: Command, own: Path) -> None:
    import custom_env
    import maximum_entropy_drift

    environments.register_family(custom_env.FAMILY)
    algorithms.register_algorithm(maximum_entropy_drift.ENTRY, replace=True)
    task, algo = (
        environments.list_tasks(custom_env.FAMILY.name)[0],
        maximum_entropy_drift.ENTRY.name,
    )
    code, out, err = hetmarl("train", f"task={task}", f"algo={algo}", "--cfg", "job")
    assert code == 0, err
    config = OmegaConf.create(out)
    assert (config.task.name, config.algo.name) == (task, algo)
    assert "weight" in config.algo
    assert "warmup_frames" in config.data
    assert algo in hetmarl("list", "algos").out
    assert task in hetmarl("list", "tasks").out


@pytest.mark.slow
def test_an_environment_that_breaks_the_contract(hetmarl: Command, tmp_path: Path) -> None:
    (tmp_path / "broken_env.py").write_text(
        "from torchrl.envs import PendulumEnv\n\n\n"
        "def make(*, num_envs, seed, device):\n    return PendulumEnv()\n"
    )
    given = ["task=vmas/balance", "+task._target_=broken_env.make", "task.name=broken/one"]
    code, _, err = hetmarl("train", *given)
    assert code == 2
    assert err == (
        "hetmarl: batch_size is [], expected [num_envs] with num_envs >= 1. Wrap a single "
        "environment in torchrl.envs.SerialEnv or ParallelEnv.\n"
    )
    code, _, err = hetmarl("train", *given, "task.szie=3")
    assert code == 2
    assert "broken_env.make: got an unexpected keyword argument 'szie'" in err
