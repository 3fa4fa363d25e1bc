"""How HASAC, with a fixed and with an adapted temperature, and HATD3 bear rewards of another scale
and a critic that errs.

    python recipes/studies/robustness.py
    python recipes/studies/robustness.py --seeds 20 --iterations 100

The task is `games/roles` with real-valued actions: three agents, each of which must do its own part
in one situation and all the same in the other. The best team gets 1 and nobody gets more.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from study import arguments, draw, learn_from_replay, mean_spread, write_table
from torch import Tensor, nn
from torchrl.envs import RewardScaling, TransformedEnv

from hetmarl.algorithms import OffPolicyModule, get_algorithm
from hetmarl.data import evaluate
from hetmarl.networks import mlp
from hetmarl_envs import TeamSpec, make_env
from hetmarl_envs.contract import write_random_actions

TASK: dict[str, Any] = {"name": "games/roles", "actions": "continuous", "heterogeneity": 0.5}
ENVS, STEPS, WARMUP, EPISODES = 32, 10, 2, 200
"""Environments, vector steps of an iteration, iterations of random actions, episodes judged by."""
FACTORS = (0.1, 1.0, 10.0)
"""Of the rewards that are learned from; what is judged are the task's own."""
ERRORS = (0.0, 0.3, 1.0, 3.0)
"""Standard deviation of what is added to the critic where actors read it, in units of return."""
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "HASAC, α = .05": ("hasac", {"auto_alpha": False, "alpha": 0.05}),
    "HASAC, adapted": ("hasac", {"auto_alpha": True, "alpha": 0.05}),
    "HATD3": ("hatd3", {}),
}


def add_error(module: OffPolicyModule, scale: float) -> None:
    """Lets the actors climb Q + ``scale``·f instead of Q, f a random function of s and a.

    It is a network with random weights, of mean 0 and variance 1 over random inputs; the critic
    goes on learning from its targets without it.
    """
    loss, spec = module.loss, module.spec
    inputs = spec.critic_dim + sum(agent.action.width for agent in spec.agents)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(module.seed)
        net = mlp(inputs, 1, [64, 64], "tanh").requires_grad_(False)
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=2 / layer.in_features**0.5)
        seen = net(torch.randn(1000, inputs))
    exact = loss.actor

    def actor(data: Any, agent: int, joint: Any, log_prob: Tensor | None = None) -> Tensor:
        error = (net(torch.cat([loss.state(data), *joint], -1)) - seen.mean()) / seen.std()
        return exact(data, agent, joint, log_prob) - loss.mean(scale * error, data, agent)

    loss.actor = actor  # type: ignore[method-assign]


def run(learner: tuple[str, dict[str, Any]], iterations: int, seed: int, **change: float) -> float:
    """The mean return, in the task's own units, after training with a changed reward or critic."""
    algorithm, config = learner
    entry = get_algorithm(algorithm)
    env = make_env(**TASK, num_envs=ENVS, seed=seed)
    scaled = TransformedEnv(env, RewardScaling(0.0, change.get("factor", 1.0), ["reward"]))
    settings = {"batch_size": 128, "actor_lr": 2e-3, "critic_lr": 2e-3, "polyak": 0.05} | config
    sizes = {"hidden_sizes": [32, 32]}
    module = entry.load("module")(TeamSpec.from_env(env), settings, sizes, seed=seed)
    if change.get("error"):
        add_error(module, change["error"])
    learn_from_replay(module, scaled, iterations, STEPS, WARMUP)
    return evaluate(module.policy, make_env(**TASK, num_envs=EPISODES, seed=1000))["return_mean"]


def study(out: Path, *, iterations: int = 60, seeds: int = 5) -> list[list[Any]]:
    """Writes ``robustness.csv`` and ``.png``; returns the table.

    Args:
        out: directory.
        iterations: of training.
        seeds: runs of each kind.
    """
    changes = [("reward's factor", "factor", FACTORS), ("critic's error", "error", ERRORS)]
    rows: list[list[Any]] = []
    panels = []
    for title, name, values in changes:
        means: dict[str, list[float]] = {}
        for label, learner in LEARNERS.items():
            for value in values:
                ends = [run(learner, iterations, s, **{name: value}) for s in range(seeds)]
                rows.append([title, value, label, *mean_spread(ends)])
                means.setdefault(label, []).append(rows[-1][-2])
        panels.append(partial(panel, title=title, values=values, means=means))
    env = make_env(**TASK, num_envs=EPISODES, seed=1000)
    spec, generator = TeamSpec.from_env(env), torch.Generator().manual_seed(0)
    chance = evaluate(lambda data: write_random_actions(data, spec, generator), env)
    rows.append(["random actions", "", "", chance["return_mean"], chance["return_std"]])
    write_table(out / "robustness.csv", ["change", "size", "algorithm", "return", "±"], rows)
    draw(out / "robustness.png", panels)
    return rows


def panel(axes: Any, title: str, values: tuple[float, ...], means: dict[str, list[float]]) -> None:
    """Return against the size of a change, a line per algorithm."""
    places = range(len(values))
    for label, returns in means.items():
        axes.plot(places, returns, "o-", label=label)
    axes.set_xticks(places, [f"{value:g}" for value in values])
    axes.set_xlabel(title)
    axes.set_ylabel("return, in the task's own rewards")


if __name__ == "__main__":
    study(**arguments(__doc__, iterations=60, seeds=5))
