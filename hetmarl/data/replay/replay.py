"""Transitions and sequences drawn from a ring of frames."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from hetmarl.data.replay.ring import _DONE, _FIRST, _TERMINATED, Ring
from hetmarl_envs.errors import ConfigError, HetmarlError


class Replay(Ring):
    """A ring of the last ``capacity`` frames, sampled as n-step transitions or as sequences.

    Drawn uniformly, or with ``priority_alpha`` by priority: frames whose value was predicted badly
    more often (Schaul et al. 2016, arXiv 1511.05952). A batch then has ``index [B, 1]`` and
    ``priority_weight [B, 1]``; the loss multiplies each sample's by the weight, and its errors go
    back by ``update_priority``.

    Arguments are ``Ring``'s.
    """

    @property
    def prioritized(self) -> bool:
        """Whether frames are drawn by priority."""
        return self._priorities is not None

    def update_priority(self, index: Tensor, td_error: Tensor) -> None:
        """Takes note of how far the value of drawn frames was from its target.

        Args:
            index: ``"index" [B, 1]`` of a batch; frames that are gone by now are left out.
            td_error: ``[B, 1]``, of any sign.

        Raises:
            ConfigError: the replay has no priorities, or the two are not of the same size.
        """
        if self._priorities is None:
            raise ConfigError("replay: no priorities to update; make it with priority_alpha.")
        if index.numel() != td_error.numel():
            raise ConfigError(
                f"replay: {td_error.numel()} errors for {index.numel()} frames; expected one each."
            )
        frame = index.flatten().to(self.device)
        env, step = frame % self.num_envs, frame // self.num_envs
        there = step >= self.first
        error = td_error.detach().flatten().to(self.device)
        self._priorities.update(self._at(env, step)[there], error[there])

    def cut(self) -> None:
        """Ends the episodes in progress, by truncation: the next chunk begins with fresh ones.

        The newest steps' successors become final observations, and stay what they are. (On disk,
        where the run was resumed from this very checkpoint before, they are that already.)
        """
        env = torch.arange(self.num_envs, device=self.device)
        newest = self._at(env, torch.full_like(env, self.steps - 1))
        newest = newest[(self._flags[newest] & _DONE) == 0]
        successor = self._at(newest // self.slots, torch.full_like(newest, self.steps))
        rows = {name: array.index_select(0, successor) for name, array in self._observed.items()}
        places = self._finals.put(rows, gone=newest[:0])
        self._final_at[newest] = places.int()
        self._flags[newest] |= _DONE

    # ------------------------------------------------------------------ drawing
    def sample(
        self,
        batch_size: int,
        *,
        n_step: int = 1,
        gamma: float = 0.99,
        beta: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> TensorDict:
        """Transitions that start at drawn frames and take up to ``n_step`` steps.

        A transition stops at the end of its episode and at the newest step. With k the steps
        actually taken, R = Σ_{j<k} γʲ r_{t+j}.

        Args:
            batch_size: number B of transitions, drawn with replacement.
            n_step: steps at most.
            gamma: discount γ within the transition.
            beta: of the importance weights, 0 to 1: how much of the bias they correct.
            generator: of the draw, on the CPU.

        Returns:
            ``[B]``: observations (state, alive, action_mask) and actions at the start;
            under ``"next"`` the observations after the last step (the true final ones where it
            ended an episode), ``reward [B, 1]`` R, ``terminated [B, 1]``; ``steps_to_next_obs
            [B, 1]`` k; ``is_init [B, 1]``, where an episode begins; recurrent states, if the
            chunks had any, as observations; with priorities ``index [B, 1]`` and
            ``priority_weight [B, 1]``.
        """
        env, step, drawn = self._draw(batch_size, beta, generator)
        data = self.transitions(env, step, n_step=n_step, gamma=gamma)
        return data.update(drawn)

    def sample_sequences(
        self,
        batch_size: int,
        length: int,
        burn_in: int = 0,
        *,
        n_step: int = 1,
        gamma: float = 0.99,
        beta: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> TensorDict:
        """Slices in time that begin at drawn frames, for networks with a memory.

        A slice may begin anywhere and goes on over ends of episodes, where ``is_init`` tells. With
        the recurrent states stored at its start it needs no more; those are of older networks, so
        that ``burn_in`` steps before those learned from bring them up to date (R2D2; Kapturowski
        et al. 2019).

        Args:
            batch_size: number B of slices.
            length: steps of each to learn from.
            burn_in: steps before those.
            n_step: steps of each transition at most; it stops at the end of its slice too, so that
                the memory before its last observation is one that the slice runs through.
            gamma: as in ``sample``.
            beta: as in ``sample``.
            generator: as in ``sample``.

        Returns:
            ``[B, burn_in + length]``: as ``sample``'s for every step, and ``valid [B, T, 1]``,
            False past the newest step (what stands there repeats it, with reward 0). ``index`` and
            ``priority_weight`` are those of the slice's first frame at every step.
        """
        if length < 1 or burn_in < 0:
            raise ConfigError(
                f"replay: sequences with length={length} and burn_in={burn_in}; expected at least "
                "1 step, after 0 or more."
            )
        env, step, drawn = self._draw(batch_size, beta, generator)
        data = self.sequences(env, step, burn_in + length, n_step=n_step, gamma=gamma)
        spread = {k: v.unsqueeze(1).expand(*data.shape, 1) for k, v in drawn.items()}
        return data.update(spread)

    def _draw(
        self, batch_size: int, beta: float, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Environments ``[B]``, vector steps ``[B]``, and what there is to say of the draw."""
        if self.steps == 0:
            raise HetmarlError("replay: nothing to sample yet; extend it with a chunk first.")
        if self._priorities is None:
            drawn = torch.randint(len(self), (batch_size,), generator=generator).to(self.device)
            return drawn % self.num_envs, self.first + drawn // self.num_envs, {}
        # one from each of B equal shares, as in the paper's algorithm 1: less variance
        within = torch.rand(batch_size, dtype=torch.float64, generator=generator)
        share = (torch.arange(batch_size) + within) / batch_size
        at = self._priorities.draw(share.to(self.device))
        env = at // self.slots
        step = self.first + (at % self.slots - self.first) % self.slots
        weight = self._priorities.weight(at, beta).to(self._reward.dtype)
        index = step * self.num_envs + env
        return env, step, {"index": index[:, None], "priority_weight": weight[:, None]}

    # ------------------------------------------------------------------ reading
    def transitions(self, env: Tensor, step: Tensor, *, n_step: int, gamma: float) -> TensorDict:
        """The transitions that start at environments ``env [B]`` and vector steps ``step [B]``."""
        steps = step[:, None] + torch.arange(n_step, device=self.device)  # [B, n]
        at = self._at(env[:, None], steps)
        flags = self._flags[at]
        reward, count = n_step_return(
            self._reward[at], (flags & _DONE).bool(), steps < self.steps, gamma
        )
        last = count - 1
        after = self._at(env, step + count.squeeze(1))
        start = at[:, 0]
        observed = {name: array.index_select(0, start) for name, array in self._observed.items()}
        following = {name: array.index_select(0, after) for name, array in self._observed.items()}
        data = self._before_acting(observed, start, flags[:, 0])
        self._add_next(data, following, flags.gather(1, last), at.gather(1, last), reward, count)
        return TensorDict(data, [len(step)])

    def sequences(
        self, env: Tensor, step: Tensor, length: int, *, n_step: int, gamma: float
    ) -> TensorDict:
        """The slices ``[B, length]`` that start at ``env [B]`` and vector steps ``step [B]``."""
        steps = step[:, None] + torch.arange(length + 1, device=self.device)  # [B, T + 1]
        valid = steps[:, :-1] < self.steps
        places = self._at(env[:, None], steps.clamp_max(self.steps))
        observed = {
            name: array.index_select(0, places.flatten()).view(*places.shape, -1)
            for name, array in self._observed.items()
        }
        at = self._at(env[:, None], steps[:, :-1].clamp_max(self.steps - 1))
        flags = self._flags[at] * valid  # [B, T]

        def windows(values: Tensor) -> Tensor:
            """``[B, T]`` to what each step's transition may take, ``[B, T, n]``."""
            return torch.nn.functional.pad(values, (0, n_step - 1)).unfold(1, n_step, 1)

        done = (flags & _DONE).bool()
        reward, count = n_step_return(
            windows(self._reward[at]), windows(done), windows(valid), gamma
        )
        count = count.clamp_min(1)
        column = torch.arange(length, device=self.device)[:, None] + count  # [B, T, 1]
        row = torch.arange(len(step), device=self.device)[:, None, None]
        following = {n: rows[row, column].squeeze(2) for n, rows in observed.items()}
        last = (column - 1).squeeze(2)
        data = self._before_acting({n: r[:, :-1] for n, r in observed.items()}, at, flags)
        data["valid"] = valid.unsqueeze(-1)
        ends, where = flags.gather(1, last), at.gather(1, last)
        self._add_next(data, following, ends.unsqueeze(-1), where.unsqueeze(-1), reward, count)
        return TensorDict(data, [len(step), length])

    def _before_acting(
        self, observed: dict[str, Tensor], at: Tensor, flags: Tensor
    ) -> dict[str, Any]:
        """Observations of the rows ``[*B, W]``, and the rest of the frames at ``at [*B]``."""
        data = self._before.unpack(observed, {})
        actions = {
            name: array.index_select(0, at.flatten()).view(*at.shape, -1)
            for name, array in self._action.items()
        }
        data["is_init"] = (flags & _FIRST).bool().unsqueeze(-1)
        return self._acts.unpack(actions, data)

    def _add_next(
        self,
        data: dict[str, Any],
        following: dict[str, Tensor],
        flags: Tensor,
        last: Tensor,
        reward: Tensor,
        count: Tensor,
    ) -> None:
        """Adds what a transition ends with.

        Args:
            data: of the transitions ``[*B]``.
            following: rows ``[*B, W]`` of the frame after the last step, to be changed where that
                is another episode's.
            flags: of the last step ``[*B, 1]``.
            last: where the last step is ``[*B, 1]``.
            reward: ``[*B, 1]``.
            count: steps taken ``[*B, 1]``.
        """
        ended = (flags & _DONE).bool().squeeze(-1)
        if ended.any():
            places = self._final_at[last.squeeze(-1)[ended]].long()
            for name, rows in following.items():
                rows[ended] = self._finals.arrays[name].index_select(0, places)
        data["steps_to_next_obs"] = count
        data["next"] = self._before.unpack(following, {})
        data["next"]["reward"] = reward
        data["next"]["terminated"] = (flags & _TERMINATED).bool()


def n_step_return(
    reward: Tensor, done: Tensor, exists: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """Discounted sum of the rewards up to the end of the episode.

    Args:
        reward: of the steps that may be taken ``[*B, n]``.
        done: where an episode ends ``[*B, n]``.
        exists: which of the steps were taken ``[*B, n]``; a beginning of them.
        gamma: discount γ.

    Returns:
        R = Σ_{j<k} γʲ r_j and the steps k, both ``[*B, 1]``.
    """
    taken = exists.clone()
    taken[..., 1:] &= ~done[..., :-1].cummax(dim=-1).values
    discounts = gamma ** torch.arange(reward.shape[-1], device=reward.device)
    return (reward * discounts * taken).sum(-1, keepdim=True), taken.sum(-1, keepdim=True)
