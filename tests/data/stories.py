"""Made-up experience whose every number is its own, and what a replay of it must hold."""

from __future__ import annotations

import random
from typing import Any

import torch
from tensordict import TensorDict

from hetmarl.data import Replay
from hetmarl_envs.contract import TeamSpec
from tests.teams import UNEQUAL

NUM_ENVS, GAMMA = 3, 0.9


class Story:
    """Environments whose every observation is a number of its own, and what happened in them.

    Args:
        spec: the team.
        ends: probability that a step ends its episode, one half of them by termination.
        seed: of all that is random.
        memory: recurrent states are in the chunks too.
    """

    def __init__(
        self, spec: TeamSpec = UNEQUAL, ends: float = 0.3, seed: int = 0, memory: bool = False
    ) -> None:
        self.spec, self.ends, self.memory = spec, ends, memory
        self.random = random.Random(seed)
        self.count = 0
        self.now = [self.fresh() for _ in range(NUM_ENVS)]
        self.frames: list[list[dict[str, Any]]] = [[] for _ in range(NUM_ENVS)]

    def fresh(self) -> float:
        self.count += 1
        return float(self.count)

    def seen(self, numbers: torch.Tensor) -> dict[str, Any]:
        """What is observed at moments with these numbers ``[*B]``."""
        values: dict[str, Any] = {}

        def spread(*shape: int) -> torch.Tensor:
            return numbers.view(*numbers.shape, *(1 for _ in shape)).expand(*numbers.shape, *shape)

        for group, members in self.spec.groups.items():
            width = self.spec.agents[members[0]].observation_shape[0]
            observation = spread(len(members), width) + torch.arange(len(members))[:, None] / 10
            values[group] = {"observation": observation, "alive": spread(len(members), 1) % 3 != 0}
        if self.spec.state_dim is not None:
            values["state"] = -spread(self.spec.state_dim)
        if self.memory:
            values["hidden"] = {"left": spread(2) / 2, "critic_q1": spread(4) / 4}
        return values

    def chunk(self, steps: int) -> TensorDict:
        """The next ``steps`` vector steps ``[NUM_ENVS, steps]``."""
        for env in range(NUM_ENVS):
            for _ in range(steps):
                ended = self.random.random() < self.ends
                frame = {
                    "at": self.now[env],
                    "action": self.fresh(),
                    "reward": self.random.random(),
                    "after": self.fresh(),
                    "done": ended,
                    "terminated": ended and self.random.random() < 0.5,
                }
                self.frames[env].append(frame)
                self.now[env] = self.fresh() if ended else frame["after"]

        def column(name: str) -> torch.Tensor:
            return torch.tensor([[f[name] for f in row[-steps:]] for row in self.frames])

        root, following = self.seen(column("at")), self.seen(column("after"))
        for group, members in self.spec.groups.items():
            width = self.spec.agents[members[0]].action.dim
            action = column("action")[..., None, None].expand(-1, -1, len(members), width)
            root[group]["action"] = action
        done, terminated = column("done").unsqueeze(-1), column("terminated").unsqueeze(-1)
        following |= {"reward": column("reward").unsqueeze(-1), "done": done}
        following |= {"terminated": terminated, "truncated": done & ~terminated}
        return TensorDict(root | {"next": following}, [NUM_ENVS, steps])

    def transition(self, env: int, step: int, n_step: int) -> dict[str, Any]:
        """By the definition: up to n steps, to the episode's end or the newest frame."""
        frames = self.frames[env]
        reward, taken = 0.0, 0
        for frame in frames[step : step + n_step]:
            reward += GAMMA**taken * frame["reward"]
            taken += 1
            if frame["done"]:
                break
        return {
            "at": frames[step]["at"],
            "action": frames[step]["action"],
            "reward": reward,
            "after": frame["after"],
            "terminated": frame["terminated"],
            "steps": taken,
            "first": step == 0 or frames[step - 1]["done"],
        }

    # ------------------------------------------------------------------ going back
    def save(self) -> Any:
        return (
            [list(row) for row in self.frames],
            list(self.now),
            self.count,
            self.random.getstate(),
        )

    def load(self, saved: Any) -> None:
        frames, now, count, state = saved
        self.frames, self.now, self.count = [list(row) for row in frames], list(now), count
        self.random.setstate(state)


def equals(story: Story, data: TensorDict, expected: list[dict[str, Any]]) -> None:
    """A replay's transitions ``[B]`` are the story's."""

    def column(name: str) -> torch.Tensor:
        return torch.tensor([row[name] for row in expected])

    following = data["next"]
    assert data["steps_to_next_obs"].squeeze(1).equal(column("steps"))
    assert data["is_init"].squeeze(1).equal(column("first"))
    torch.testing.assert_close(following["reward"].squeeze(1), column("reward"))
    assert following["terminated"].squeeze(1).equal(column("terminated"))
    for group in story.spec.groups:
        assert (data[group, "action"] == column("action")[:, None, None]).all()
    for part, name in ((data, "at"), (following, "after")):
        for key, value in TensorDict(story.seen(column(name))).items(True, True):
            assert torch.equal(part[key], value), key


def places(story: Story, replay: Replay) -> list[tuple[int, int]]:
    """Environment and vector step of every frame that may be drawn."""
    newest = len(story.frames[0])
    assert replay.steps == newest
    first = max(0, newest - replay.capacity)
    assert len(replay) == (newest - first) * NUM_ENVS
    return [(env, step) for env in range(NUM_ENVS) for step in range(first, newest)]


def check(story: Story, replay: Replay, n_step: int) -> None:
    """Every transition that may be drawn is what the story says."""
    found = places(story, replay)
    env, step = (torch.tensor(column) for column in zip(*found, strict=True))
    data = replay.transitions(env, step, n_step=n_step, gamma=GAMMA)
    assert data.batch_size == (len(found),)
    equals(story, data, [story.transition(*place, n_step) for place in found])


def make(story: Story, first: TensorDict, **settings: Any) -> Replay:
    """A replay of 20 vector steps and 12 spare ones, with the first chunk in it."""
    replay = Replay(first, story.spec, **{"capacity": 20 * NUM_ENVS, "spare": 12} | settings)
    replay.extend(first)
    return replay


def index_of(spec: TeamSpec) -> dict[str, torch.Tensor]:
    """The observation index of stories: a group's agents see their number again and again."""
    index, start = {}, spec.state_dim or 0
    for group, members in spec.groups.items():
        width = spec.agents[members[0]].observation_shape[0]
        index[group] = (start + torch.arange(len(members)))[:, None].expand(-1, width)
        start += len(members)
    return index
