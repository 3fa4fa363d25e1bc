"""Steps a batched environment with a policy, chunk by chunk, resumably."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase, ExplorationType, set_exploration_type

from hetmarl.engines.randomness import stable_seed
from hetmarl.networks.body import HIDDEN
from hetmarl.networks.packed import for_acting
from hetmarl.networks.policy import TeamPolicy
from hetmarl_envs.contract import TeamSpec, write_random_actions
from hetmarl_envs.errors import ConfigError


@dataclass
class Episodes:
    """Episodes that ended: the team's undiscounted returns and lengths in steps, each ``[N]``.

    ``info``: what the environment tells of them at their ends, name to ``[N]``.
    """

    returns: Tensor
    lengths: Tensor
    info: dict[str, Tensor] = field(default_factory=dict)


class EpisodeTotals:
    """Adds up returns and lengths of the episodes in progress, ``[num_envs]`` each.

    Which of them ended is looked up once, in ``pop``: a device is not waited for at every step.
    """

    def __init__(self, num_envs: int, device: torch.device | None = None) -> None:
        self.returns = torch.zeros(num_envs, device=device)
        self.lengths = torch.zeros(num_envs, device=device, dtype=torch.long)
        self._steps: list[tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]] = []

    def add(self, after: TensorDictBase) -> None:
        """One step of every environment, its ``"next"`` ``[num_envs]``."""
        done = after.get("done").squeeze(-1)
        returns, lengths = self.returns + after.get("reward").squeeze(-1), self.lengths + 1
        self._steps.append((done, returns, lengths, episode_info(after)))
        self.returns, self.lengths = returns.masked_fill(done, 0.0), lengths.masked_fill(done, 0)

    def pop(self) -> Episodes:
        """Those that ended since the last call."""
        steps, self._steps = self._steps, []
        if not steps:
            return Episodes(self.returns[:0], self.lengths[:0])
        done, returns, lengths, infos = zip(*steps, strict=True)
        ended = torch.stack(done).nonzero(as_tuple=True)

        def at_ends(values: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(values))[ended]

        info = {name: at_ends([step[name] for step in infos]) for name in infos[0]}
        return Episodes(at_ends(returns), at_ends(lengths), info)


def check_same_team(env: EnvBase, team: TeamSpec) -> None:
    """Refuses, and closes, an environment of another team than the policy's.

    Raises:
        ConfigError: the two teams.
    """
    found = TeamSpec.from_env(env)
    if found != team:
        env.close()
        raise ConfigError(
            "the environment of the DataModule and the one that the algorithm was made for "
            f"differ: {found} and {team}."
        )


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
        self._totals = EpisodeTotals(self.num_envs, self._carrier["done"].device)

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
        policy, act = self.policy, for_acting(self.policy, self.num_envs)
        device = self._carrier["done"].device
        generator = torch.Generator(device)
        generator.manual_seed(stable_seed(self.seed, "act", chunk, self.rank))

        def noise(like: Tensor) -> Tensor:
            drawn = torch.empty(like.shape, dtype=like.dtype, device=device)
            return drawn.normal_(generator=generator).to(like.device)

        data = []
        policy_noise, policy.noise = policy.noise, noise
        try:
            with set_exploration_type(ExplorationType.RANDOM):
                for _ in range(steps):
                    carrier = self._carrier
                    if random:
                        if policy.recurrent:
                            policy(carrier)  # their memories are of what they see, whoever acts
                        write_random_actions(carrier, self.spec, generator)
                    else:
                        act(carrier)
                        if self._critic is not None:
                            self._critic.remember(carrier)
                    stepped, following = advance(self.env, carrier)
                    data.append(stepped)
                    self._totals.add(stepped.get("next"))
                    self._carrier = following
        finally:
            policy.noise = policy_noise
        return torch.stack(data, dim=1), self._totals.pop()  # type: ignore[arg-type]

    @property
    def can_save(self) -> bool:
        """Whether ``state_dict`` has all that it takes to go on."""
        return can_save(self.env)

    def close(self) -> None:
        """Closes the environments; may be called twice."""
        if not self.env.is_closed:
            self.env.close()

    def state_dict(self) -> dict[str, Any]:
        """The moment between two chunks: tensors and plain values only.

        Raises:
            ConfigError: the environment cannot save its state.
        """
        if not self.can_save:
            raise ConfigError(
                f"{type(self.env).__name__} has no runtime_state(), so that a run on it cannot be "
                "resumed exactly. Give it runtime_state() and load_runtime_state(state), see "
                "docs/howto/custom_environment.md."
            )
        return {
            "env": self.env.runtime_state(),
            "carrier": self._carrier.clone().to_dict(),
            "returns": self._totals.returns.clone(),
            "lengths": self._totals.lengths.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to the moment of ``state_dict``.

        Raises:
            ConfigError: the state is that of actors in other processes.
        """
        if "env" not in state:
            raise ConfigError(
                "this run collected with data.mode=async or ray, and its checkpoint holds no "
                "environments: resume it in that mode."
            )
        self.env.load_runtime_state(state["env"])
        device = self._totals.returns.device
        # into the reset's, whose groups have batch sizes of their own
        self._carrier.update(TensorDict(state["carrier"], device=device))
        self._totals.returns = state["returns"].to(device)
        self._totals.lengths = state["lengths"].to(device)


def episode_info(after: TensorDictBase) -> dict[str, Tensor]:
    """Each ``("info", name)`` of a step's ``"next"`` ``[N]``, as ``[N]``, by name."""
    info = after.get("info", None)
    names = [] if info is None else sorted(info.keys())
    return {name: info.get(name).squeeze(-1) for name in names}


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
