"""Which agents share their parameters, and how unequal ones can."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from hetmarl.networks.actors import Actor, ChoiceActor, GaussianActor, Shared
from hetmarl.networks.body import Body, output_layer
from hetmarl.networks.config import OnPolicyNetworkConfig
from hetmarl_envs.contract import AgentSpec, TeamSpec
from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean


def make_actors(spec: TeamSpec, config: OnPolicyNetworkConfig) -> list[nn.Module]:
    """The team's actors, in team order, by ``config.sharing`` and ``config.agents``.

    Agents that share parameters have actors of their own around common networks. Where their spaces
    differ, observations are filled up with zeros and surplus outputs ignored, here and nowhere in
    the data.
    """
    for name in config.agents:
        _check_name(name, spec, "network.agents")
    actors: dict[int, Actor] = {}
    for members in sharing_sets(spec, config):
        agents = [spec.agents[i] for i in members]
        shared: list[Shared | None] = [None]
        if len(members) > 1:
            for agent in agents:
                if agent.name in config.agents:
                    raise ConfigError(
                        f"network.agents.{agent.name}: it shares its parameters with "
                        f"{', '.join(a.name for a in agents if a is not agent)} "
                        "(network.sharing), so that it can have no settings of its own."
                    )
            shared = _shared(agents, config)
        for i, agent, common in zip(members, agents, shared, strict=True):
            kind = GaussianActor if agent.action.kind == "continuous" else ChoiceActor
            actors[i] = kind(agent, config.for_agent(agent.name), common)
    return [actors[i] for i in range(spec.num_agents)]


def sharing_sets(spec: TeamSpec, config: OnPolicyNetworkConfig) -> list[list[int]]:
    """Agents' positions, by set of shared parameters.

    Raises:
        UnknownNameError: ``sharing`` names an agent that the team has not.
        ConfigError: an agent stands in two sets, or in none.
    """
    everybody = list(range(spec.num_agents))
    if config.sharing == "none":
        return [[i] for i in everybody]
    if config.sharing == "full":
        return [everybody]
    sets = []
    for names in config.sharing:
        for name in names:
            _check_name(name, spec, "network.sharing")
        sets.append([spec.names.index(name) for name in names])
    if sorted(i for members in sets for i in members) != everybody:
        raise ConfigError(
            f"network.sharing={config.sharing}: expected every agent in exactly one set; agents: "
            f"{', '.join(spec.names)}."
        )
    return sets


def _check_name(name: str, spec: TeamSpec, where: str) -> None:
    if name not in spec.names:
        raise UnknownNameError(
            f"{where}: the team has no agent '{name}'.{did_you_mean(name, spec.names)} "
            f"Agents: {', '.join(spec.names)}."
        )


def _shared(agents: Sequence[AgentSpec], config: OnPolicyNetworkConfig) -> list[Shared | None]:
    shapes = {agent.observation_shape for agent in agents}
    images = any(len(shape) != 1 for shape in shapes)
    if images and (len(shapes) > 1 or config.agent_id):
        raise ConfigError(
            f"network.sharing: {', '.join(a.name for a in agents)} observe {sorted(shapes)}. "
            "Agents that see images can share parameters if their shapes are equal and "
            "network.agent_id=false."
        )
    longest = max(torch.Size(shape).numel() for shape in shapes)
    ids = torch.eye(len(agents)) if config.agent_id else torch.zeros(len(agents), 0)
    shape = agents[0].observation_shape if images else (longest + ids.shape[1],)
    body = Body(shape, config, config.actor_last_activation)
    widest = max(agent.action.width for agent in agents)
    head = output_layer(body.out_features, widest, config, config.actor_gain)
    std = nn.Parameter(torch.full((widest,), float(config.std_init)))
    fill = [longest - torch.Size(agent.observation_shape).numel() for agent in agents]
    suffixes = [torch.cat([torch.zeros(n), ids[i]]) for i, n in enumerate(fill)]
    return [Shared(body, head, std, suffix) for suffix in suffixes]
