from collections.abc import Callable
from dataclasses import asdict

import pytest

from hetmarl.algorithms import HASACConfig
from hetmarl.cli.errors import group_options
from hetmarl.conf import Settings, resolve
from hetmarl.conf.schema import TrainerConfig
from hetmarl.data import ReplayDataConfig
from hetmarl.networks import NetworkConfig
from hetmarl_envs.errors import ConfigError, HetmarlError, UnknownNameError
from hetmarl_envs.registry import list_tasks

Compose = Callable[..., Settings]


def test_defaults_are_the_dataclasses(settings: Compose) -> None:
    train = settings().train
    assert train.task.name == "mamujoco/halfcheetah_2x3"
    assert isinstance(train.algo, HASACConfig)
    assert isinstance(train.data, ReplayDataConfig)
    assert train.network == NetworkConfig()
    assert train.trainer == TrainerConfig()
    assert train.logger == ["csv"]


def test_every_documented_key_is_set_from_the_command_line(settings: Compose) -> None:
    train = settings(
        "algo=hasac",
        "task=vmas/simple_speaker_listener",
        "seed=3",
        "total_frames=1e6",
        "num_envs=8",
        "run_dir=runs/x",
        "resume=last",
        "eval.interval_frames=5_000",
        "eval.episodes=4",
        "checkpoint.interval_frames=2_500",
        "logger=[csv,tensorboard]",
        "logger_options.tensorboard.flush_secs=3",
        "trainer.devices=2",
        "trainer.max_time=00:01:00:00",
        "trainer.extra.limit_train_batches=3",
        "data.warmup_frames=100",
        "network.hidden_sizes=[64]",
        "algo.gamma=0.9",
        "torch_threads=1",
    ).train
    assert train.task.name == "vmas/simple_speaker_listener"
    assert (train.seed, train.total_frames, train.num_envs) == (3, 1_000_000, 8)
    assert type(train.total_frames) is int
    assert (train.run_dir, train.resume) == ("runs/x", "last")
    assert (train.eval.interval_frames, train.eval.episodes) == (5000, 4)
    assert train.checkpoint.interval_frames == 2500
    assert train.logger == ["csv", "tensorboard"]
    assert train.logger_options == {"tensorboard": {"flush_secs": 3}}
    assert (train.trainer.devices, train.trainer.max_time) == (2, "00:01:00:00")
    assert train.trainer.extra == {"limit_train_batches": 3}
    assert train.data.warmup_frames == 100
    assert train.network.hidden_sizes == [64]
    assert (train.algo.gamma, train.torch_threads) == (0.9, 1)


def test_saved_settings_come_back_equal(settings: Compose) -> None:
    original = settings("task.agent_obsk=0", "algo.n_step=3", "trainer.extra.x=1", "logger=csv")
    again = resolve(original.to_dict())
    assert again == original
    assert again.to_dict() == original.to_dict()


def test_every_listed_task_is_an_option(settings: Compose) -> None:
    tasks = list_tasks()
    for task in tasks[:: len(tasks) // 4]:
        assert settings(f"task={task}").train.task.name == task
    assert set(tasks) <= set(group_options("task"))


def test_a_task_that_is_valid_but_not_listed(settings: Compose) -> None:
    task = "mamujoco/manysegmentswimmer_3x3"
    assert task not in list_tasks()
    assert settings(f"task={task}").train.task.name == task


def test_task_options_are_the_familys_own(settings: Compose) -> None:
    task = settings("task=vmas/balance", "task.n_agents=4", "task.nested.deep=1").train.task
    assert task.options == {"n_agents": 4, "nested": {"deep": 1}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algo.gama=0.9", "unknown key 'algo.gama'. Did you mean 'algo.gamma'?"),
        ("data.gamma=0.9", "unknown key 'data.gamma'. Did you mean 'algo.gamma'?"),
        ("eval.interval=3", "Did you mean 'eval.interval_frames'?"),
        ("trainer.device=2", "Did you mean 'trainer.devices'?"),
        ("network.hiden_sizes=[3]", "Did you mean 'network.hidden_sizes'?"),
        ("+sed=3", "unknown key 'sed'. Did you mean 'seed'?"),
        ("+gamma=3", "unknown key 'gamma'. Did you mean 'algo.gamma'?"),
        ("trainer.overfit_batches=1", "trainer.extra.overfit_batches"),
        ("algo.gamma=high", "algo.gamma='high': expected a number"),
        ("algo.gamma=1.5", "algo.gamma=1.5: expected 0 < gamma <= 1"),
        ("num_envs=0", "num_envs=0: expected 1 or more"),
        ("num_envs=2.5", "num_envs=2.5: expected a whole number"),
        ("num_envs=many", "num_envs='many': expected a whole number"),
        ("seed=-1", "seed=-1: expected 0 or more"),
        ("seed=4294967296", "expected less than 2**32"),
        ("total_frames=0", "total_frames=0: expected 1 or more"),
        ("eval.interval_frames=0", "eval.interval_frames=0: expected 1 or more"),
        ("eval.episodes=0", "eval.episodes=0: expected 1 or more"),
        ("checkpoint.interval_frames=0", "checkpoint.interval_frames=0: expected 1 or more"),
        ("trainer.devices=0", "trainer.devices=0: expected 1 or more, or -1 for all"),
        ("trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0: expected 1 or more"),
        ("torch_threads=0", "torch_threads=0: expected 1 or more"),
        ("data.warmup_frames=-1", "data.warmup_frames=-1"),
        ("network.activation=rellu", "Did you mean 'relu'?"),
        ("task.num_envs=3", "task.num_envs is not a setting of the task: set num_envs"),
        ("task.device=cpu", "set trainer.accelerator"),
        ("resume=true", "resume=True: expected a text or null"),
        ("logger=3", "logger=3: expected a list"),
    ],
)
def test_bad_settings(settings: Compose, override: str, message: str) -> None:
    with pytest.raises(HetmarlError) as caught:
        settings(override)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_parts_that_are_missing_altogether() -> None:
    with pytest.raises(ConfigError, match="no algorithm is set"):
        resolve({})
    with pytest.raises(ConfigError, match="no task is set"):
        resolve({"algo": {"name": "hasac"}})
    with pytest.raises(UnknownNameError, match="Did you mean 'hasac'"):
        resolve({"algo": {"name": "hasca"}})
    with pytest.raises(ConfigError, match="algo='hasac': expected keys of its own"):
        resolve({"algo": "hasac"})


PUBLISHED = {
    "halfcheetah_2x3": {"actor_lr": 1e-3, "critic_lr": 1e-3, "n_step": 10, "batch_size": 1000}
    | {"auto_alpha": True, "alpha": 1.0, "alpha_lr": 3e-4},
    "ant_2x4": {"actor_lr": 1e-3, "critic_lr": 3e-4, "n_step": 5, "batch_size": 2200}
    | {"auto_alpha": False, "alpha": 0.2},
    "walker2d_2x3": {"actor_lr": 5e-4, "critic_lr": 1e-3, "n_step": 20, "batch_size": 1000}
    | {"auto_alpha": False, "alpha": 0.2},
}


@pytest.mark.parametrize("task", PUBLISHED)
def test_experiments_are_the_published_settings(settings: Compose, task: str) -> None:
    train = settings(f"+experiment=mamujoco/{task}_hasac").train
    assert train.task.name == f"mamujoco/{task}"
    assert train.task.options == {"observability": "full"}
    common = {"gamma": 0.99, "polyak": 0.005, "updates_per_step": 1.0, "max_grad_norm": None}
    expected = PUBLISHED[task] | common
    assert {key: asdict(train.algo)[key] for key in expected} == expected
    assert (train.num_envs, train.total_frames) == (20, 10_000_000)
    assert (train.data.warmup_frames, train.data.buffer_size) == (10_000, 1_000_000)
    assert train.network == NetworkConfig([256, 256], "relu", "tanh")


def test_the_command_line_wins_over_an_experiment(settings: Compose) -> None:
    train = settings("+experiment=mamujoco/ant_2x4_hasac", "algo.n_step=7", "num_envs=4").train
    assert (train.algo.n_step, train.num_envs) == (7, 4)
