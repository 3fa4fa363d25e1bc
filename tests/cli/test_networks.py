"""Networks from the command line: one agent's own, shared ones, and who is alike."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hetmarl.checkpoint import load_policy
from hetmarl.cli import train

from .conftest import Outcome
from .test_processes import COMMAND, run

Command = Callable[..., Outcome]
TINY = [
    "task=mamujoco/hopper_3x1",
    "task.max_episode_steps=20",
    "num_envs=4",
    "total_frames=160",
    "data.rollout_steps=20",
    "network.hidden_sizes=[8]",
    "eval.interval_frames=80",
    "eval.episodes=2",
    "torch_threads=1",
]
SEPS = ["network.sharing=seps", "network.seps.frames=80", "network.seps.clusters=2"]


@pytest.mark.slow
def test_one_agents_memory_and_the_critics_sizes(hetmarl: Command) -> None:
    own = ["network.agents.agent_1.memory=gru", "network.critic.hidden_sizes=[6,6]"]
    code, _, err = hetmarl("train", "algo=happo", *TINY, *own, "run_dir=a")
    assert code == 0, err
    config = OmegaConf.load("a/config.yaml").network
    assert config.agents == {"agent_1": {"memory": "gru"}}
    assert config.critic == {"hidden_sizes": [6, 6]}
    assert load_policy("a").recurrent == [1]
    assert hetmarl("evaluate", "a", "episodes=1").code == 0
    code, out, err = hetmarl("train", "run_dir=a", "resume=last", "total_frames=240", *own)
    assert code == 0, err
    assert out.count("Changed:") == 1


@pytest.mark.slow
@pytest.mark.parametrize("form", ["network=gru", "network.memory=gru", "network=lstm"])
def test_memories_for_all(hetmarl: Command, form: str) -> None:
    code, _, err = hetmarl("train", "algo=mappo", *TINY, form, "run_dir=a", "total_frames=80")
    assert code == 0, err
    assert OmegaConf.load("a/config.yaml").network.memory == form.partition("=")[2]
    assert load_policy("a").recurrent == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sharing", "units"),
    [("full", [[0, 1, 2]]), ("[[agent_0,agent_2],[agent_1]]", [[0, 2], [1]])],
)
def test_shared_parameters(hetmarl: Command, sharing: str, units: list[list[int]]) -> None:
    given = [f"network.sharing={sharing}", "run_dir=a", "total_frames=80"]
    code, _, err = hetmarl("train", "algo=ippo", *TINY, *given)
    assert code == 0, err
    assert load_policy("a").units == units


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "sharing"),
    [
        ("masac", ["network.sharing=[[agent_0,agent_2],[agent_1]]"]),
        ("matd3", ["network.seps.frames=80", "network.seps.clusters=2", "network.sharing=seps"]),
        ("hatd3", ["network.sharing=full", "algo.allow_shared_sequential=true"]),
    ],
)
def test_shared_parameters_off_policy(hetmarl: Command, algorithm: str, sharing: list[str]) -> None:
    tiny = [*TINY[:4], *TINY[5:], "data.warmup_frames=40", "data.buffer_size=400"]
    tiny += ["data.frames_per_batch=40", "algo.batch_size=16"]
    code, out, err = hetmarl("train", f"algo={algorithm}", *tiny, *sharing, "run_dir=a")
    assert code == 0, err
    units = load_policy("a").units
    assert len(units) < 3 and sorted(i for unit in units for i in unit) == [0, 1, 2]
    assert ("Agents that share parameters" in out) == (algorithm == "matd3")
    assert hetmarl("evaluate", "a", "episodes=1").code == 0
    code, _, err = hetmarl("train", "run_dir=a", "resume=last", "total_frames=240")
    assert code == 0, err


@pytest.mark.slow
def test_who_is_alike_is_found_once(hetmarl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = hetmarl("train", "algo=mappo", *TINY, *SEPS, "run_dir=a")
    assert code == 0, err
    config = OmegaConf.load("a/config.yaml").network
    assert config.sharing == "seps"
    sets = OmegaConf.to_container(config.seps.sets)
    assert len(sets) == 2
    assert "Agents that share parameters: " + "; ".join(", ".join(s) for s in sets) in out
    positions = [sorted(int(name[-1]) for name in names) for names in sets]
    assert load_policy("a").units == sorted(positions)

    code, _, err = hetmarl("train", "algo=mappo", *TINY, *SEPS, "run_dir=b", "total_frames=80")
    assert code == 0, err
    assert OmegaConf.load("b/config.yaml").network.seps.sets == sets

    def never(*_: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(train, "selective_sharing", never)
    more = ["run_dir=a", "resume=last"]
    code, _, err = hetmarl("train", *more, "total_frames=240")
    assert code == 0, err
    # what composes the networks anew does not search anew
    code, out, err = hetmarl(
        *("train", *more, *TINY, *SEPS, "algo=mappo", "network=mlp", "total_frames=320")
    )
    assert code == 0, err
    assert out.count("Changed:") == 1
    code, _, err = hetmarl("train", *more, "network.seps.clusters=3")
    assert code == 2
    assert "network.seps.clusters=3 (the run has 2)" in err
    given = ["network.seps.sets=[[agent_0,agent_1],[agent_2]]", "network.sharing=seps"]
    code, _, err = hetmarl("train", "algo=mappo", *TINY, *given, "run_dir=c", "total_frames=80")
    assert code == 0, err
    assert load_policy("c").units == [[0, 1], [2]]


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_find_the_same_sets(tmp_path: Path) -> None:
    """They would not train each other's networks otherwise."""
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "algo=mappo", "run_dir=a"]
    done = run([*COMMAND, *TINY, *SEPS, *two], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Agents that share parameters") == 1
    rows = (tmp_path / "a/metrics.csv").read_text().splitlines()
    assert rows[-1].startswith("160")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algo=happo", "network.agents.agent_7.memory=gru"], "the team has no agent 'agent_7'"),
        (["algo=happo", "network.agents.agent_1.memry=gru"], "Did you mean 'memory'?"),
        (["algo=happo", "network.critic.hiden_sizes=[3]"], "Did you mean 'hidden_sizes'?"),
        (["algo=happo", "network.clusters=2"], "Did you mean 'network.seps.clusters'?"),
        (["algo=mappo", "network.sharing=[agent_0,agent_1]"], "a list such as [[a,b],[a,b]]"),
        (["algo=mappo", "network.sharing=[[agent_0,agent_1]]"], "in exactly one set"),
        (["algo=mappo", "network.sharing=[[agent_0,agnt_1],[agent_2]]"], "no agent 'agnt_1'. Did"),
        (
            ["algo=mappo", "network.sharing=full", "network.agents.agent_1.memory=gru"],
            "network.agents.agent_1: it shares its parameters with agent_0, agent_2",
        ),
        (
            ["algo=happo", "network.sharing=full"],
            "or set algo.allow_shared_sequential=true to update each set as one joint agent",
        ),
        (["algo=mappo", *SEPS, "network.seps.clusters=4"], "clusters=4: the team has 3 agents"),
        (
            ["algo=hasac", "network.sharing=full"],
            "take a simultaneous algorithm (masac, matd3 or maddpg), or set",
        ),
        (["algo=masac", "network.sharing=[[agent_0,agent_1]]"], "in exactly one set"),
    ],
)
def test_refusals(hetmarl: Command, overrides: list[str], message: str) -> None:
    code, _, err = hetmarl("train", *TINY[:3], *overrides, "run_dir=a")
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_sequential_algorithm_may_share_if_told_so(hetmarl: Command) -> None:
    allowed = ["network.sharing=full", "algo.allow_shared_sequential=true", "total_frames=80"]
    with pytest.warns(UserWarning, match="Each set is updated as one joint agent"):
        code, _, err = hetmarl("train", "algo=hatrpo", *TINY, *allowed, "run_dir=a")
    assert code == 0, err
    assert load_policy("a").units == [[0, 1, 2]]
