"""What environments of battles have in common: a team of units against a scripted side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from hetmarl_envs.errors import ConfigError, ContractError
from hetmarl_envs.rows import done_spec, flag

GROUP = "agents"


class BattleEnv(EnvBase):
    """Specs, random legal actions, the choice of a row to draw.

    All units are one group, ``agents``: their spaces are equal, whatever unit each of them is.

    =============================  =============  ==============================
    key                            shape          meaning
    =============================  =============  ==============================
    ``("agents", "observation")``  ``[N, A, O]``  float32
    ``("agents", "action")``       ``[N, A]``     one of K choices
    ``("agents", "action_mask")``  ``[N, A, K]``  legal actions
    ``("agents", "alive")``        ``[N, A, 1]``  False for the dead
    ``"state"``                    ``[N, S]``     float32, what a critic may see
    ``("info", name)``             ``[N, 1]``     float32, of the episode so far
    ``("next", "reward")``         ``[N, 1]``     the team's
    =============================  =============  ==============================
    """

    batch_locked = True
    num_envs: int
    _where: str

    def _set_up(
        self,
        names: Sequence[str],
        *,
        observation_size: int,
        actions: int,
        state_size: int,
        info: Iterable[str],
    ) -> None:
        """Names the agents, ``A`` of them, and makes the specs from ``O``, ``K``, ``S``."""
        self.agent_names = tuple(names)
        self.group_map = {GROUP: list(names)}
        batch, device = self.batch_size, torch.device(self.device)
        shape = torch.Size([*batch, len(names)])
        seen = Composite(
            observation=Unbounded((*shape, observation_size), device=device),
            action_mask=flag((*shape, actions), device),
            alive=flag((*shape, 1), device),
            shape=shape,
        )
        one = Unbounded((*batch, 1), device=device)
        told = Composite({name: one.clone() for name in info}, shape=batch)
        state = Unbounded((*batch, state_size), device=device)
        self.observation_spec = Composite(
            {GROUP: seen, "state": state, "info": told}, shape=batch, device=device
        )
        choices = Categorical(actions, shape=shape, device=device)
        acting = Composite(action=choices, shape=shape)
        self.action_spec = Composite({GROUP: acting}, shape=batch, device=device)
        self.reward_spec = Composite(reward=one, shape=batch, device=device)
        self.done_spec = done_spec(self.num_envs, device)

    def _step_proc_data(self, next_tensordict_out: TensorDictBase) -> TensorDictBase:
        # EnvBase looks for missing flags and wrong shapes here, at every step; ``_step`` writes all
        # of them, in the shapes of the specs.
        return next_tensordict_out

    def rand_action(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        """Writes uniformly random actions, legal ones where ``tensordict`` holds masks."""
        data = super().rand_action(tensordict)
        mask = None if tensordict is None else tensordict.get((GROUP, "action_mask"), None)
        if mask is not None:
            drawn = torch.multinomial(mask.flatten(0, 1).float(), 1)
            data.set((GROUP, "action"), drawn.reshape(mask.shape[:-1]))
        return data

    def _check_legal(self, actions: Tensor, mask: Tensor) -> None:
        """Refuses ``actions [N, A]`` that ``mask [N, A, K]`` does not allow, before any is played.

        Raises:
            ContractError: names the first of them.
        """
        actions = actions.long()
        within = (actions >= 0) & (actions < mask.shape[-1])
        legal = within & mask.gather(-1, (actions * within).unsqueeze(-1)).squeeze(-1)
        if not bool(legal.all()):
            row, agent = (~legal).nonzero()[0].tolist()
            raise ContractError(
                f"{self._where}: {self.agent_names[agent]} of row {row} cannot do "
                f"{int(actions[row, agent])} now, legal are "
                f"{mask[row, agent].nonzero().flatten().tolist()}. Choose by "
                "('agents', 'action_mask')."
            )

    def _check_task(self, saved: str) -> None:
        if saved != self._where:
            raise ConfigError(
                f"this state is of {saved}, the environment is {self._where}. Make it as the saved "
                "one was made."
            )
