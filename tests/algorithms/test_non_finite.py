"""NaN and infinity stop a run, say whose they are, and leave the last good checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

import hetmarl
from hetmarl.algorithms import HAPPO, HASAC
from hetmarl.checkpoint import load_plain
from hetmarl.data import RolloutData, RolloutDataConfig
from hetmarl.engines import UpdateRandomness
from hetmarl.guards import NonFiniteError
from hetmarl.lightning.module import finite_means
from hetmarl.networks import NetworkConfig
from hetmarl_envs import TeamSpec
from tests.algorithms.fitting import fit
from tests.teams import UNEQUAL, CountingEnv, batch


def last_checkpoint(run_dir: Path) -> dict[str, Any]:
    checkpoint = load_plain(run_dir / "checkpoints" / "last.ckpt")
    assert all(v.isfinite().all() for v in checkpoint["state_dict"].values())
    hetmarl.load_policy(run_dir)
    return checkpoint


class Spoilt(HASAC):
    """From the fifth iteration on, ``spoil`` is called before the gradient steps."""

    spoil: Any

    def learn(self, batch: Any, randomness: Any) -> dict[str, Tensor]:
        if self.iteration == 4:
            type(self).spoil(self)
        return super().learn(batch, randomness)


def nan_loss(module: HASAC) -> None:
    """Of one agent, in the second gradient step of the iteration: soon everybody's."""
    actor, calls = module.loss.actor, []

    def poisoned(data: Any, agent: int, joint: Any, log_prob: Tensor) -> Tensor:
        calls.append(agent)
        value = actor(data, agent, joint, log_prob)
        return value * float("nan") if agent == 1 and calls.count(1) == 2 else value

    module.loss.actor = poisoned  # type: ignore[method-assign]


def infinite_critic(module: HASAC) -> None:
    with torch.no_grad():
        module.loss.critic.q1[-1].bias.fill_(float("inf"))


def infinite_gradient(module: HASAC) -> None:
    """A finite loss whose gradient is not, of one agent in the second gradient step."""
    actor, calls = module.loss.actor, []

    def poisoned(data: Any, agent: int, joint: Any, log_prob: Tensor) -> Tensor:
        calls.append(agent)
        value = actor(data, agent, joint, log_prob)
        if agent == 1 and calls.count(1) == 2:
            return value + (log_prob - log_prob.detach()).abs().sqrt().sum()
        return value

    module.loss.actor = poisoned  # type: ignore[method-assign]


def lost_weights(module: HASAC) -> None:
    """Losses and gradients are finite to the end, one agent's weights are not."""
    update, calls = module.engine.update, []

    def spoiling(*given: Any) -> dict[str, Tensor]:
        calls.append(update(*given))
        if len(calls) == 3:  # the iteration's last
            with torch.no_grad():
                module.policy.actors[1].net[0].weight.fill_(float("nan"))
        return calls[-1]

    module.engine.update = spoiling  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan_loss, r"NaN in loss_actor of agent 'narrow' at frame 40"),
        (infinite_critic, r"(Infinity|NaN) in loss_qvalue at frame 40"),
        (infinite_gradient, r"NaN in grad_norm of agent 'narrow' at frame 40"),
        (lost_weights, r"NaN in weights of agent 'narrow' at frame 40"),
    ],
)
def test_in_learning(spoil: Any, message: str, tmp_path: Path) -> None:
    module = type("Spoilt", (Spoilt,), {"spoil": staticmethod(spoil)})
    with pytest.raises(NonFiniteError, match=message + r".*the last checkpoint was written before"):
        fit(CountingEnv, tmp_path, module=module, evaluate_every=1)
    assert last_checkpoint(tmp_path)["global_step"] == 4


def test_a_gradient_is_named_before_what_it_spoils() -> None:
    """Agent 1 of 3, at every place in the order: not the next agent's loss, not the critic's."""
    places = set()
    for iteration in range(10):
        randomness = UpdateRandomness(0, iteration)
        module = HASAC(UNEQUAL, network=NetworkConfig([8]))
        module.optimizers_of_team()
        infinite_gradient(module)
        history = [module.engine.update(batch(UNEQUAL), randomness) for _ in range(3)]
        turns = [key for key in history[1] if key.startswith("loss_actor")]
        places.add(turns.index(f"loss_actor/{UNEQUAL.names[1]}"))
        losses = [u[f"loss_actor/{UNEQUAL.names[1]}"] for u in history]
        assert [bool(loss.isfinite()) for loss in losses] == [True, True, False]
        with pytest.raises(NonFiniteError, match=f"NaN in grad_norm of agent '{UNEQUAL.names[1]}'"):
            finite_means(history, 0)
    assert places == {0, 1, 2}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_in_an_on_policy_iteration(seed: int) -> None:
    """The agent whose gradient it was, whether it comes first or last."""
    turns: list[int] = []

    class Spoilt(HAPPO):
        def learn(self, batch: Any, randomness: Any) -> dict[str, Tensor]:
            for agent, update in enumerate(self.engine.updates):
                update.step = self.poisoned(agent, update.step)
            return super().learn(batch, randomness)

        def poisoned(self, agent: int, step: Any) -> Any:
            def spoiling(loss: Tensor) -> Tensor:
                turns.append(agent)
                p = step.parameters[0]
                root = (p - p.detach()).abs().sqrt().sum()  # 0, its derivative NaN
                return step(loss + root if agent == 1 and turns.count(1) == 5 else loss)

            return spoiling

    module = Spoilt(TeamSpec.from_env(CountingEnv(num_envs=1)), seed=seed)
    config = RolloutDataConfig(rollout_steps=10)
    data = RolloutData(
        CountingEnv, num_envs=2, total_frames=20, config=config, eval_episodes=0, seed=seed
    )
    with pytest.raises(NonFiniteError, match=r"NaN in \w+ of agent 'narrow' at frame 0"):
        Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False).fit(
            module, datamodule=data
        )
    assert sorted(turns) == [0] * 5 + [1] * 5


def test_in_an_action(tmp_path: Path) -> None:
    class Lost(HASAC):
        """An agent's weights become NaN between two iterations."""

        def on_train_batch_end(self, *_: Any) -> None:
            if self.iteration == 3:
                with torch.no_grad():
                    self.policy.actors[1].net[0].weight.fill_(float("nan"))

    with pytest.raises(NonFiniteError, match=r"NaN in the action of agent 'narrow' at frame 32"):
        fit(CountingEnv, tmp_path, module=Lost)
    assert last_checkpoint(tmp_path)["global_step"] == 2


@pytest.mark.parametrize("agent", ["wide", "narrow"])
def test_in_an_observation(agent: str, tmp_path: Path) -> None:
    message = rf"NaN in the observation of agent '{agent}' at frame 10\d"
    with pytest.raises(NonFiniteError, match=message + r".*The environment put it out"):
        fit(partial(CountingEnv, poison=agent), tmp_path, frames=200)
    assert last_checkpoint(tmp_path)["global_step"] == 10
