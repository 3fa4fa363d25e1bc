"""N battles in rows, computed by JaxMARL, exchanged with torch without copying."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from hetmarl_envs.battle import GROUP
from hetmarl_envs.entities import Entities
from hetmarl_envs.errors import UnknownNameError, did_you_mean
from hetmarl_envs.rows import read_saved
from hetmarl_envs.smax.library import load_smax

INFO = ("battle_won", "dead_allies", "dead_enemies")
"""Of a row's episode so far: won or not, shares of the dead."""


class Rows(NamedTuple):
    """Battles side by side, the row first in every array; outside of ``Program`` ``[N, …]``.

    ``key``: random numbers to come, uint32 ``[2]``. ``battle``: JaxMARL's state.

    ``seen``: what was last given, by name.

    ==========================  ==========  ==================================================
    name                        shape       meaning
    ==========================  ==========  ==================================================
    ``observation``             ``[A, O]``  zeros for the dead
    ``action_mask``             ``[A, K]``  the dead may only stop
    ``alive``                   ``[A, 1]``
    ``state``                   ``[S]``     JaxMARL's ``world_state``
    ``reward``                  ``[1]``     of the last step
    ``terminated``              ``[1]``     a side is dead
    ``truncated``               ``[1]``     the time limit, and neither is
    ``INFO``                    ``[1]``
    ==========================  ==========  ==================================================
    """

    key: Any
    battle: Any
    seen: dict[str, Any]


class Program(NamedTuple):
    """A map's functions; ``reset`` and ``step`` are compiled when N is new to them.

    ``shapes``: keys ``[N, 2]`` → Rows of shapes and types. ``reset``: Rows, which of them
    ``[N, 1]`` → Rows. ``step``: Rows, actions int32 ``[N, A]`` → Rows.
    """

    env: Any
    shapes: Callable[..., Rows]
    reset: Callable[..., Rows]
    step: Callable[..., Rows]


@cache
def program(task: str, options: tuple[tuple[str, Any], ...]) -> Program:
    """The functions of a map; one that is asked for again is not compiled again.

    Raises:
        UnknownNameError: JaxMARL has no such map.
    """
    smax = load_smax()
    maps = smax.smax_env.MAP_NAME_TO_SCENARIO
    if task not in maps:
        raise UnknownNameError(
            f"SMAX has no map '{task}'.{did_you_mean(task, maps)} Maps: {', '.join(maps)}."
        )
    env = smax.HeuristicEnemySMAX(scenario=maps[task], **dict(options))

    def begin(key: Any) -> Rows:
        now, later = _split(key)
        observations, battle = env.reset(now)
        return _fixed(Rows(later, battle, _seen(env, observations, battle, 0.0)))

    def reset(row: Rows, whether: Any) -> Rows:
        def choose(new: Any, old: Any) -> Any:
            return jnp.where(whether[0], new, old)

        return jax.tree.map(choose, begin(row.key), row)

    def step(row: Rows, actions: Any) -> Rows:
        now, later = _split(row.key)
        chosen = {name: actions[i] for i, name in enumerate(env.agents)}
        # not JaxMARL's ``step``, which would begin the next episode and lose the last observation
        observations, battle, rewards, _, _ = env.step_env(now, row.battle, chosen)
        reward = rewards[env.agents[0]]  # the same for all
        return _fixed(Rows(later, battle, _seen(env, observations, battle, reward)))

    return Program(
        env,
        shapes=partial(jax.eval_shape, jax.vmap(begin)),
        reset=jax.jit(jax.vmap(reset)),
        step=jax.jit(jax.vmap(step)),
    )


def _split(key: Any) -> tuple[Any, Any]:
    """A key to use now, and the one for later."""
    now, later = jax.random.split(jax.random.wrap_key_data(key, impl="threefry2x32"))
    return now, jax.random.key_data(later)


def _seen(env: Any, observations: Mapping[str, Any], battle: Any, reward: Any) -> dict[str, Any]:
    """``Rows.seen`` of one row."""
    legal = env.get_avail_actions(battle)
    units = battle.state
    allies, enemies = units.unit_alive[: env.num_allies], units.unit_alive[env.num_allies :]
    won = allies.any() & ~enemies.any()
    over = ~allies.any() | ~enemies.any()
    numbers = {
        "reward": reward,
        "battle_won": won,
        "dead_allies": (~allies).mean(),
        "dead_enemies": (~enemies).mean(),
    }
    flags = {"terminated": over, "truncated": (units.step >= env.max_steps) & ~over}
    return {
        "observation": _stack(env, observations).astype(jnp.float32),
        "action_mask": _stack(env, legal).astype(bool),
        "alive": allies[:, None],
        "state": observations["world_state"].astype(jnp.float32),
        **{name: jnp.asarray(value, jnp.float32)[None] for name, value in numbers.items()},
        **{name: value[None] for name, value in flags.items()},
    }


def _stack(env: Any, values: Mapping[str, Any]) -> Any:
    return jnp.stack([values[name] for name in env.agents])


def _fixed(rows: Rows) -> Rows:
    """The same with types that later steps do not change, so that nothing is compiled twice."""
    return jax.tree.map(lambda value: jnp.asarray(value, jnp.asarray(value).dtype), rows)


class Battles:
    """``count`` battles on a map.

    What ``seen`` gives are JAX's own arrays, to be read only; every step and reset makes new ones.

    Args:
        task: the map.
        options: all of ``tasks.OPTIONS``.
        count: rows, N.
        device: of the tensors. JAX computes there too, or on the CPU where it knows no GPU.
        where: what messages call the environment.

    Raises:
        UnknownNameError: no such map.
    """

    def __init__(
        self, task: str, options: Mapping[str, Any], count: int, device: torch.device, where: str
    ) -> None:
        self._program = program(task, tuple(sorted(options.items())))
        self.env, self.where, self._count = self._program.env, where, count
        self._device, self._place = _places(device)
        shapes = self._program.shapes(self._keys(0))
        self._rows = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype, device=self._place), shapes)
        self.agents: list[str] = list(self.env.agents)

    def seed(self, seed: int) -> None:
        """Starts every row's random stream anew."""
        self._rows = self._rows._replace(key=self._keys(seed))

    def _keys(self, seed: int) -> Any:
        words = np.random.SeedSequence(seed).generate_state(2 * self._count, np.uint32)
        return jax.device_put(words.reshape(self._count, 2), self._place)

    def reset(self, which: Tensor) -> None:
        """New battles in some rows, ``which [N, 1]``; the others stay as they are."""
        self._rows = self._program.reset(self._rows, self._to_jax(which))

    def step(self, actions: Tensor) -> None:
        """One step of every row; ``actions [N, A]``."""
        self._rows = self._program.step(self._rows, self._to_jax(actions.to(torch.int32)))

    def seen(self, name: str) -> Tensor:
        """``[N, …]``, of the table of ``Rows``."""
        return from_dlpack(self._rows.seen[name])

    def units(self, row: int) -> list[tuple[Any, ...]]:
        """The living of a row: player (1 ours, 2), type, x, y, radius, life, shield (none)."""
        state = jax.tree.map(lambda value: np.asarray(value[row]), self._rows.battle.state)
        kinds = state.unit_types
        life = state.unit_health / np.asarray(self.env.unit_type_health)[kinds]
        radius = np.asarray(self.env.unit_type_radiuses)[kinds]
        side = np.where(np.arange(len(kinds)) < self.env.num_allies, 1, 2)
        x, y = state.unit_positions.T
        columns = (side, kinds, x, y, radius, life, np.zeros(len(kinds)))
        units = zip(*(column.tolist() for column in columns), strict=True)
        return [unit for unit, alive in zip(units, state.unit_alive, strict=True) if alive]

    def entities(self) -> tuple[list[tuple[Entities, ...]], list[Entities]]:
        """The blocks of each agent's observation, and those of the state."""
        env = self.env
        sides, width = (env.num_allies, env.num_enemies), len(env.unit_features)
        allies = Entities("allies", 0, sides[0] - 1, width)
        targets = (*range(env.num_movement_actions, env.num_ally_actions),)
        enemies = Entities("enemies", allies.stop, sides[1], width, targets)
        width = len(env.own_features)
        team = Entities(GROUP, 0, sides[0], width)
        seen = (allies, enemies) if allies.count else (enemies,)  # who is alone has no allies
        return [seen] * sides[0], [team, Entities("enemies", team.stop, sides[1], width, targets)]

    def _to_jax(self, tensor: Tensor) -> Any:
        return jax.dlpack.from_dlpack(tensor.to(self._device).contiguous())

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Tensor]:
        """All numbers of all rows by their names in JaxMARL's state, as copies."""
        return {name: from_dlpack(a).clone() for name, a in self._arrays().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``.

        Raises:
            ConfigError: it is of another map, or of another number of rows.
        """
        ours = self._arrays()
        saved = read_saved(state, ours, self.where)
        leaves = [jax.device_put(saved[name].copy(), self._place) for name in ours]
        self._rows = jax.tree.unflatten(jax.tree.structure(self._rows), leaves)

    def _arrays(self) -> dict[str, Any]:
        leaves = jax.tree_util.tree_leaves_with_path(self._rows)
        return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _places(device: torch.device) -> tuple[torch.device, Any]:
    """Where torch and JAX meet: the torch device given to JAX, and JAX's."""
    if device.type == "cuda":
        try:
            return device, jax.devices("gpu")[device.index or 0]
        except RuntimeError:  # JAX without CUDA
            pass
    return torch.device("cpu"), jax.devices("cpu")[0]
