"""A gymnasium environment as a batched team of one (see ``GymnasiumEnv``)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import gymnasium
import torch

from hetmarl_envs.errors import (
    ConfigError,
    ContractError,
    MissingExtraError,
    UnknownNameError,
    did_you_mean,
)
from hetmarl_envs.gymnasium.saving import load, save
from hetmarl_envs.mamujoco.library import quiet
from hetmarl_envs.pettingzoo.env import PettingZooEnv
from hetmarl_envs.pettingzoo.workers import TIMEOUT, StartMethod

AGENT = "agent"


class GymnasiumEnv(PettingZooEnv):
    """``num_envs`` of gymnasium's environments for one agent, as a team of one.

    Keys as in ``PettingZooEnv``: one group ``agents`` with the one agent ``agent``, no ``alive``
    and no ``"state"``. What gymnasium calls truncated is truncated, a time limit that is; the
    observation of the last step stands under ``"next"``. An ``action_mask`` in the info is taken.

    Exact resume: an environment is saved by its attributes, those of its wrappers, its random
    stream and its MuJoCo data, as plain values and tensors. One that holds anything else (Box2D's
    world, an emulator) has no ``runtime_state``, unless it brings its own.

    Args:
        env: a name of gymnasium's registry (``"Pendulum-v1"``, ``"my_package:Mine-v0"``), or a
            function that makes an environment.
        num_envs: sub-environments.
        seed: each sub-environment is given a seed of its own at its first reset, none later.
        device: where the tensors are; the environments compute on the CPU.
        num_workers: processes that step them, 0 for none; see ``PettingZooEnv``.
        start_method, timeout: of the workers.
        **options: of the environment, handed to ``gymnasium.make``; also ``max_episode_steps``, the
            time limit in steps.

    Raises:
        UnknownNameError: no such name; names the nearest.
        ConfigError: the environment refuses the options, or is no gymnasium environment.
        ContractError: its spaces are not supported.
    """

    def __init__(
        self,
        env: str | Callable[[], Any],
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        num_workers: int = 0,
        start_method: StartMethod = "spawn",
        timeout: float | None = TIMEOUT,
        **options: Any,
    ) -> None:
        name = env if isinstance(env, str) else getattr(env, "__name__", "env")
        where = f"gymnasium/{name}"
        make = partial(_by_name, env, where, options) if isinstance(env, str) else env
        first = make()
        if not isinstance(first, gymnasium.Env):
            raise ConfigError(
                f"{where} is a {type(first).__name__}, expected a gymnasium.Env. One of the old "
                "'gym' goes through shimmy; one that is batched already is not supported."
            )
        self.task = name
        limit = getattr(first.spec, "max_episode_steps", None)
        first.reset(seed=0)
        try:
            save(first)
            kind: type[_Alone] = _Saved
        except ContractError:
            kind = _Alone
        first.close()
        super().__init__(
            lambda: kind(make()),
            num_envs=num_envs,
            seed=seed,
            device=device,
            leaving=False,
            num_workers=num_workers,
            start_method=start_method,
            timeout=timeout,
            name=where,
        )
        self.max_steps: int | None = limit


def _by_name(name: str, where: str, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    spec = gymnasium.registry.get(name)
    # whose models make MuJoCo warn, and write a file where it stands
    quietly = quiet() if "mujoco" in str(getattr(spec, "entry_point", "")) else nullcontext()
    try:
        with quietly:
            return gymnasium.make(name, disable_env_checker=True, **options)
    except (gymnasium.error.NameNotFound, gymnasium.error.VersionNotFound) as error:
        raise UnknownNameError(
            f"gymnasium has no environment '{name}'.{did_you_mean(name, gymnasium.registry)} "
            "Expected a registered name, or 'module:Name-v0', whose import registers it."
        ) from error
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise MissingExtraError(f"{where}: {error}") from error
    except (TypeError, ValueError, AssertionError, gymnasium.error.Error) as error:
        raise ConfigError(
            f"{where} cannot be made with options {options}: {type(error).__name__}: {error}"
        ) from error


class _Alone:
    """A gymnasium environment as a parallel one with a single agent."""

    possible_agents = (AGENT,)

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env
        self.agents: list[str] = []

    @property
    def unwrapped(self) -> Any:
        return self.env.unwrapped

    def observation_space(self, agent: str) -> Any:
        return self.env.observation_space

    def action_space(self, agent: str) -> Any:
        return self.env.action_space

    def reset(self, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        observation, info = self.env.reset(seed=seed)
        self.agents = [AGENT]
        return {AGENT: observation}, {AGENT: info}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        observation, reward, terminated, truncated, info = self.env.step(actions[AGENT])
        if terminated or truncated:
            self.agents = []
        values = (observation, float(reward), bool(terminated), bool(truncated), info)
        return tuple({AGENT: value} for value in values)

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


class _Saved(_Alone):
    """One whose state is known to be plain."""

    def runtime_state(self) -> dict[str, Any]:
        return {"agents": list(self.agents), "env": save(self.env)}

    def load_runtime_state(self, state: dict[str, Any]) -> None:
        load(self.env, state["env"])
        self.agents = list(state["agents"])
