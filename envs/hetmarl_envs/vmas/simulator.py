"""VMAS's simulator, built, stepped, observed and drawn: what is called of VMAS stands here."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hetmarl_envs.errors import ConfigError, ContractError, HetmarlError, MissingExtraError
from hetmarl_envs.vmas.agents import agent_name
from hetmarl_envs.vmas.randomness import following_the_global_generators
from hetmarl_envs.vmas.scenarios import import_vmas

if TYPE_CHECKING:
    from vmas.simulator.core import Agent
    from vmas.simulator.environment import Environment
    from vmas.simulator.scenario import BaseScenario


def build_simulator(
    scenario: type[BaseScenario],
    options: dict[str, Any],
    *,
    num_envs: int,
    device: torch.device,
    actions: str,
    where: str,
) -> Environment:
    """A simulator that draws from the global generators, as they are.

    Args:
        scenario: its class.
        options: the scenario's own.
        num_envs: sub-environments.
        device: where it computes.
        actions: ``"continuous"``, ``"discrete"`` or ``"multi_discrete"``.
        where: what messages call the environment, such as ``"vmas/balance"``.

    Raises:
        ConfigError: the scenario refuses the options.
    """
    import_vmas()
    from vmas.simulator.environment import Environment

    with following_the_global_generators(Environment.vmas_random_state):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Scenario kwargs: ")
                warnings.filterwarnings("ignore", message="Force limits not specified")
                simulator = Environment(
                    scenario(),
                    num_envs=num_envs,
                    device=device,
                    continuous_actions=actions == "continuous",
                    multidiscrete_actions=actions == "multi_discrete",
                    clamp_actions=True,  # tanh may leave the bounds by one float
                    terminated_truncated=True,
                    **options,
                )
        except HetmarlError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{where} cannot be built with num_envs={num_envs} and options "
                f"{options}: {type(error).__name__}: {error}"
            ) from error
    for entity in simulator.world.entities:
        _ = entity.is_rendering  # created on first use; here, so that drawing adds no state
    return simulator


def step(
    simulator: Environment, actions: Sequence[Tensor], where: str
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """One step of all sub-environments.

    Args:
        simulator: moves.
        actions: of all its agents, ``[num_envs, A]`` each.
        where: what messages call the environment.

    Returns:
        All agents' observations ``[num_envs, O]`` and rewards ``[num_envs]``, and where the
        scenario has ended, ``[num_envs]``.

    Raises:
        ContractError: an action is NaN or not in its space.
    """
    scenario = simulator.scenario
    for agent, action in zip(simulator.agents, actions, strict=True):
        try:
            simulator._set_action(action, agent)
        except AssertionError as error:
            raise ContractError(
                f"{where}: the action of agent {agent_name(agent)} holds NaN or is not in its "
                f"space {simulator.get_agent_action_space(agent)}. {error}"
            ) from error
    for agent in simulator.world.agents:
        scenario.env_process_action(agent)
    scenario.pre_step()
    simulator.world.step()
    scenario.post_step()
    observations, rewards = simulator._get_from_scenario(
        get_observations=True, get_rewards=True, get_infos=False, get_dones=False
    )
    return observations, rewards, scenario.done()


def still_action(simulator: Environment, agent: Agent) -> Tensor:
    """The action of an agent that does nothing ``[num_envs, A]``."""
    dtype = torch.float32 if simulator.continuous_actions else torch.int64
    size = simulator.get_agent_action_size(agent)
    return torch.zeros(simulator.num_envs, size, dtype=dtype, device=simulator.device)


def first_step(simulator: Environment, where: str) -> None:
    """One step in which nobody does anything: some attributes exist only after it."""
    step(simulator, [still_action(simulator, agent) for agent in simulator.agents], where)


def observe(simulator: Environment) -> list[Tensor]:
    """All agents' present observations, ``[num_envs, O]`` each."""
    observations: list[Tensor]
    (observations,) = simulator._get_from_scenario(
        get_observations=True, get_rewards=False, get_infos=False, get_dones=False
    )
    return observations


def draw(simulator: Environment, index: int, where: str) -> np.ndarray:
    """A picture of sub-environment ``index``, ``uint8 [H, W, 3]``, without a display.

    Raises:
        MissingExtraError: no OpenGL library to draw with; says what to install.
    """
    try:
        picture = simulator.render(mode="rgb_array", env_index=index)
    except Exception as error:
        if type(error).__module__.startswith(("vmas", "builtins")) and not isinstance(
            error, (ImportError, AttributeError)
        ):
            raise
        raise MissingExtraError(
            f"{where} cannot draw here ({type(error).__name__}: {error}). VMAS draws "
            "with pyglet over EGL, which needs no display: on Debian or Ubuntu run 'apt-get "
            "install libegl1 libgl1 libglu1-mesa', then 'pip install \"pyglet<2\"'."
        ) from error
    return np.ascontiguousarray(picture, dtype=np.uint8)
