"""Steps a batched environment with a policy, chunk by chunk, resumably."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase, ExplorationType, set_exploration_type

from hetmarl.engines.randomness import stable_seed
from hetmarl.networks.body import HIDDEN
from hetmarl.networks.policy import TeamPolicy
from hetmarl_envs.contract import write_random_actions
from hetmarl_envs.errors import ConfigError


@dataclass
class Episodes:
    """Episodes that ended: the team's undiscounted returns and lengths in steps, each ``[N]``."""

    returns: Tensor
    lengths: Tensor


class TeamCollector:
    """Collects chunks ``[num_envs, T]`` that continue one another across episode ends.

    TorchRL's ``Collector`` runs these environments and policies as well; this one can be saved in
    the middle of an episode and taken up again (theirs cannot: its carrier and the environment's
    state are not in its ``state_dict``), and draws from streams that are functions of (seed,
    chunk), so that nothing else in the process can change what is collected.

    Args:
        env: batched, ``batch_size [num_envs]``.
        policy: the modules being trained; read, never copied.
        seed: of the acting noise.
        rank: this process's; every process acts with other noise.
        critic: a recurrent one is run along, so that its states are in the data.
    """

    def __init__(
        self,
        env: EnvBase,
        policy: TeamPolicy,
        *,
        seed: int,
        rank: int = 0,
        critic: Any = None,
    ) -> None:
        self.env, self.policy, self.spec = env, policy, policy.team
        self._critic = critic if getattr(critic, "recurrent", False) else None
        self.seed, self.rank = seed, rank
        self.num_envs: int = env.batch_size[0]
        self._carrier = env.reset()
        self._carrier["is_init"] = torch.ones_like(self._carrier["done"])
        for network in (policy, self._critic):
            if network is not None:
                network.start(self._carrier)
        self._returns = torch.zeros(self.num_envs, device=self._carrier["done"].device)
        self._lengths = torch.zeros_like(self._returns, dtype=torch.long)

    @torch.no_grad()
    def collect(
        self, steps: int, chunk: int, *, random: bool = False
    ) -> tuple[TensorDict, Episodes]:
        """Takes ``steps`` vector steps.

        Args:
            steps: length T of the chunk.
            chunk: its number in the run, which its random numbers follow from.
            random: uniform actions instead of the policy's.

        Returns:
            The chunk ``[num_envs, T]``, keys as in ``hetmarl_envs.contract`` with ``is_init``, and
            the episodes that ended in it.
        """
        policy = self.policy
        device = self._carrier["done"].device
        generator = torch.Generator(device)
        generator.manual_seed(stable_seed(self.seed, "act", chunk, self.rank))

        def noise(like: Tensor) -> Tensor:
            drawn = torch.empty(like.shape, dtype=like.dtype, device=device)
            return drawn.normal_(generator=generator).to(like.device)

        data, returns, lengths = [], [], []
        policy_noise, policy.noise = policy.noise, noise
        try:
            with set_exploration_type(ExplorationType.RANDOM):
                for _ in range(steps):
                    carrier = self._carrier
                    if random:
                        write_random_actions(carrier, self.spec, generator)
                    else:
                        policy(carrier)
                        if self._critic is not None:
                            self._critic.remember(carrier)
                    stepped, following = advance(self.env, carrier)
                    data.append(stepped)
                    after = stepped.get("next")
                    done = after.get("done").squeeze(-1)
                    self._returns += after.get("reward").squeeze(-1)
                    self._lengths += 1
                    if done.any():
                        returns.append(self._returns[done])
                        lengths.append(self._lengths[done])
                        self._returns[done] = 0.0
                        self._lengths[done] = 0
                    self._carrier = following
        finally:
            policy.noise = policy_noise
        ended = Episodes(
            torch.cat(returns) if returns else self._returns[:0],
            torch.cat(lengths) if lengths else self._lengths[:0],
        )
        return torch.stack(data, dim=1), ended  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """The moment between two chunks: tensors and plain values only.

        Raises:
            ConfigError: the environment cannot save its state.
        """
        if not can_save(self.env):
            raise ConfigError(
                f"{type(self.env).__name__} has no runtime_state(), so that a run on it cannot be "
                "resumed exactly. Give it runtime_state() and load_runtime_state(state), see "
                "docs/howto/custom_environment.md."
            )
        return {
            "env": self.env.runtime_state(),
            "carrier": self._carrier.clone().to_dict(),
            "returns": self._returns.clone(),
            "lengths": self._lengths.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to the moment of ``state_dict``."""
        self.env.load_runtime_state(state["env"])
        device = self._returns.device
        # into the reset's, whose groups have batch sizes of their own
        self._carrier.update(TensorDict(state["carrier"], device=device))
        self._returns = state["returns"].to(device)
        self._lengths = state["lengths"].to(device)


def advance(env: EnvBase, data: TensorDictBase) -> tuple[TensorDictBase, TensorDictBase]:
    """``env.step_and_maybe_reset`` that also carries what recurrent networks remember.

    Returns:
        The step, and where the next one begins, with ``is_init`` and the networks' states.
    """
    stepped, following = env.step_and_maybe_reset(data)
    return stepped, carry(stepped, following)


def carry(stepped: TensorDictBase, following: TensorDictBase) -> TensorDictBase:
    """Adds to where the next step begins what only networks know: ``is_init`` and their states."""
    following.set("is_init", stepped.get(("next", "done")))
    remembered = stepped.get(("next", HIDDEN), None)
    if remembered is not None:
        following.set(HIDDEN, remembered)
    return following


def can_save(env: EnvBase) -> bool:
    """Whether the environment can save its state and take it up again."""
    return hasattr(env, "runtime_state") and hasattr(env, "load_runtime_state")
