"""One agent's gymnasium spaces: its observation and mask as arrays, its action as PettingZoo's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchrl.data import Bounded, Categorical, MultiCategorical, TensorSpec

from hetmarl_envs.errors import ContractError

if TYPE_CHECKING:
    from gymnasium.spaces import Space

Array = NDArray[Any]
MaskPlace = Literal["observation", "info"]
MASK = "action_mask"


class AgentSpaces:
    """How one agent's numbers are read and written.

    Observations become float32 arrays in the shape of their ``Box``; what is no ``Box`` (a
    ``Discrete``, a ``Dict`` of several parts) is flattened as ``gymnasium.spaces.flatten`` does.
    The key ``action_mask`` of a ``Dict`` is no part of the observation but the mask.

    Args:
        observation: the agent's observation space.
        action: ``Box`` with finite bounds, ``Discrete`` or ``MultiDiscrete``.
        info: the agent's info after a reset; with an ``action_mask`` in it, masks come from there.
            None: it is not there yet, and may bring masks or not.
        where: what messages call the environment and agent.

    Raises:
        ContractError: a space is none of these.
    """

    def __init__(
        self, observation: Space[Any], action: Space[Any], info: dict[str, Any] | None, where: str
    ) -> None:
        from gymnasium import spaces

        self.where = where
        self.mask_in: MaskPlace | None = None
        self._part: str | None = None
        if isinstance(observation, spaces.Dict) and MASK in observation.spaces:
            self.mask_in = "observation"
            rest = {key: space for key, space in observation.spaces.items() if key != MASK}
            if len(rest) == 1:
                self._part, observation = next(iter(rest.items()))
            else:
                observation = spaces.Dict(rest)
        elif info is not None and MASK in info:
            self.mask_in = "info"
        self.observation = observation
        self._flat = not isinstance(observation, spaces.Box)
        box = spaces.flatten_space(observation) if self._flat else observation
        if not isinstance(box, spaces.Box):
            raise ContractError(
                f"{where} observes {observation}, which has no fixed size. Expected a Box, or what "
                "gymnasium.spaces.flatten makes one of."
            )
        self.observation_shape: tuple[int, ...] = box.shape
        self.action = action
        self._read_action_space()
        self._may_lack_mask = info is None and self.mask_in is None
        if self._may_lack_mask and self.choices:
            self.mask_in = "info"

    def _read_action_space(self) -> None:
        from gymnasium import spaces

        action = self.action
        self.choices: tuple[int, ...] = ()
        if isinstance(action, spaces.Discrete):
            self.choices = (int(action.n),)
        elif isinstance(action, spaces.MultiDiscrete) and action.nvec.ndim == 1:
            self.choices = tuple(int(n) for n in action.nvec)
        elif not isinstance(action, spaces.Box) or not np.issubdtype(action.dtype, np.floating):
            raise ContractError(
                f"{self.where} acts in {action}. Expected a Box of floating-point numbers, a "
                "Discrete, or a MultiDiscrete with one axis."
            )
        elif not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
            raise ContractError(
                f"{self.where} acts in {action}, which has no bounds. Give the Box a finite low "
                "and high: policies scale their actions to them."
            )
        if self.mask_in and not self.choices:
            raise ContractError(
                f"{self.where} has an action_mask for {action}. Masks belong to choices: Discrete "
                "or MultiDiscrete."
            )
        self.single = isinstance(action, spaces.Discrete)
        self.width = sum(self.choices) if self.choices else int(np.prod(action.shape or (1,)))
        self._start: Any = getattr(action, "start", 0)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What must be equal for two agents to share a group."""
        return self.observation, self.action, self.mask_in

    # ------------------------------------------------------------------ reading
    def read_observation(self, observation: Any) -> Array:
        """The observation as an array of ``observation_shape``.

        Raises:
            ContractError: it has another shape.
        """
        if self._part is not None:
            observation = observation[self._part]
        if self._flat:
            from gymnasium.spaces import flatten

            observation = flatten(self.observation, observation)
        found = np.asarray(observation)
        if found.shape != self.observation_shape:
            raise ContractError(
                f"{self.where}: the observation has shape {list(found.shape)}, its space is "
                f"{self.observation}."
            )
        return found

    def read_mask(self, observation: Any, info: dict[str, Any]) -> Array:
        """The legal choices ``[ΣK_d]``, True where legal; of an agent with ``mask_in``.

        Raises:
            ContractError: it is missing, of another size, or leaves nothing to choose.
        """
        mask = (observation if self.mask_in == "observation" else info).get(MASK)
        if mask is None and self._may_lack_mask:
            return np.ones(self.width, bool)
        if isinstance(mask, (tuple, list)):  # MultiDiscrete: one mask per component
            mask = np.concatenate([np.ravel(part) for part in mask])
        found = np.ravel(mask).astype(bool) if mask is not None else np.zeros(0, bool)
        if found.size != self.width:
            raise ContractError(
                f"{self.where}: action_mask has {found.size} entries, expected {self.width}, one "
                f"per choice of {self.action}, at every reset and step."
            )
        if not all(part.any() for part in self._parts(found)):
            raise ContractError(
                f"{self.where}: action_mask leaves nothing to choose. Mark at least one choice of "
                f"{self.action} as legal while the agent lives."
            )
        return found

    def last_mask(self, observation: Any, info: dict[str, Any]) -> Array:
        """The mask of an agent that leaves, all choices where it has no valid one any more."""
        try:
            return self.read_mask(observation, info)
        except ContractError:
            return np.ones(self.width, bool)

    def _parts(self, mask: Array) -> list[Array]:
        return np.split(mask, np.cumsum(self.choices)[:-1])

    # ------------------------------------------------------------------ acting
    def spec(self, shape: torch.Size, device: torch.device) -> TensorSpec:
        """The spec of a batch of such agents' actions, ``[*shape]`` or ``[*shape, A]``."""
        if not self.choices:
            low, high = (
                torch.as_tensor(bound.ravel(), dtype=torch.float32, device=device)
                .expand(*shape, self.width)
                .clone()
                for bound in (self.action.low, self.action.high)  # type: ignore[attr-defined]
            )
            return Bounded(low, high, low.shape, dtype=torch.float32, device=device)
        if self.single:
            return Categorical(self.choices[0], shape, dtype=torch.int64, device=device)
        nvec = torch.tensor(self.choices, device=device).expand(*shape, -1)
        return MultiCategorical(nvec, (*shape, len(self.choices)), dtype=torch.int64, device=device)

    def write_actions(self, actions: Array, acting: Array) -> Array | list[Any]:
        """Actions of several agents as PettingZoo takes them.

        Real ones are clipped to the bounds: a squashed policy may leave them by a rounding.

        Args:
            actions: ``[M, ...]`` in the spec's layout.
            acting: whose will be used ``[M]``.

        Raises:
            ContractError: one that is used is not a number, or no choice of the space.
        """
        used = actions[acting]
        if not self.choices:
            if not np.isfinite(used).all():
                raise ContractError(f"{self.where}: the action holds NaN or infinity.")
            box: Any = self.action
            actions = actions.reshape(len(actions), *box.shape).astype(box.dtype)
            return np.clip(actions, box.low, box.high)
        choices = self.choices[0] if self.single else self.choices
        if (used < 0).any() or (used >= choices).any():
            raise ContractError(f"{self.where}: the action is no choice of {self.action}.")
        if self.single:
            return (actions + int(self._start)).tolist()
        return (actions + self._start).astype(self.action.dtype)

    def random_action(self, share: Array, mask: Array | None) -> Any:
        """A uniform legal action from ``share``, numbers in [0, 1), one per dimension of action."""
        if not self.choices:
            box: Any = self.action
            part = share.reshape(box.shape)
            return (box.low + part * (box.high - box.low)).astype(box.dtype)
        masks = self._parts(np.ones(self.width, bool) if mask is None else mask)
        legal = [np.flatnonzero(part) for part in masks]
        pairs = zip(share, legal, strict=True)
        return self._choose([int(options[int(u * len(options))]) for u, options in pairs])

    def still_action(self, mask: Array | None) -> Any:
        """Zeros (or the bound next to it), the first legal choice."""
        if not self.choices:
            box: Any = self.action
            return np.clip(np.zeros(box.shape, box.dtype), box.low, box.high)
        if mask is None:
            return self._choose([0] * len(self.choices))
        return self._choose([int(np.argmax(part)) for part in self._parts(mask)])

    def _choose(self, choice: list[int]) -> Any:
        if self.single:
            return choice[0] + int(self._start)
        return (np.array(choice) + self._start).astype(self.action.dtype)

    @property
    def dims(self) -> int:
        """Dimensions of an action: real numbers, or components."""
        return len(self.choices) or self.width
