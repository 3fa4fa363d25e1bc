"""NaN and infinity stop a run, say whose they are, and leave the last good checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import hetmarl
from hetmarl.algorithms import HAPPO, HASAC, HATRPO, OnPolicyModule
from hetmarl.checkpoint import load_plain
from hetmarl.engines import UpdateRandomness
from hetmarl.guards import NonFiniteError
from hetmarl.lightning.module import finite_means
from hetmarl.networks import NetworkConfig
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
        module.loss.critic.values[0][-1].bias.fill_(float("inf"))


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

    def spoiling(*given: Any, **how: Any) -> dict[str, Tensor]:
        calls.append(update(*given, **how))
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


# ---------------------------------------------------------------------- on-policy
def spoil_objective(module: OnPolicyModule, spoilt: Callable[[Tensor, Any], Tensor]) -> None:
    """Passes the loss and surrogate of agent 'narrow' through ``spoilt`` with its distribution."""
    loss = module.loss
    change, objective, whose = loss.change, loss.objective, []

    def remembering(agent: int, given: Any) -> Any:
        whose[:] = [agent]
        return change(agent, given)

    def poisoned(changes: Any) -> Any:
        found = objective(changes)
        if whose != [1]:
            return found
        values = {name: spoilt(getattr(found, name), changes) for name in ("loss", "surrogate")}
        return found._replace(**values)

    loss.change, loss.objective = remembering, poisoned


def nan_objective(module: OnPolicyModule) -> None:
    spoil_objective(module, lambda value, _: value * float("nan"))


def nan_derivative(module: OnPolicyModule) -> None:
    """Added: 0, whose derivative is NaN."""
    p = next(module.policy.actors[1].parameters())
    spoil_objective(module, lambda value, _: value + (p - p.detach()).abs().sqrt().sum())


def infinite_value(module: OnPolicyModule) -> None:
    with torch.no_grad():
        next(reversed(list(module.critic.parameters()))).fill_(float("inf"))


def nan_critic_derivative(module: OnPolicyModule) -> None:
    value, p = module.loss.value, next(module.critic.parameters())
    module.loss.value = lambda data: value(data) + (p - p.detach()).abs().sqrt().sum()


def nan_weights(module: OnPolicyModule) -> None:
    """When everything is done and was finite."""
    update = module.engine.update

    def spoiling(*given: Any) -> dict[str, Tensor]:
        metrics = update(*given)
        with torch.no_grad():
            next(module.policy.actors[1].parameters()).fill_(float("nan"))
        return metrics

    module.engine.update = spoiling


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [HAPPO, HATRPO])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan_objective, r"NaN in loss_actor of agent 'narrow'"),
        (nan_derivative, r"NaN in grad_norm of agent 'narrow'"),
        (infinite_value, r"(NaN|Infinity) in value_mean"),
        (nan_critic_derivative, r"NaN in grad_norm_critic"),
        (nan_weights, r"NaN in weights of agent 'narrow'"),
    ],
)
def test_in_on_policy_learning(
    algorithm: type[OnPolicyModule], spoil: Any, message: str, tmp_path: Path
) -> None:
    """Whether the agent comes first in the order or last; one agent's NaN is soon everybody's."""

    class Spoilt(algorithm):  # type: ignore[misc, valid-type]
        def learn(self, batch: Any, randomness: Any) -> dict[str, Tensor]:
            if self.iteration == 2:
                spoil(self)
            return super().learn(batch, randomness)

    for seed in (0, 1):  # agent 1's turn is the first and the last
        run_dir = tmp_path / str(seed)
        match = message + r" at frame 20\..*the last checkpoint was written before"
        config = {} if algorithm is HATRPO else {"epochs": 1}
        with pytest.raises(NonFiniteError, match=match):
            fit(
                CountingEnv,
                run_dir,
                module=Spoilt,
                config=config | {"critic_epochs": 1},
                seed=seed,
                evaluate_every=1,
            )
        assert last_checkpoint(run_dir)["global_step"] == 2


# ---------------------------------------------------------------------- collected data
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


def test_in_a_draw_that_clipping_hides(tmp_path: Path) -> None:
    class Lost(HAPPO):
        def on_train_batch_end(self, *_: Any) -> None:
            if self.iteration == 3:
                with torch.no_grad():
                    [*self.policy.actors[1].parameters()][-1].fill_(float("inf"))

    with pytest.raises(NonFiniteError, match=r"Infinity in the sample of agent 'narrow' at frame"):
        fit(CountingEnv, tmp_path, module=Lost)
    assert last_checkpoint(tmp_path)["global_step"] == 2


@pytest.mark.parametrize("agent", ["wide", "narrow"])
def test_in_an_observation(agent: str, tmp_path: Path) -> None:
    message = rf"NaN in the observation of agent '{agent}' at frame 10\d"
    with pytest.raises(NonFiniteError, match=message + r".*The environment put it out"):
        fit(partial(CountingEnv, poison=agent), tmp_path, frames=200)
    assert last_checkpoint(tmp_path)["global_step"] == 10
