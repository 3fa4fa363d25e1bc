"""Which agents share their parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from hetmarl.networks.actors import Actor, ChoiceActor, GaussianActor
from hetmarl.networks.config import NetworkConfig, OnPolicyNetworkConfig
from hetmarl.networks.entities import listed
from hetmarl.networks.network import make_networks
from hetmarl.networks.off_policy import OffPolicyActor
from hetmarl_envs.contract import AgentSpec, TeamSpec
from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean


def make_actors(spec: TeamSpec, config: OnPolicyNetworkConfig) -> list[nn.Module]:
    """The team's actors, in team order, by ``config.sharing`` and ``config.agents``.

    Agents that share parameters have actors of their own around common networks.

    Raises:
        UnknownNameError: the settings name an agent that the team has not.
        ConfigError: agents that share have settings of their own, or observations that do not go
            together; or the sets are not sets of the team.
    """
    for name in config.agents:
        _check_name(name, spec, "network.agents")
    actors: dict[int, Actor] = {}
    for members in sharing_sets(spec, config):
        agents = [spec.agents[i] for i in members]
        for agent in agents:
            if agent.name in config.agents and len(agents) > 1:
                raise ConfigError(
                    f"network.agents.{agent.name}: it shares its parameters with "
                    f"{', '.join(a.name for a in agents if a is not agent)} "
                    f"(network.sharing={config.sharing}), so that it can have no settings of its "
                    "own. Take it out of the set, or drop its settings."
                )
        own = config.for_agent(agents[0].name)
        widths = [agent.action.width for agent in agents]
        networks = make_networks(agents, own, widths, own.actor_gain, own.actor_last_activation)
        std = nn.Parameter(torch.full((max(widths),), float(own.std_init)))
        for i, agent, net in zip(members, agents, networks, strict=True):
            if agent.action.kind == "continuous":
                actors[i] = GaussianActor(agent, net, std, own.std_scale)
            else:
                actors[i] = ChoiceActor(agent, net)
    return [actors[i] for i in range(spec.num_agents)]


def make_off_policy_actors(
    spec: TeamSpec, config: NetworkConfig, make: Callable[[AgentSpec], OffPolicyActor]
) -> list[nn.Module]:
    """The team's off-policy actors, in team order, by ``config.sharing``.

    Where the agents' spaces differ, observations are filled up with zeros and surplus outputs
    ignored, here and nowhere in the data.

    Args:
        spec: the team.
        config: of the networks.
        make: an agent's actor with networks of its own.

    Raises:
        UnknownNameError, ConfigError: see ``sharing_sets``.
    """
    actors = [make(agent) for agent in spec.agents]
    for members in sharing_sets(spec, config):
        if len(members) == 1:
            continue
        sharing = [actors[i] for i in members]
        longest = max(actor.inputs for actor in sharing)
        ids = torch.eye(len(members)) if config.agent_id else torch.zeros(len(members), 0)
        outputs = max(actor.outputs for actor in sharing)
        blocks = listed([spec.agents[i] for i in members], config)
        networks = sharing[0].networks(longest + ids.shape[1], outputs, config, blocks)
        for actor, own in zip(sharing, ids, strict=True):
            actor.use(networks, torch.cat([torch.zeros(longest - actor.inputs), own]))
    return list(actors)


def sharing_sets(spec: TeamSpec, config: NetworkConfig) -> list[list[int]]:
    """Agents' positions, by set of shared parameters.

    Raises:
        UnknownNameError: a set names an agent that the team has not.
        ConfigError: an agent stands in two sets, or in none; or ``seps`` has not found its sets.
    """
    everybody = list(range(spec.num_agents))
    if config.sharing == "none":
        return [[i] for i in everybody]
    if config.sharing == "full":
        return [everybody]
    where, named = "network.sharing", config.sharing
    if config.sharing == "seps":
        where, named = "network.seps.sets", config.seps.sets or []
        if not named:
            raise ConfigError(
                "network.sharing=seps: the sets are found out before the networks are made. "
                "`hetmarl train` does that; in Python: network.seps.sets = "
                "hetmarl.data.selective_sharing(env, network.seps, seed)."
            )
    for name in (name for names in named for name in names):
        _check_name(name, spec, where)
    sets = [[spec.names.index(name) for name in names] for names in named]
    if sorted(i for members in sets for i in members) != everybody:
        raise ConfigError(
            f"{where}={named}: expected every agent in exactly one set; agents: "
            f"{', '.join(spec.names)}."
        )
    return sets


def _check_name(name: str, spec: TeamSpec, where: str) -> None:
    if name not in spec.names:
        raise UnknownNameError(
            f"{where}: the team has no agent '{name}'.{did_you_mean(name, spec.names)} "
            f"Agents: {', '.join(spec.names)}."
        )
