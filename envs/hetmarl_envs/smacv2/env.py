"""SMACv2 and SMAC as one batched TorchRL environment."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from hetmarl_envs.battle import GROUP, BattleEnv
from hetmarl_envs.options import SECONDS, check
from hetmarl_envs.rows import picture_of, rows_to_reset
from hetmarl_envs.smacv2.games import INFO, Games
from hetmarl_envs.smacv2.rendering import draw
from hetmarl_envs.smacv2.tasks import game_arguments

_log = logging.getLogger(__name__)


class SMACv2Env(BattleEnv):
    """``num_envs`` battles, each in a game and processes of its own.

    =============================  =============  ==============================================
    key                            shape          meaning
    =============================  =============  ==============================================
    ``("agents", "observation")``  ``[N, A, O]``  float32; zeros for the dead
    ``("agents", "action")``       ``[N, A]``     0 nothing (the dead), 1 stop, 2–5 move north,
                                                  south, east, west, then one per enemy to attack
                                                  (medivacs: per friend to heal)
    ``("agents", "action_mask")``  ``[N, A, K]``  legal actions
    ``("agents", "alive")``        ``[N, A, 1]``  False for the dead
    ``"state"``                    ``[N, S]``     SMAC's global state
    ``("info", name)``             ``[N, 1]``     ``battle_won``, ``dead_allies`` and
                                                  ``dead_enemies`` (shares), ``game_lost``,
                                                  ``episode_cut``, ``simulated``
    ``("next", "reward")``         ``[N, 1]``     the team's
    =============================  =============  ==============================================

    The battle's end is *terminated*, the time limit *truncated*. A game that crashes or hangs is
    started anew: its episode is truncated where it was last seen, with reward 0 in that step, and a
    warning is logged; nothing else is lost.

    Against ``simulated`` games (``hetmarl sc2sim``) the environment says so: in this attribute, in
    ``notes``, in ``("info", "simulated")`` and on every picture.

    Args:
        task: such as ``"terran_5_vs_5"`` or ``"3s5z"``.
        num_envs: games, N.
        seed: each episode follows from it, the game's number, and the episode's.
        device: where the tensors are; games compute on the CPU.
        timeout: seconds that a step may take before the game counts as hung.
        launch_timeout: seconds that starting a game or an episode may take.
        capabilities: of SMACv2's tasks, see ``tasks.game_arguments``.
        **options: of the game, ``tasks.GAME_OPTIONS``.

    Raises:
        UnknownNameError: no such task.
        ConfigError: an option is wrong.
        HetmarlError: the game does not start.
    """

    def __init__(
        self,
        task: str,
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        timeout: float = 60.0,
        launch_timeout: float = 300.0,
        capabilities: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._where = f"smacv2/{task.lower()}"
        arguments = game_arguments(task, options, capabilities)
        for name, value in (("timeout", timeout), ("launch_timeout", launch_timeout)):
            check(self._where, name, value, SECONDS)
        place = torch.device("cpu" if device is None else device)
        super().__init__(device=place, batch_size=torch.Size([num_envs]))
        self.num_envs = num_envs
        self._games = Games(
            arguments,
            num_envs,
            timeout=timeout,
            launch_timeout=launch_timeout,
            where=self._where,
        )
        sizes = self._games.sizes
        self.simulated: bool = sizes["simulated"]
        if self.simulated:
            _warn_once(sizes["version"])
        self.notes: dict[str, Any] = {"game": sizes["version"], "simulated": self.simulated}
        """What results must say of where they come from."""
        self._set_up(
            [f"agent_{i}" for i in range(sizes["agents"])],
            observation_size=sizes["obs"],
            actions=sizes["actions"],
            state_size=sizes["state"],
            info=(*INFO, "simulated"),
        )
        agents, state = sizes["entities"]
        self.entities = {GROUP: agents, "state": state}
        """Blocks of enemies and allies: see ``hetmarl_envs.entities``."""
        self._heuristic = bool(arguments.get("heuristic_ai"))  # which ignores actions
        self._started = False
        self._set_seed(seed)

    # ------------------------------------------------------------------ TorchRL's hooks
    def _set_seed(self, seed: int | None) -> None:
        self._games.seed(0 if seed is None else int(seed) % 2**63)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        self._games.reset(rows_to_reset(tensordict if self._started else None, self.num_envs))
        self._started = True
        return self._output()

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        actions = tensordict.get((GROUP, "action")).detach().cpu()
        if not self._heuristic:
            self._check_legal(actions, torch.from_numpy(self._games.choices()))
        self._games.step(actions.numpy())
        return self._output().set("reward", self._tensor(self._games.reward[:, None]))

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array.copy()).to(self.device)

    def _output(self) -> TensorDict:
        games, batch, device = self._games, self.batch_size, self.device
        seen = {
            "observation": self._tensor(games.observation),
            "action_mask": self._tensor(games.mask),
            "alive": self._tensor(games.alive[..., None]),
        }
        told = {name: self._tensor(games.info[:, i, None]) for i, name in enumerate(INFO)}
        told["simulated"] = torch.full((*batch, 1), float(self.simulated), device=device)
        terminated, truncated = games.terminated[:, None], games.truncated[:, None]
        source = {
            GROUP: TensorDict(seen, (self.num_envs, len(self.agent_names)), device),
            "state": self._tensor(games.state),
            "info": TensorDict(told, batch, device),
            "terminated": self._tensor(terminated),
            "truncated": self._tensor(truncated),
            "done": self._tensor(terminated | truncated),
        }
        return TensorDict(source, batch, device)

    # ------------------------------------------------------------------ beside TorchRL
    def runtime_state(self) -> dict[str, Any]:
        """What is needed to play the running episodes again, as tensors and plain values.

        Simulated games continue bit-exactly. StarCraft II does not repeat itself: of each game the
        episode that was running is cut off, no more.
        """
        return {
            "task": self._where,
            "started": self._started,
            "games": self._games.state_dict(),
        }

    def load_runtime_state(self, state: Mapping[str, Any]) -> None:
        """Continues where ``runtime_state`` was taken.

        Raises:
            ConfigError: the state is of another task, of other options, or of another num_envs.
        """
        self._check_task(state["task"])
        self._games.load_state_dict(state["games"], started=state["started"])
        self._started = state["started"]

    def render(self, index: int | Sequence[int] = 0) -> NDArray[Any]:
        """A picture of game ``index``, uint8 ``[480, 480, 3]``.

        Of a list of games one picture in a grid, see ``rows.picture_of``.

        Raises:
            ConfigError: no such game.
        """
        title = f"{self._where}   {self.notes['game']}"
        return picture_of(
            index, self.num_envs, lambda i: draw(self._games.units(i), title), self._where
        )

    @property
    def pids(self) -> Sequence[int]:
        """Of the games' workers, each the leader of its game's process group."""
        return self._games.pids

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Ends all games."""
        self._games.close()
        super().close(raise_if_closed=raise_if_closed)


@cache
def _warn_once(version: str) -> None:
    """Once in a process: whoever reads numbers must know where they come from."""
    _log.warning("the tasks smacv2/... run on %s: nothing here is a result on the game.", version)
