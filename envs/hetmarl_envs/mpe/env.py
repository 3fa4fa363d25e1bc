"""MPE scenarios as one batched TorchRL environment (see ``MPEEnv``)."""

from __future__ import annotations

from typing import Any

import torch

from hetmarl_envs.errors import ConfigError, ContractError, did_you_mean
from hetmarl_envs.mpe.scenarios import check_options
from hetmarl_envs.mpe.simulator import MPESimulator
from hetmarl_envs.pettingzoo.env import PettingZooEnv, TeamReward
from hetmarl_envs.pettingzoo.stepping import Opponents
from hetmarl_envs.pettingzoo.workers import TIMEOUT, StartMethod

OWN_OPTIONS = ("team_reward", "team", "opponents", "num_workers", "start_method", "timeout")

# What an agent is, besides what it sees and does: its part in the scenario, and its body.
_PART = "adversary leader speaker collector"
_BODY = "movable silent collide size accel max_speed initial_mass u_noise c_noise"


class MPEEnv(PettingZooEnv):
    """Any scenario of ``mpe2``, ``num_envs`` of them, with ``mpe2``'s own numbers.

    Agents share a group if their spaces, their part in the scenario and their body are equal.
    Nobody leaves before the end, so there is no ``alive``; ``"state"`` is all agents' observations
    side by side, opponents' included. The time limit truncates.

    Args:
        scenario: such as ``"simple_spread"``, see ``SCENARIOS``.
        num_envs: sub-environments.
        seed: of all starts.
        device: where the tensors are; the simulation runs on the CPU.
        team_reward: ``"sum"`` of the agents' rewards (the default; returns are then those that the
            literature reports for MPE) or their ``"mean"``. No default for a scenario of opposed
            teams unless ``team`` is given.
        team: for such a scenario the one that is controlled and rewarded, ``"good"`` or
            ``"adversaries"``.
        opponents: what the other team does: ``"random"`` actions, uniform, or ``"still"``.
        num_workers: processes that step them, 0 for none; see ``PettingZooEnv``.
        start_method, timeout: of the workers.
        **options: ``mpe2``'s: ``max_cycles`` (25), ``continuous_actions`` (False), and the
            scenario's own, see ``scenario_options``.

    Raises:
        UnknownNameError: no such scenario.
        ConfigError: an option is unknown, or has a value that the scenario does not take.
        ContractError: a scenario of opposed teams without ``team`` or ``team_reward``.
    """

    def __init__(
        self,
        scenario: str,
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        team_reward: TeamReward | None = None,
        team: str | None = None,
        opponents: Opponents = "random",
        num_workers: int = 0,
        start_method: StartMethod = "spawn",
        timeout: float | None = TIMEOUT,
        **options: Any,
    ) -> None:
        check_options(scenario, options, OWN_OPTIONS)
        first = MPESimulator(scenario, options)
        agents = first.raw.world.agents
        super().__init__(
            lambda: MPESimulator(scenario, options),
            num_envs=num_envs,
            seed=seed,
            device=device,
            team_reward=team_reward or "sum",
            team=_members(agents, scenario, team, team_reward),
            opponents=opponents,
            leaving=False,
            kinds={
                agent.name: [getattr(agent, key, None) for key in f"{_PART} {_BODY}".split()]
                for agent in agents
            },
            num_workers=num_workers,
            start_method=start_method,
            timeout=timeout,
            name=f"mpe/{scenario}",
        )
        self.scenario = scenario
        self.max_steps: int = first.raw.max_cycles


def _members(
    agents: list[Any], scenario: str, team: str | None, team_reward: str | None
) -> list[str] | None:
    """Names of the controlled team's agents, None for all."""
    teams: dict[str, list[str]] = {}
    for agent in agents:
        side = "adversaries" if getattr(agent, "adversary", False) else "good"
        teams.setdefault(side, []).append(agent.name)
    if team is not None and len(teams) == 1:
        raise ConfigError(f"mpe/{scenario} has one team; leave team={team!r} out.")
    if team is not None and team not in teams:
        raise ConfigError(
            f"mpe/{scenario} has no team '{team}'.{did_you_mean(team, teams)} "
            f"Teams: {', '.join(teams)}."
        )
    if len(teams) > 1 and team is None and team_reward is None:
        sides = "; ".join(f"{side}: {', '.join(names)}" for side, names in teams.items())
        raise ContractError(
            f"mpe/{scenario} opposes teams ({sides}), and one reward for all of them would add up "
            f"opposed goals. Pass team={next(iter(teams))!r} to control one side while the other "
            "acts at random (opponents='still': does nothing), or team_reward='sum' or 'mean' to "
            "treat all agents as one team nevertheless."
        )
    return None if team is None else teams[team]
