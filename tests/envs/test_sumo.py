"""SUMO: the numbers of ``sumo_rl`` and of SUMO's trips, seeds, exact resume, pictures, training."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDictBase

from hetmarl.data.collector import can_save
from hetmarl_envs import check_team_env, list_tasks, make_env, registry
from hetmarl_envs.errors import ConfigError, MissingExtraError, UnknownNameError
from hetmarl_envs.registry import get_family
from hetmarl_envs.sumo.networks import NETWORKS, simulation_arguments

MISSING = get_family("sumo").missing()
needs_sumo = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
Make = Callable[..., Any]


@pytest.fixture
def make() -> Iterator[Make]:
    """Environments that are closed at the end: each has processes of its own."""
    made: list[Any] = []

    def one(network: str = "cologne3", **options: Any) -> Any:
        made.append(make_env(f"sumo/{network}", **{"num_seconds": 60} | options))
        return made[-1]

    yield one
    for env in made:
        if not env.is_closed:
            env.close()


@pytest.fixture
def simulate() -> Iterator[Make]:
    """``SumoSimulator`` in this process, one after the other."""
    from hetmarl_envs.sumo.simulator import SumoSimulator

    made: list[Any] = []

    def one(network: str = "cologne3", **options: Any) -> Any:
        while made:
            made.pop().close()
        made.append(SumoSimulator(simulation_arguments(network, **options)))
        return made[-1]

    yield one
    while made:
        made.pop().close()


def play(env: Any, steps: int, seed: int = 1) -> TensorDictBase:
    """Random actions, the same for a seed; ``[N, steps]``."""
    torch.manual_seed(seed)
    return env.rollout(steps, break_when_any_done=False)


# ---------------------------------------------------------------------- names and options
def test_names_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_installed", lambda name: name != "libsumo")
    with pytest.raises(
        MissingExtraError,
        match=re.escape('needs libsumo, not installed here: pip install "hetmarl[sumo]"'),
    ):
        make_env("sumo/cologne8")
    assert "sumo/cologne8" in list_tasks("sumo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta_time": 3}, "delta_time=3 must be longer than the yellow_time=3"),
        ({"num_seconds": 3605}, "num_seconds=3605 is no multiple of delta_time=10"),
        ({"min_green": 2.5}, r"min_green=2.5, expected whole seconds >= 0"),
        ({"begin_time": True}, "begin_time=True"),
        ({"time_to_teleport": -2}, "expected whole seconds >= -1"),
        ({"reward_fn": "ques"}, "reward_fn='ques'. Did you mean 'queue'"),
        ({"fixed_ts": 1}, "fixed_ts=1, expected true or false"),
        (
            {"net_file": "a.net.xml"},
            "has its own net_file and route_file; for yours take sumo/custom",
        ),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulation_arguments("cologne8", **options)


def test_an_unknown_network() -> None:
    with pytest.raises(UnknownNameError, match=r"no network 'cologne'. Did you mean 'cologne\d'"):
        simulation_arguments("cologne")
    with pytest.raises(ConfigError, match="net_file=None, expected a file"):
        simulation_arguments("custom")


@needs_sumo
def test_an_unknown_option() -> None:
    with pytest.raises(ConfigError, match=r"no option 'yellow'. Did you mean 'yellow_time'"):
        make_env("sumo/cologne8", yellow=3)


# ---------------------------------------------------------------------- what it is
@needs_sumo
def test_unequal_junctions(make: Make) -> None:
    env = make("cologne8")
    sizes = {
        (
            len(names),
            env.observation_spec[g, "observation"].shape[-1],
            env.action_spec[g, "action"].n,
        )
        for g, names in env.group_map.items()
    }
    assert sizes == {(2, 17, 4), (1, 11, 2), (1, 10, 3), (2, 12, 3), (1, 7, 2), (1, 13, 4)}
    assert env.max_steps == 6 and len(env.agent_names) == 8
    data = env.reset()
    joint = sum(data[group, "observation"].flatten(1).shape[1] for group in env.group_map)
    assert data["state"].shape == (1, joint)


@needs_sumo
@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network(make: Make, network: str) -> None:
    env = make(network, num_seconds=600)
    data = play(env, env.max_steps)["next"]
    assert data["truncated"][0, :, 0].nonzero().flatten().tolist() == [env.max_steps - 1]
    assert data["reward"].sum() < 0 and data["info", "mean_waiting_time"][0, -1] > 0
    rewards = torch.cat([data[group, "reward"] for group in env.group_map], dim=2)
    torch.testing.assert_close(data["reward"], rewards.mean(2))


@needs_sumo
def test_contract(make: Make) -> None:
    env = make(num_envs=2)
    check_team_env(env, steps=9)
    assert can_save(env)


@needs_sumo
def test_the_time_limit_truncates(make: Make) -> None:
    data = play(make(num_envs=2), 13)
    ends = data["next", "truncated"][..., 0].int()
    assert ends.tolist() == [[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]] * 2
    assert not data["next", "terminated"].any()
    assert data["info", "mean_delay"][:, 6].abs().sum() == 0, "of the new episode"


# ---------------------------------------------------------------------- the same numbers
@needs_sumo
@pytest.mark.parametrize("reward", ["queue", "diff-waiting-time"])
def test_equals_sumo_rl(make: Make, reward: str) -> None:
    """Observations and rewards of a worker's second episode, from bare ``SumoEnvironment``."""
    from hetmarl_envs.sumo.simulator import import_sumo_rl

    env = make(num_envs=2, num_seconds=600, reward_fn=reward)
    data = play(env, 60 + 40)[1, 60:]
    seed = env.runtime_state()["rows"]["envs"][1]["seed"]
    arguments = simulation_arguments("cologne3", num_seconds=600, reward_fn=reward)
    bare = import_sumo_rl().SumoEnvironment(**arguments, sumo_seed=seed, sumo_warnings=False)
    seen = bare.reset()
    try:
        for step in range(40):
            actions = {}
            for group, names in env.group_map.items():
                for index, name in enumerate(names):
                    found = data[group, "observation"][step, index].numpy()
                    assert np.array_equal(found, seen[name])
                    actions[name] = int(data[group, "action"][step, index])
            seen, rewards, _, _ = bare.step(actions)
            mean = float(np.mean([rewards[name] for name in env.agent_names]))
            assert data["next", "reward"][step, 0] == pytest.approx(mean, rel=1e-5, abs=1e-6)
    finally:
        bare.close()
    assert data["next", "reward"].abs().sum() > 0


@needs_sumo
def test_waiting_and_delay_are_those_of_the_trips(
    simulate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From SUMO's own file of trips, with those under way and those that could not enter."""
    from hetmarl_envs.sumo import simulator

    file = tmp_path / "trips.xml"
    output = f" --tripinfo-output {file} --tripinfo-output.write-unfinished"
    output += " --tripinfo-output.write-undeparted"
    monkeypatch.setattr(simulator, "_COMMAND", simulator._COMMAND + output)
    env = simulate("cologne3", num_seconds=1200)
    env.reset(seed=3)
    while env.agents:  # the lights never change: jams to the edge of the network
        *_, infos = env.step(dict.fromkeys(env.agents, 0))
    told = next(iter(infos.values()))
    outside = len(env.raw.sumo.simulation.getPendingVehicles())
    env.close()
    trips = [trip.attrib for trip in ET.parse(file).getroot()]
    entered = [trip for trip in trips if float(trip["depart"]) >= 0]
    assert outside > 0 and len(trips) >= len(entered) + outside, "some are not due yet"
    waited = np.mean([float(trip["waitingTime"]) for trip in entered])
    late = sum(float(trip["departDelay"]) for trip in trips)
    lost = sum(float(trip["timeLoss"]) for trip in entered)
    assert told["mean_waiting_time"] == pytest.approx(waited, abs=0.01)
    assert told["mean_delay"] == pytest.approx((lost + late) / (len(entered) + outside), abs=0.02)


@needs_sumo
def test_fixed_programs_ignore_actions(make: Make) -> None:
    env = make(num_seconds=300, fixed_ts=True)
    runs = []
    for seed in (1, 2):
        env.set_seed(0)
        runs.append(play(env, 30, seed)["next"])
    assert torch.equal(runs[0]["state"], runs[1]["state"])
    assert torch.equal(runs[0]["reward"], runs[1]["reward"])


@needs_sumo
def test_a_network_of_ones_own(make: Make) -> None:
    files = simulation_arguments("cologne1")
    own = {key: files[key] for key in ("net_file", "route_file")}
    env = make("custom", begin_time=25200, **own)
    assert torch.equal(play(env, 6)["next", "state"], play(make("cologne1"), 6)["next", "state"])


@needs_sumo
def test_one_simulation_per_process(simulate: Make) -> None:
    from hetmarl_envs.sumo.simulator import SumoSimulator

    simulate().reset(seed=0)
    with pytest.raises(ConfigError, match="can only have one"):
        SumoSimulator(simulation_arguments("cologne1"))


# ---------------------------------------------------------------------- seeds and resume
@needs_sumo
def test_seeds(make: Make) -> None:
    env = make(num_envs=2, num_seconds=300)
    states = []
    for seed in (7, 7, 8):
        env.set_seed(seed)
        states.append(play(env, 60)["next", "info", "mean_delay"])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert not torch.equal(states[0][0], states[0][1]), "rows have drivers of their own"
    assert not torch.equal(states[0][0, :30], states[0][0, 30:]), "and so has each episode"


@needs_sumo
def test_exact_resume(make: Make) -> None:
    first, second = make(num_envs=2, num_seconds=300), make(num_envs=2, num_seconds=300, seed=5)
    play(first, 40)
    file = io.BytesIO()
    torch.save(first.runtime_state(), file)
    file.seek(0)
    second.load_runtime_state(torch.load(file, weights_only=True))
    torch.manual_seed(2)
    random = [first.full_action_spec.rand() for _ in range(45)]
    found = []
    for env in (first, second):
        data = env._output()
        found.append([])
        for actions in random:  # through the end of this episode and the next
            stepped, data = env.step_and_maybe_reset(data.update(actions))
            found[-1].append(stepped["next"].clone())
    for one, other in zip(*found, strict=True):
        assert (one == other).all()


# ---------------------------------------------------------------------- pictures and runs
@needs_sumo
def test_render(make: Make) -> None:
    env = make(num_seconds=300)
    play(env, 20)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.shape[1:] == (640, 3)
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert {(49, 104, 163), (186, 73, 60), (60, 150, 60)} <= colours, "cars and lights"


@needs_sumo
@pytest.mark.slow
def test_a_run_logs_the_waiting_time(tmp_path: Path) -> None:
    import subprocess
    import sys

    root = Path(__file__).parents[2]
    settings = "algo=happo task=sumo/cologne3 +task.num_seconds=60 num_envs=2 total_frames=24 "
    settings += "data.rollout_steps=6 network.hidden_sizes=[8] eval.interval_frames=12 "
    settings += "eval.episodes=2 torch_threads=1"
    command = [sys.executable, str(root / "recipes/train.py"), *settings.split()]
    done = subprocess.run(
        [*command, f"run_dir={tmp_path / 'run'}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["eval/mean_waiting_time_mean"]) >= 0.0
    assert float(rows[-1]["train/mean_delay_mean"]) > 0.0
