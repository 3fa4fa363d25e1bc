"""Which agents of an environment are alike, from what random actions bring about."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from hetmarl.engines.randomness import stable_seed, stream
from hetmarl.networks.config import SePSConfig
from hetmarl.networks.seps import Experience, find_sets
from hetmarl_envs.contract import TeamSpec, write_random_actions


def selective_sharing(
    env: EnvBase, config: SePSConfig | None = None, seed: int = 0
) -> list[list[str]]:
    """Sets of agents that may share parameters, by name; see ``hetmarl.networks.seps``.

    Agents' own rewards tell them apart where the environment has them, ``("next", group,
    "reward")``; else everybody gets the team's.

    Args:
        env: batched; it is reset and stepped with random legal actions.
        config: settings; ``sets`` is not read.
        seed: equal seeds (and an environment that starts alike) give equal sets.

    Returns:
        Names of the agents of each set, for ``network.sharing`` or ``network.seps.sets``.

    Raises:
        ConfigError: more clusters than agents.
    """
    config, spec = config or SePSConfig(), TeamSpec.from_env(env)
    generator = stream(seed, "seps", device=env.device or "cpu")
    steps, data = [], env.reset()
    for _ in range(-(-config.frames // env.batch_size[0])):
        stepped, data = env.step_and_maybe_reset(write_random_actions(data, spec, generator))
        steps.append(stepped)
    chunk = torch.stack(steps).reshape(-1)  # type: ignore[attr-defined]
    team = [_experience(chunk, spec, i) for i in range(spec.num_agents)]
    sets = find_sets(team, config, stable_seed(seed, "seps"))
    return [[spec.names[i] for i in members] for members in sets]


def _experience(chunk: TensorDictBase, spec: TeamSpec, agent: int) -> Experience:
    """The agent's living samples, on the CPU: the same sets wherever the environment runs."""
    own, after = spec.agents[agent], chunk.get("next")
    reward = after.get((own.group, "reward"), None)
    reward = after.get("reward") if reward is None else reward.select(1, own.index)
    alive = spec.alive(chunk, agent)
    rows = slice(None) if alive is None else alive.squeeze(-1)

    def plain(x: torch.Tensor) -> torch.Tensor:
        return x[rows].flatten(1).float().cpu()

    return Experience(
        plain(spec.observation(chunk, agent)),
        plain(own.action.encode(spec.action(chunk, agent))),
        plain(spec.observation(after, agent)),
        plain(reward),
    )
