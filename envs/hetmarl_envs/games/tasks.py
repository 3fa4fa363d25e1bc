"""The tasks of the family: makers ``maker(where, **options)`` whose keywords are the options."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean
from hetmarl_envs.games import TASKS, payoffs
from hetmarl_envs.games.base import GameEnv
from hetmarl_envs.games.garnet import random_game
from hetmarl_envs.games.product import ProductEnv
from hetmarl_envs.games.recall import RecallEnv
from hetmarl_envs.games.roles import RolesEnv
from hetmarl_envs.games.table_env import TableEnv
from hetmarl_envs.games.tabular import TabularGame
from hetmarl_envs.options import check, number, whole
from hetmarl_envs.registry import check_options

MAX_TABLE = 10**8
"""Most numbers in a game's transition table: 0.8 GB."""


def _played(
    where: str, payoff: torch.Tensor, repeats: int | None, shared: float | None = None, **rest: Any
) -> TableEnv:
    """A matrix game, once (terminates) or ``repeats`` times (truncated)."""
    if repeats is not None:
        check(where, "repeats", repeats, whole(1))
        shared = None if shared is None else shared * repeats
    game = TabularGame.from_matrix(payoff, repeated=repeats is not None)
    return TableEnv(game, max_steps=repeats, where=where, shared_return=shared, **rest)


def climbing(where: str, *, repeats: int | None = None, **rest: Any) -> TableEnv:
    return _played(where, payoffs.climbing(), repeats, **rest)


def penalty(where: str, *, k: float = -100.0, repeats: int | None = None, **rest: Any) -> TableEnv:
    return _played(where, payoffs.penalty(where, k), repeats, **rest)


def xor(where: str, *, repeats: int | None = None, **rest: Any) -> TableEnv:
    return _played(where, payoffs.xor(), repeats, **rest)


def trap(where: str, *, repeats: int | None = None, **rest: Any) -> TableEnv:
    return _played(where, payoffs.trap(), repeats, **rest)


def sharing(
    where: str, *, num_agents: int = 4, repeats: int | None = None, **rest: Any
) -> TableEnv:
    payoff = payoffs.sharing(where, num_agents)
    return _played(where, payoff, repeats, payoffs.shared_return(num_agents), **rest)


def matrix(where: str, *, matrix: Any = None, repeats: int | None = None, **rest: Any) -> TableEnv:
    return _played(where, payoffs.matrix(where, matrix), repeats, **rest)


def markov(
    where: str,
    *,
    states: int = 4,
    actions: Sequence[int] = (2, 3),
    density: float = 1.0,
    termination: float = 0.0,
    game_seed: int = 0,
    max_steps: int = 50,
    **rest: Any,
) -> TableEnv:
    """A random game, see ``random_game``."""
    check(where, "states", states, whole(1))
    check(where, "game_seed", game_seed, whole(0))
    check(where, "max_steps", max_steps, whole(1))
    if not isinstance(actions, Sequence) or isinstance(actions, str) or len(actions) == 0:
        raise ConfigError(
            f"{where}: actions={actions!r}, expected each agent's number of actions, as [2, 3]."
        )
    counts = tuple(check(where, "actions", count, whole(1)) for count in actions)
    size = states**2 * math.prod(counts)
    if size > MAX_TABLE:
        raise ConfigError(
            f"{where}: states={states} and actions={list(counts)} make a table of {size} numbers, "
            f"expected at most {MAX_TABLE}."
        )
    if check(where, "density", density, number(0.0, 1.0)) == 0:
        raise ConfigError(f"{where}: density=0, expected more than 0 and at most 1.")
    check(where, "termination", termination, number(0.0, 1.0))
    game = random_game(states, counts, density=density, termination=termination, seed=game_seed)
    return TableEnv(game, max_steps=max_steps, where=where, **rest)


MAKERS: dict[str, Callable[..., GameEnv]] = {
    "climbing": climbing,
    "markov": markov,
    "matrix": matrix,
    "mixed": RolesEnv,
    "penalty": penalty,
    "product": ProductEnv,
    "recall": RecallEnv,
    "roles": RolesEnv,
    "sharing": sharing,
    "trap": trap,
    "xor": xor,
}
DEFAULTS: dict[str, dict[str, Any]] = {"mixed": {"actions": ["continuous", "discrete"]}}


def make(
    task: str, *, num_envs: int, seed: int, device: torch.device | str | None, **options: Any
) -> GameEnv:
    """The environment of a task; its options are the keywords of its maker.

    Raises:
        UnknownNameError: no such task.
        ConfigError: an option is unknown, of the wrong type or out of range.
    """
    where = f"games/{task}"
    maker = MAKERS.get(task)
    if maker is None:
        raise UnknownNameError(
            f"no game '{task}'.{did_you_mean(task, TASKS)} Games: {', '.join(TASKS)}."
        )
    # TorchRL's metaclass hides the signature of an environment class
    check_options(vars(maker)["__init__"] if isinstance(maker, type) else maker, options, where)
    options = DEFAULTS.get(task, {}) | options
    return maker(where, num_envs=num_envs, seed=seed, device=device, **options)
