from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from hetmarl.algorithms import HASACConfig
from hetmarl.cli.errors import group_options
from hetmarl.conf import Settings, resolve
from hetmarl.conf.schema import TrainerConfig
from hetmarl.conf.store import FILES
from hetmarl.data import ReplayDataConfig
from hetmarl.networks import (
    DeterministicNetworkConfig,
    GreedyNetworkConfig,
    NetworkConfig,
    OnPolicyNetworkConfig,
)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


# HARL's tuned HATD3 and MATD3: steps of a transition, delay. HADDPG and MADDPG: steps, gradient
# steps per vector step, exploration noise.
TUNED_TD3 = {
    **{"ant_4x2": (5, 2), "halfcheetah_2x3": (10, 2), "hopper_3x1": (5, 2)},
    **{"walker2d_2x3": (20, 8), "walker2d_6x1": (25, 2), "humanoid_17x1": (5, 2)},
}
TUNED_DDPG = {
    **{"ant_4x2": (20, 0.5, 0.05), "halfcheetah_2x3": (20, 1.0, 0.1), "hopper_3x1": (20, 1.0, 0.1)},
    **{"walker2d_2x3": (10, 1.0, 0.1), "walker2d_6x1": (20, 1.0, 0.1)},
}
DETERMINISTIC = [
    *((task, "hatd3") for task in TUNED_TD3),
    *((task, "matd3") for task in TUNED_TD3 if task != "humanoid_17x1"),
    *((task, algorithm) for task in TUNED_DDPG for algorithm in ("haddpg", "maddpg")),
]


@pytest.mark.parametrize(("task", "algorithm"), DETERMINISTIC)
def test_tuned_deterministic(settings: Compose, task: str, algorithm: str) -> None:
    found = settings(f"+experiment=mamujoco/{task}_{algorithm}")
    train = found.train
    assert (found.algorithm.name, train.task.name) == (algorithm, f"mamujoco/{task}")
    assert train.task.options == {"observability": "full"}
    expected = {"gamma": 0.99, "polyak": 0.005, "batch_size": 1000, "max_grad_norm": None}
    expected |= {"actor_lr": 5e-4, "critic_lr": 1e-3, "sequence_length": 20, "burn_in": 10}
    expected["allow_shared_sequential"] = False
    if "td3" in algorithm:
        steps, delay = TUNED_TD3[task]
        updates, noise = 1.0, 0.1
        expected |= {"policy_noise": 0.2, "noise_clip": 0.5, "policy_delay": delay}
    else:
        steps, updates, noise = TUNED_DDPG[task]
    expected |= {"n_step": steps, "updates_per_step": updates}
    assert asdict(train.algo) == expected
    assert (train.num_envs, train.total_frames) == (10, 10_000_000)
    assert (train.data.warmup_frames, train.data.buffer_size) == (10_000, 1_000_000)
    assert train.network == DeterministicNetworkConfig(
        [256, 256], "relu", "tanh", exploration_noise=noise
    )


MEHAML: dict[str, dict[str, Any]] = {
    "hasac_kl": {"step_size": 10.0, "kl_direction": "new_old"},
    "hasac_ball": {"radius": 0.1},
}


@pytest.mark.parametrize("algorithm", MEHAML)
def test_members_of_mehaml_take_hasacs_settings(settings: Compose, algorithm: str) -> None:
    plain, train = (
        settings(f"+experiment=mamujoco/halfcheetah_2x3_{name}").train
        for name in ("hasac", algorithm)
    )
    own = {"old_interval": 50, **MEHAML[algorithm]}
    assert asdict(train.algo) == asdict(plain.algo) | own
    for section in ("task", "data", "network", "eval", "num_envs", "total_frames"):
        assert getattr(train, section) == getattr(plain, section)


# HARL's tuned settings: learning rate, passes, minibatches, clip, entropy, decay; HATRPO's radius;
# HAA2C's learning rate, passes, decay.
TUNED_PPO = {
    "ant_4x2": (5e-4, 5, 1, 0.1, 0.0, False),
    "halfcheetah_2x3": (5e-4, 15, 1, 0.05, 0.01, False),
    "hopper_3x1": (5e-4, 10, 1, 0.05, 0.0, True),
    "walker2d_2x3": (1e-3, 5, 2, 0.05, 0.0, True),
    "walker2d_6x1": (5e-4, 5, 1, 0.1, 0.01, False),
    "humanoid_17x1": (5e-4, 5, 1, 0.1, 0.0, True),
}
TUNED_TRPO = {
    **{"ant_4x2": 0.005, "halfcheetah_2x3": 0.01, "hopper_3x1": 0.001},
    **{"walker2d_2x3": 0.01, "walker2d_6x1": 0.005},
}
TUNED_A2C = {
    **{"ant_4x2": (5e-4, 5), "halfcheetah_2x3": (5e-4, 5), "hopper_3x1": (1e-4, 3)},
    **{"walker2d_2x3": (1e-4, 5), "walker2d_6x1": (1e-4, 5)},
}
COMMON = {"gamma": 0.99, "gae_lambda": 0.95, "max_grad_norm": 10.0, "huber_delta": 10.0}


def on_policy(settings: Compose, experiment: str, algorithm: str, task: str) -> dict[str, Any]:
    """The algorithm's settings, after checking what all of HARL's have in common."""
    found = settings(f"+experiment={experiment}")
    train = found.train
    assert (found.algorithm.name, train.task.name) == (algorithm, f"mamujoco/{task}")
    assert train.task.options == {"observability": "full"}
    assert (train.num_envs, train.total_frames) == (20, 10_000_000)
    steps = 100 if (algorithm, task) == ("mappo", "humanoid_17x1") else 200
    assert train.data.rollout_steps == steps
    sharing = "full" if algorithm == "mappo" else "none"
    assert train.network == OnPolicyNetworkConfig(hidden_sizes=[128] * 3, sharing=sharing)
    values = asdict(train.algo)
    assert {key: values[key] for key in COMMON} == COMMON and values["value_norm"] is True
    return values


@pytest.mark.parametrize("algorithm", ["happo", "mappo"])
@pytest.mark.parametrize("task", TUNED_PPO)
def test_tuned_happo_and_mappo(settings: Compose, task: str, algorithm: str) -> None:
    lr, epochs, minibatches, clip, entropy, decay = TUNED_PPO[task]
    values = on_policy(settings, f"mamujoco/{task}_{algorithm}", algorithm, task)
    expected = {"actor_lr": lr, "critic_lr": lr, "epochs": epochs, "critic_epochs": epochs}
    expected |= {"minibatches": minibatches, "critic_minibatches": minibatches}
    expected |= {"clip_epsilon": clip, "value_clip": clip, "entropy_coef": entropy}
    expected |= {"lr_decay": decay}
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize("task", TUNED_TRPO)
def test_tuned_hatrpo(settings: Compose, task: str) -> None:
    values = on_policy(settings, f"mamujoco/{task}_hatrpo", "hatrpo", task)
    assert values["delta"] == TUNED_TRPO[task]
    assert (values["critic_lr"], values["critic_epochs"]) == (5e-4, 5)
    assert (values["critic_minibatches"], values["value_clip"]) == (1, 0.2)
    search = {"cg_iterations": 10, "cg_tolerance": 1e-10, "damping": 0.1, "backtracks": 10}
    assert values["search"] == search | {"decay": 0.8, "accept_ratio": 0.5}


@pytest.mark.parametrize("task", TUNED_A2C)
def test_tuned_haa2c(settings: Compose, task: str) -> None:
    lr, epochs = TUNED_A2C[task]
    values = on_policy(settings, f"mamujoco/{task}_haa2c", "haa2c", task)
    assert (values["actor_lr"], values["epochs"], values["lr_decay"]) == (lr, epochs, True)
    assert (values["critic_lr"], values["critic_epochs"]) == (lr, epochs)
    assert (values["minibatches"], values["critic_minibatches"]) == (1, 1)
    assert (values["entropy_coef"], values["value_clip"]) == (0.0, 0.1)


@pytest.mark.parametrize("task", ["halfcheetah_2x3", "ant_4x2", "walker2d_2x3"])
def test_hamdpo(settings: Compose, task: str) -> None:
    values = on_policy(settings, f"mamujoco/{task}_hamdpo", "hamdpo", task)
    assert (values["step_size"], values["step_size_anneal"]) == (1.0, True)
    assert (values["kl_direction"], values["entropy_coef"]) == ("new_old", 0.0)
    assert (values["epochs"], values["minibatches"], values["actor_lr"]) == (10, 1, 5e-4)
    assert (values["critic_epochs"], values["critic_minibatches"]) == (10, 1)
    assert (values["critic_lr"], values["lr_decay"]) == (5e-4, False)


def test_hamdpo_as_its_authors_ran_it(settings: Compose) -> None:
    train = settings("+experiment=mamujoco/ant_2x4_hamdpo_authors").train
    expected = {"actor_lr": 5e-5, "critic_lr": 5e-4, "epochs": 10, "minibatches": 40}
    expected |= {"kl_direction": "old_new", "step_size": 1.0, "step_size_anneal": True}
    expected |= {"critic_epochs": 10, "critic_minibatches": 40}
    assert {key: asdict(train.algo)[key] for key in expected} == expected
    assert (train.task.name, train.num_envs) == ("mamujoco/ant_2x4", 8)
    assert train.task.options == {"observability": "full"}
    assert (train.data.rollout_steps, train.network.hidden_sizes) == (1000, [128] * 3)


@pytest.mark.parametrize("algorithm", ["happo", "hatrpo", "haa2c", "hamdpo", "mappo"])
@pytest.mark.parametrize("task", ["balance", "navigation", "simple_spread"])
def test_vmas_starts_from_the_settings_for_mpe(
    settings: Compose, task: str, algorithm: str
) -> None:
    found = settings(f"+experiment=vmas/{task}_{algorithm}")
    train, values = found.train, asdict(found.train.algo)
    assert (found.algorithm.name, train.task.name) == (algorithm, f"vmas/{task}")
    assert (train.num_envs, train.data.rollout_steps, train.total_frames) == (60, 100, 3_000_000)
    sharing = "full" if algorithm == "mappo" else "none"
    assert train.network == OnPolicyNetworkConfig(hidden_sizes=[128, 128], sharing=sharing)
    expected = {"critic_lr": 5e-4, "critic_epochs": 5, "critic_minibatches": 1, "lr_decay": False}
    if algorithm != "hatrpo":
        expected |= {"actor_lr": 5e-4, "epochs": 5, "minibatches": 1}
    own = {"happo": {"clip_epsilon": 0.2, "entropy_coef": 0.01}, "hatrpo": {"delta": 0.005}}
    own["mappo"] = own["happo"]
    own |= {"haa2c": {"entropy_coef": 0.01}, "hamdpo": {"step_size": 1.0}}
    expected |= own[algorithm] | {"value_clip": 0.2}
    assert {key: values[key] for key in expected} == expected


def test_spread_on_policy(settings: Compose) -> None:
    found = settings("+experiment=mpe/simple_spread_happo")
    train = found.train
    assert (found.algorithm.name, train.task.name) == ("happo", "mpe/simple_spread")
    assert train.task.options == {"continuous_actions": False}
    assert (train.num_envs, train.data.rollout_steps, train.total_frames) == (20, 200, 10_000_000)
    assert train.network == OnPolicyNetworkConfig(hidden_sizes=[128, 128])
    expected = {"actor_lr": 5e-4, "critic_lr": 5e-4, "epochs": 5, "critic_epochs": 5}
    expected |= {"minibatches": 1, "critic_minibatches": 1, "clip_epsilon": 0.2}
    expected |= {"value_clip": 0.2, "entropy_coef": 0.01}
    assert {key: asdict(train.algo)[key] for key in expected} == expected


SPREAD: dict[str, dict[str, Any]] = {
    "hasac": {"gamma": 0.99, "n_step": 20, "actor_lr": 5e-4, "critic_lr": 5e-4, "auto_alpha": True}
    | {"alpha": 1.0, "alpha_lr": 3e-4, "target_entropy_choices": 0.0},
    "had3qn": {"gamma": 0.95, "n_step": 1, "actor_lr": 5e-4, "critic_lr": 1e-3}
    | {"epsilon": 0.05, "epsilon_final": 0.05},
}


@pytest.mark.parametrize("algorithm", SPREAD)
def test_discrete_spread_off_policy(settings: Compose, algorithm: str) -> None:
    found = settings(f"+experiment=mpe/simple_spread_{algorithm}")
    train = found.train
    assert (found.algorithm.name, train.task.name) == (algorithm, "mpe/simple_spread")
    assert train.task.options == {"continuous_actions": False}
    common = {"batch_size": 1000, "polyak": 0.005, "updates_per_step": 1.0, "max_grad_norm": None}
    expected = SPREAD[algorithm] | common
    assert {key: asdict(train.algo)[key] for key in expected} == expected
    assert (train.num_envs, train.total_frames) == (20, 10_000_000)
    assert (train.data.warmup_frames, train.data.buffer_size) == (10_000, 1_000_000)
    network: NetworkConfig = GreedyNetworkConfig([128, 128, 128])
    if algorithm == "hasac":
        network = NetworkConfig([256, 256], "relu", None)
    assert train.network == network


def test_traffic(settings: Compose) -> None:
    train = settings("+experiment=sumo/cologne8_happo").train
    assert (train.task.name, train.task.options) == ("sumo/cologne8", {})
    expected = {"gamma": 0.95, "gae_lambda": 0.9, "epochs": 8, "minibatches": 2, "actor_lr": 7e-4}
    assert {key: asdict(train.algo)[key] for key in expected} == expected
    assert train.num_envs * train.data.rollout_steps == 720, "two episodes of an hour"


BATTLES = {"smax/3s5z": ("ally", 32), "smacv2/3s5z": ("agent", 16)}
BATTLES["smacv2/terran_5_vs_5"] = ("agent", 16)


def sets_of(task: str, unit: str) -> list[list[str]]:
    """The units of a kind, or, where kinds are drawn, any two and the others."""
    first, last = (3, 8) if "3s5z" in task else (2, 5)
    return [[f"{unit}_{i}" for i in group] for group in (range(first), range(first, last))]


@pytest.mark.parametrize("algorithm", ["happo", "hatrpo", "hamdpo", "mappo"])
@pytest.mark.parametrize("task", BATTLES)
def test_battles(settings: Compose, task: str, algorithm: str) -> None:
    unit, num_envs = BATTLES[task]
    found = settings(f"+experiment={task}_{algorithm}")
    train, values = found.train, asdict(found.train.algo)
    assert (found.algorithm.name, train.task.name) == (algorithm, task)
    frames = 500_000 if "3s5z" in task else 400_000
    assert (train.num_envs, train.data.rollout_steps, train.total_frames) == (num_envs, 64, frames)
    sharing = "full" if algorithm == "mappo" else sets_of(task, unit)
    drawn = "3s5z" not in task  # kinds and places of units, anew for each episode
    assert train.network == OnPolicyNetworkConfig(
        hidden_sizes=[128, 128], sharing=sharing, agent_id=not drawn, entities=drawn
    )
    assert values["allow_shared_sequential"] == (algorithm != "mappo")
    expected = {"critic_lr": 1e-3, "critic_epochs": 4, "critic_minibatches": 1}
    expected |= {"lr_decay": drawn and algorithm != "mappo"}
    if algorithm == "hatrpo":
        expected |= {"delta": 0.03}
    else:
        expected |= {"actor_lr": 1e-3, "epochs": 4, "minibatches": 1, "entropy_coef": 0.01}
    if algorithm == "hamdpo":
        expected |= {"step_size": 1.0, "step_size_anneal": False}
    assert {key: values[key] for key in expected} == expected


def test_battles_of_units_drawn_anew(settings: Compose) -> None:
    drawn = settings("+experiment=smax/smacv2_5_units_mappo").train
    listed = settings("+experiment=smax/3s5z_mappo").train
    assert (drawn.task.name, drawn.num_envs) == ("smax/smacv2_5_units", 32)
    assert drawn.total_frames == 500_000
    assert drawn.network == replace(listed.network, agent_id=False, entities=True)
    assert (drawn.algo, drawn.data, drawn.eval) == (listed.algo, listed.data, listed.eval)


OFF_POLICY_BATTLES = [(task, "hasac") for task in BATTLES]
OFF_POLICY_BATTLES += [(task, "hatd3") for task in BATTLES if "3s5z" in task]


@pytest.mark.parametrize(("task", "algorithm"), OFF_POLICY_BATTLES)
def test_battles_off_policy(settings: Compose, task: str, algorithm: str) -> None:
    unit, _ = BATTLES[task]
    found = settings(f"+experiment={task}_{algorithm}")
    train, values = found.train, asdict(found.train.algo)
    assert (found.algorithm.name, train.task.name) == (algorithm, task)
    drawn = "3s5z" not in task  # kinds and places of units, anew for each episode
    assert (train.num_envs, train.total_frames) == (16, 300_000)
    buffer_size = 150_000 if drawn else 200_000
    assert (train.data.warmup_frames, train.data.buffer_size) == (3_200, buffer_size)
    network, rate = train.network, 5e-4 if drawn else 1e-3
    assert (network.hidden_sizes, network.agent_id) == ([128, 128], not drawn)
    assert (network.entities, network.entity_size) == (drawn, 32 if drawn else 64)
    assert network.sharing == sets_of(task, unit)
    expected = {"n_step": 5, "batch_size": 256, "actor_lr": rate, "critic_lr": rate}
    expected |= {"updates_per_step": 4.0 if drawn else 2.0, "allow_shared_sequential": True}
    if algorithm == "hasac":
        expected |= {"alpha": 0.01 if task == "smax/3s5z" else 0.05, "exact_choices": False}
        expected |= {"target_entropy_choices": 0.1 if drawn else 0.05}
    assert {key: values[key] for key in expected} == expected


def test_every_experiment_is_pinned() -> None:
    """No overlay without a line in the tests above."""
    here = {path.relative_to(FILES / "experiment") for path in FILES.rglob("experiment/**/*.yaml")}
    names = [f"mamujoco/{t}_hasac" for t in PUBLISHED]
    names += [f"mamujoco/{t}_{a}" for t, a in DETERMINISTIC]
    names += [f"mamujoco/halfcheetah_2x3_{algorithm}" for algorithm in MEHAML]
    names += [f"mamujoco/{t}_{a}" for t in TUNED_PPO for a in ("happo", "mappo")]
    names += [f"mamujoco/{t}_hatrpo" for t in TUNED_TRPO] + [
        f"mamujoco/{t}_haa2c" for t in TUNED_A2C
    ]
    names += [f"mamujoco/{t}_hamdpo" for t in ("halfcheetah_2x3", "ant_4x2", "walker2d_2x3")]
    algorithms = ("happo", "hatrpo", "haa2c", "hamdpo", "mappo")
    names += [
        f"vmas/{t}_{a}" for t in ("balance", "navigation", "simple_spread") for a in algorithms
    ]
    names.append("mamujoco/ant_2x4_hamdpo_authors")
    names += [f"mpe/simple_spread_{a}" for a in ("happo", *SPREAD)]
    names += ["sumo/cologne8_happo", "smax/smacv2_5_units_mappo"]
    names += [f"{t}_{a}" for t in BATTLES for a in ("happo", "hatrpo", "hamdpo", "mappo")]
    names += [f"{t}_{a}" for t, a in OFF_POLICY_BATTLES]
    assert {str(path.with_suffix("")) for path in here} == set(names)


def test_the_command_line_wins_over_an_experiment(settings: Compose) -> None:
    train = settings("+experiment=mamujoco/ant_2x4_hasac", "algo.n_step=7", "num_envs=4").train
    assert (train.algo.n_step, train.num_envs) == (7, 4)
