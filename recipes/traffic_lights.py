"""What there is to beat at the junctions of a road network, on the seeds of `hetmarl evaluate`.

    python recipes/traffic_lights.py sumo/cologne8

Seconds that a vehicle waits, and its delay, in an episode: with random lights, with the network's
own programs, and where every junction turns to the lights with the longest queue, those who only
come counting nothing or a tenth. These rules are told more than an agent: which lanes its lights
serve.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from hetmarl_envs import make_env
from hetmarl_envs.sumo.networks import simulation_arguments
from hetmarl_envs.sumo.simulator import INFO, SumoSimulator

SEED, EPISODES = 100_000, 3


def played(task: str, **options: Any) -> tuple[list[list[float]], list[dict[str, Any]]]:
    """Per name of ``INFO`` the episodes' values; and how each of them began."""
    torch.manual_seed(SEED)
    env: Any = make_env(task, num_envs=EPISODES, seed=SEED, **options)
    data = env.reset()
    starts = env.runtime_state()["rows"]["envs"]
    last = env.rollout(env.max_steps, auto_reset=False, tensordict=data)[:, -1]
    env.close()
    assert last["next", "truncated"].all()
    return [last["next", "info", name].flatten().tolist() for name in INFO], starts


def longest_queue(task: str, starts: list[dict[str, Any]], coming: float) -> list[list[float]]:
    """The same for the greedy rule, in the episodes that begin like ``starts``."""
    simulator = SumoSimulator(simulation_arguments(task.partition("/")[2]))
    found = []
    for start in starts:
        simulator.load_runtime_state(start)
        infos: dict[str, Any] = {}
        while simulator.agents:
            actions = {name: _longest(simulator.raw, name, coming) for name in simulator.agents}
            *_, infos = simulator.step(actions)
        found.append(list(next(iter(infos.values())).values()))
    simulator.close()
    return [list(values) for values in zip(*found, strict=True)]


def _longest(raw: Any, junction: str, coming: float) -> int:
    """The phase whose lanes hold most: who stands counts 1, who comes ``coming``."""
    lane, weights = raw.sumo.lane, []
    links = raw.sumo.trafficlight.getControlledLinks(junction)
    for phase in raw.traffic_signals[junction].green_phases:
        pairs = zip(links, phase.state, strict=True)
        green = {link[0][0] for link, light in pairs if link and light in "Gg"}
        standing = sum(lane.getLastStepHaltingNumber(name) for name in green)
        there = sum(lane.getLastStepVehicleNumber(name) for name in green)
        weights.append(standing + coming * (there - standing))
    return weights.index(max(weights))


def main() -> None:
    task = sys.argv[1] if len(sys.argv) > 1 else "sumo/cologne8"
    results = {}
    results["random lights"], starts = played(task)
    results["the network's programs"], _ = played(task, fixed_ts=True)
    results["longest queue"] = longest_queue(task, starts, 0.0)
    results["the same, who comes counts 0.1"] = longest_queue(task, starts, 0.1)
    print(f"| {task}, seed {SEED} | " + " | ".join(INFO) + " |\n|---|---|---|")
    for name, values in results.items():
        cells = [
            f"{sum(part) / len(part):.1f} ({', '.join(f'{value:.1f}' for value in part)})"
            for part in values
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
