"""Collection with policies against the environment alone plus the same forwards run bare.

    python benchmarks/collection.py [--threads 2]

64 environments; HalfCheetah with 2 agents and with 6. The environment alone is stepped as a
collector does, through ``step_and_maybe_reset``, with actions at hand. The forwards are the actors'
own functions on plain tensors.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from itertools import cycle

import torch
from interleaved import interleaved, parse, table
from tensordict import TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import EnvBase

import hetmarl
from hetmarl.data import TeamCollector
from hetmarl.networks import TeamPolicy
from hetmarl_envs.contract import TeamSpec, write_random_actions

TASKS = ("mamujoco/halfcheetah_2x3", "mamujoco/halfcheetah_6x1")
ENVS = 64


class Alone:
    """The environment with random actions, drawn beforehand."""

    def __init__(self, env: EnvBase, spec: TeamSpec) -> None:
        self.env, self.data = env, env.reset()
        keys = [(group, "action") for group in spec.groups]
        self.actions = cycle(
            [write_random_actions(self.data.clone(), spec).select(*keys) for _ in range(50)]
        )

    def __call__(self) -> None:
        """One vector step."""
        self.data.update(next(self.actions))
        _, self.data = self.env.step_and_maybe_reset(self.data)


class Forwards:
    """Everybody's action from an observation at hand."""

    def __init__(self, policy: TeamPolicy, data: TensorDictBase) -> None:
        self.policy = policy
        spec = policy.team
        self.observations = [spec.observation(data, agent) for agent in range(spec.num_agents)]

    @torch.no_grad()
    def __call__(self) -> None:
        """One vector step."""
        for actor, observation in zip(self.policy.actors, self.observations, strict=True):
            actor.act(observation)


def compare(task: str, given: Namespace) -> None:
    """Prints the table of a task."""
    steps, rounds, seconds = (2, 1, 0.0) if given.quick else (50, 11, 0.15)
    alone_env, our_env, their_env = (
        hetmarl.make_env(task, num_envs=ENVS, seed=0, num_threads=given.threads) for _ in range(3)
    )
    spec = TeamSpec.from_env(our_env)
    policy = TeamPolicy(spec)
    alone, forwards = Alone(alone_env, spec), Forwards(policy, alone_env.reset())
    ours = TeamCollector(our_env, policy, seed=0)
    theirs = iter(
        Collector(
            their_env,
            policy,
            frames_per_batch=ENVS * steps,
            total_frames=-1,
            trust_policy=True,
            track_traj_ids=False,
            auto_register_policy_transforms=False,
        )
    )

    def bare() -> None:
        for _ in range(steps):
            alone()
            forwards()

    times = interleaved(
        {
            "bare": bare,
            "ours": lambda: ours.collect(steps, 0),
            "torchrl": lambda: next(theirs),
            "env": alone,
            "forwards": forwards,
        },
        rounds=rounds,
        slice_seconds=seconds,
        clock=given.timer,
    )
    frames = ENVS * steps
    table(
        f"Collection, {task}, {ENVS} environments, {given.threads} thread(s), frames/s",
        {
            "environment alone": f"{ENVS / times['env']:,.0f}",
            "forwards alone": f"{ENVS / times['forwards']:,.0f}",
            "both, bare": f"{frames / times['bare']:,.0f}",
            "TeamCollector": f"{frames / times['ours']:,.0f}",
            "TorchRL's Collector": f"{frames / times['torchrl']:,.0f}",
            "TeamCollector's time / bare": f"{times['ours'] / times['bare']:.2f}   "
            "(goal: at most 1.25)",
            "TorchRL's time / bare": f"{times['torchrl'] / times['bare']:.2f}",
        },
    )


def main() -> None:
    """Prints a table per task."""
    given = parse(__doc__)
    warnings.filterwarnings("ignore")  # TorchRL's of its own deprecations
    for task in TASKS:
        compare(task, given)


if __name__ == "__main__":
    main()
