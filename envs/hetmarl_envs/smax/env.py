"""SMAX as one batched TorchRL environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from hetmarl_envs.battle import GROUP, BattleEnv
from hetmarl_envs.rows import picture_of
from hetmarl_envs.smacv2.rendering import draw
from hetmarl_envs.smax.battles import INFO, Battles
from hetmarl_envs.smax.tasks import battle_options

UNITS = ("observation", "action_mask", "alive")
FLAGS = ("terminated", "truncated")


class SMAXEnv(BattleEnv):
    """``num_envs`` battles of allied units, the agents, against JaxMARL's scripted enemies.

    =============================  =============  ==============================================
    key                            shape          meaning
    =============================  =============  ==============================================
    ``("agents", "observation")``  ``[N, A, O]``  float32; who is in sight, then oneself; zeros
                                                  for the dead
    ``("agents", "action")``       ``[N, A]``     0 to 3 move north, east, south, west, 4 stop,
                                                  then one per enemy to attack
    ``("agents", "action_mask")``  ``[N, A, K]``  legal actions; the dead may only stop
    ``("agents", "alive")``        ``[N, A, 1]``  False for the dead
    ``"state"``                    ``[N, S]``     JaxMARL's ``world_state``, in its own units
    ``("info", name)``             ``[N, 1]``     ``battle_won``, ``dead_allies`` and
                                                  ``dead_enemies`` (shares)
    ``("next", "reward")``         ``[N, 1]``     the team's, 2 in all for a victory
    =============================  =============  ==============================================

    The end of a side is *terminated*, the time limit *truncated*. All tensors are JAX's own memory
    on the CPU, and on a GPU that both know: read them, do not write into them.

    Args:
        task: a map, such as ``"3s5z"``.
        num_envs: battles, N.
        seed: of every row's random stream.
        device: where the tensors are.
        **options: see ``tasks.OPTIONS``.

    Raises:
        UnknownNameError: no such map.
        ConfigError: an option is wrong.
    """

    def __init__(
        self,
        task: str,
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        **options: Any,
    ) -> None:
        self._where = f"smax/{task}"
        settings = battle_options(self._where, options)
        place = torch.device("cpu" if device is None else device)
        super().__init__(device=place, batch_size=torch.Size([num_envs]))
        self.num_envs = num_envs
        self.max_steps: int = settings["max_steps"]
        self._battles = Battles(task, settings, num_envs, place, self._where)
        shapes = {name: self._battles.seen(name).shape for name in (*UNITS, "state")}
        self._set_up(
            self._battles.agents,
            observation_size=shapes["observation"][-1],
            actions=shapes["action_mask"][-1],
            state_size=shapes["state"][-1],
            info=INFO,
        )
        agents, state = self._battles.entities()
        self.entities = {GROUP: agents, "state": state}
        """Blocks of allies and enemies: see ``hetmarl_envs.entities``."""
        self._started = False
        self._set_seed(seed)

    # ------------------------------------------------------------------ TorchRL's hooks
    def _set_seed(self, seed: int | None) -> None:
        self._battles.seed(0 if seed is None else int(seed) % 2**63)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        which = None if tensordict is None else tensordict.get("_reset", None)
        if which is None or not self._started:
            which = torch.ones(self.num_envs, 1, dtype=torch.bool)
        self._battles.reset(which.reshape(self.num_envs, 1))
        self._started = True
        return self._output()

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        actions = tensordict.get((GROUP, "action"))
        # JaxMARL takes any number for an action, and does something with it
        self._check_legal(actions, self._seen("action_mask"))
        self._battles.step(actions)
        return self._output().set("reward", self._seen("reward"))

    def _seen(self, name: str) -> Tensor:
        return self._battles.seen(name).to(self.device)

    def _output(self) -> TensorDict:
        batch, device = self.batch_size, self.device
        units = {name: self._seen(name) for name in UNITS}
        told = {name: self._seen(name) for name in INFO}
        ends = {name: self._seen(name) for name in FLAGS}
        source = {
            GROUP: TensorDict(units, (self.num_envs, len(self.agent_names)), device),
            "state": self._seen("state"),
            "info": TensorDict(told, batch, device),
            **ends,
            "done": ends["terminated"] | ends["truncated"],
        }
        return TensorDict(source, batch, device)

    # ------------------------------------------------------------------ beside TorchRL
    def runtime_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, as tensors and plain values."""
        return {
            "task": self._where,
            "started": self._started,
            "battles": self._battles.state_dict(),
        }

    def load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Continues bit-exactly where ``runtime_state`` was taken, in an environment made alike.

        Raises:
            ConfigError: the state is of another map, or of another num_envs.
        """
        self._check_task(state["task"])
        self._battles.load_state_dict(state["battles"])
        self._started = state["started"]

    def render(self, index: int | Sequence[int] = 0) -> NDArray[Any]:
        """A picture of battle ``index``, uint8 ``[480, 480, 3]``; ours are blue.

        Of a list of battles one picture in a grid, see ``rows.picture_of``.

        Raises:
            ConfigError: no such battle.
        """
        return picture_of(
            index, self.num_envs, lambda i: draw(self._battles.units(i), self._where), self._where
        )
