"""What an environment tells of its episodes, ``("info", name)``, reaches every result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tensordict import TensorDict
from torchrl.data import Composite, Unbounded

from hetmarl.data import TeamCollector, evaluate
from hetmarl.networks import NetworkConfig, TeamPolicy
from hetmarl_envs.check import check_team_env
from hetmarl_envs.contract import TeamSpec
from tests.algorithms.fitting import fit
from tests.teams import CountingEnv


class TellingEnv(CountingEnv):
    """Sub-environment i ends after i + 2 steps; tells how long it has run, and whether i is odd."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        one = Unbounded((*self.batch_size, 1))
        told = Composite(steps_taken=one, odd=one.clone(), shape=self.batch_size)
        self.observation_spec = self.observation_spec.clone().set("info", told)

    def _observe(self) -> dict[str, Any]:
        index = torch.arange(self.batch_size[0])[:, None]
        told = {"steps_taken": self._step_count.clone(), "odd": (index % 2).float()}
        return super()._observe() | {"info": TensorDict(told, self.batch_size)}

    def _step(self, tensordict: Any) -> Any:
        data = super()._step(tensordict)
        ended = self._step_count >= torch.arange(self.batch_size[0])[:, None] + 2
        data["done"] = data["truncated"] = ended
        return data


def policy(env: Any) -> TeamPolicy:
    return TeamPolicy(TeamSpec.from_env(env), NetworkConfig([8]))


def test_the_collector_keeps_what_was_told_at_the_ends() -> None:
    env = TellingEnv(num_envs=2)
    check_team_env(env, thorough=False)
    collector = TeamCollector(env, policy(env), seed=0)
    none, some = (collector.collect(n, i)[1] for i, n in enumerate((1, 5)))
    assert none.info == {"odd": pytest.approx([]), "steps_taken": pytest.approx([])}
    assert some.info["steps_taken"].tolist() == some.lengths.tolist() == [2, 3, 2, 2, 3]
    assert some.info["odd"].tolist() == [0, 1, 0, 0, 1]


def test_an_evaluation_means_over_the_episodes_that_it_counts() -> None:
    env = TellingEnv(num_envs=4)
    result = evaluate(policy(env), env)
    assert result["lengths"] == [2, 3, 4, 5]
    assert result["steps_taken_mean"] == result["length_mean"] == 3.5
    assert result["odd_mean"] == 0.5


def test_a_run_logs_it() -> None:
    seen: dict[str, float] = {}

    class Watch(Callback):
        def on_train_end(self, trainer: Any, module: Any) -> None:
            seen.update({k: v.item() for k, v in trainer.callback_metrics.items()})

    fit(TellingEnv, frames=40, callbacks=(Watch(),))
    assert seen["train/steps_taken_mean"] == seen["train/length_mean"]
    assert seen["eval/steps_taken_mean"] == seen["eval/length_mean"] == 2.5
    assert seen["eval/odd_mean"] == 0.5
