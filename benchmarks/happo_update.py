"""One HAPPO update against the same matrix products written bare, the loop, and acting.

    python benchmarks/happo_update.py [--threads 2] [--clock cpu]
    python benchmarks/happo_update.py --task vmas/simple_spread --epochs 5 --hidden-sizes 128 128

By default rollouts of 20×200 frames, networks 128×3, 15 epochs of every actor and the critic, as
tuned for HalfCheetah. The update also compiled, in lower precision, and both. Acting: a team's
policies, packed and in turns, beside one network with as many parameters that acts for all.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from collection import Alone
from interleaved import in_bfloat16, interleaved, parse, table
from products import bare, happo_update, operations

import hetmarl
from hetmarl.algorithms import HAPPO, HAPPOConfig
from hetmarl.data import TeamCollector
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import OnPolicyNetworkConfig, TeamPolicy
from hetmarl.networks.packed import for_acting
from hetmarl_envs.contract import TeamSpec

ENVS = 20
ACTING = ("mamujoco/halfcheetah_2x3", "mamujoco/halfcheetah_6x1", "mamujoco/humanoid_17x1")
NETWORK = OnPolicyNetworkConfig(hidden_sizes=[128, 128, 128])


def update(given: Namespace) -> None:
    """Prints the table of an update and of the loop."""
    num_envs, steps, epochs, rounds = given.envs, given.steps, given.epochs, given.rounds
    if given.quick:
        steps, epochs, rounds = 10, 1, 1
    simulated = {"num_threads": given.threads} if given.task.startswith("mamujoco/") else {}
    envs = [hetmarl.make_env(given.task, num_envs=num_envs, **simulated) for _ in "ab"]
    spec, network = TeamSpec.from_env(envs[0]), OnPolicyNetworkConfig(list(given.hidden_sizes))
    config = HAPPOConfig(epochs=epochs, critic_epochs=epochs)
    team = HAPPO(spec, config, network)
    compiled = HAPPO(spec, config, replace(network, compile=not given.quick))
    for module in (team, compiled):
        module.configure_optimizers()
    collector = TeamCollector(envs[0], team.policy, seed=0)
    packed = for_acting(team.policy, num_envs)
    data, _ = collector.collect(steps, 0)
    randomness = UpdateRandomness(0, 0)
    products = happo_update(spec, network, num_envs * steps, epochs)
    alone, observations = Alone(envs[1], spec), data[:, 0].clone()

    @torch.no_grad()
    def act() -> None:
        packed(observations)

    def eager() -> None:
        team.engine.update(data.clone(False), randomness)

    def fused() -> None:
        compiled.engine.update(data.clone(False), randomness)

    variants = {
        "bfloat16 autocast": in_bfloat16(eager),
        "float32 matmul precision medium": in_medium(eager),
        "compiled": fused,
        "compiled, bfloat16 autocast": in_bfloat16(fused),
    }
    times = interleaved(
        {
            "update": eager,
            **variants,
            "torch": bare(products, "torch"),
            "onednn": bare(products, "onednn"),
            "collect": lambda: collector.collect(steps, 0),
            "env": alone,
            "acting": act,
        },
        rounds=rounds,
        slice_seconds=0.0 if given.quick else 0.1,
        clock=given.timer,
    )
    spent, frames = times["update"], num_envs * steps
    loop = spent + times["collect"]
    gigaflops = operations(products) / 1e9
    table(
        f"HAPPO, {given.task}, {num_envs}×{steps} frames, {given.threads} thread(s)",
        {
            "update": f"{spent * 1e3:.0f} ms",
            **{
                f"update, {name}": f"{times[name] * 1e3:.0f} ms, "
                f"{spent / times[name]:.2f} times as fast"
                for name in variants
            },
            "bare products, torch.mm": f"{times['torch'] * 1e3:.0f} ms, "
            f"{gigaflops / times['torch']:.0f} GFLOP/s",
            "bare products, oneDNN": f"{times['onednn'] * 1e3:.0f} ms, "
            f"{gigaflops / times['onednn']:.0f} GFLOP/s",
            "update / torch.mm": f"{spent / times['torch']:.2f}",
            "update / oneDNN": f"{spent / times['onednn']:.2f}   (goal: at most 1.3)",
            "update, compiled / torch.mm": f"{times['compiled'] / times['torch']:.2f}",
            "whole loop": f"{frames / loop:,.0f} frames/s",
            "update's share": f"{spent / loop:.1%}",
            "collecting's share": f"{times['collect'] / loop:.1%}",
            "of which environment": f"{steps * times['env'] / loop:.1%}",
            "of which acting": f"{steps * times['acting'] / loop:.1%}",
        },
    )


def in_medium(function: Callable[[], None]) -> Callable[[], None]:
    """With float32 products that may be computed in bfloat16 inside, where a processor can."""

    def lower() -> None:
        torch.set_float32_matmul_precision("medium")
        function()
        torch.set_float32_matmul_precision("highest")

    return lower


def acting(given: Namespace) -> None:
    """Prints the table of teams beside single networks."""
    rows = {}
    for task in ACTING:
        env = hetmarl.make_env(task, num_envs=ENVS)
        spec, data = TeamSpec.from_env(env), env.reset()
        team, (one, seen) = TeamPolicy(spec, NETWORK), single(spec)
        forms = {
            "packed": partial(for_acting(team, ENVS), data),
            "in turns": partial(team, data),
            "one": partial(one.step, 0, seen),
        }
        with torch.no_grad():
            times = interleaved(
                forms,
                rounds=1 if given.quick else 41,
                slice_seconds=0.0 if given.quick else 0.02,
                clock=given.timer,
            )
        for name in ("packed", "in turns"):
            ratio, milliseconds = times[name] / times["one"], times[name] * 1e3
            goal = ", goal: at most 1.5" if name == "packed" else ""
            rows[f"{spec.num_agents} agents, {name} / one network"] = (
                f"{ratio:.2f}   ({milliseconds:.2f} ms{goal})"
            )
    table(f"Acting, {ENVS} environments, {given.threads} thread(s)", rows)


def single(spec: TeamSpec) -> tuple[TeamPolicy, torch.Tensor]:
    """One actor for the whole team with as many parameters, and observations for it."""
    wanted = parameters(TeamPolicy(spec, NETWORK))
    shapes = [sum(agent.observation_shape) for agent in spec.agents]
    first = spec.agents[0]
    action = replace(
        first.action,
        low=tuple(x for agent in spec.agents for x in agent.action.low),
        high=tuple(x for agent in spec.agents for x in agent.action.high),
    )
    one = replace(spec, agents=(replace(first, observation_shape=(sum(shapes),), action=action),))
    width = 128
    while parameters(made := TeamPolicy(one, OnPolicyNetworkConfig([width] * 3))) < wanted:
        width += 8
    return made, torch.randn(ENVS, sum(shapes))


def parameters(policy: TeamPolicy) -> int:
    return sum(p.numel() for p in policy.parameters())


def main() -> None:
    """Prints both tables."""
    settings = {"envs": ENVS, "steps": 200, "epochs": 15, "hidden_sizes": (128, 128, 128)}
    given = parse(__doc__, task="mamujoco/halfcheetah_2x3", rounds=7, **settings)
    update(given)
    acting(given)


if __name__ == "__main__":
    main()
