"""HASAC of one agent is TorchRL's soft actor-critic: losses and gradients on the same numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor, TanhNormal
from torchrl.objectives import DiscreteSACLoss, SACLoss

from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import HASACLoss
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec
from tests.teams import ALONE, batch

pytestmark = pytest.mark.filterwarnings("ignore:No target network updater")
GAMMA, ALPHA, SIZE = 0.9, 0.3, 16
CHOOSING = TeamSpec(
    (AgentSpec("solo", "agents", 0, (3,), ActionSpace("discrete", choices=(4,))),), 3
)


def make(spec: TeamSpec, **settings: Any) -> HASACLoss:
    """A loss in double precision whose targets are others than what they follow."""
    network = NetworkConfig([8], activation="tanh")
    policy, critic = TeamPolicy(spec, network), JointQ(spec, network)
    loss = HASACLoss(policy, critic, gamma=GAMMA, alpha=ALPHA, **settings).double()
    with torch.no_grad():
        for parameter in loss.target_critic.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return loss


class Gaussian(nn.Module):
    """The actor's network, as TorchRL's distributions want it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.net(observation).chunk(2, -1)
        return mean, log_std.exp()


class Value(nn.Module):
    """Q(s, a), of layers that have a vmap."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(*copy.deepcopy(net))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([state, action], -1))


class Values(Value):
    """Q(s, ·) over the four choices."""

    def forward(self, state: Tensor) -> Tensor:  # type: ignore[override]
        rows = state.unsqueeze(-2).expand(*state.shape[:-1], 4, -1)
        choices = torch.eye(4, dtype=state.dtype).expand(*state.shape[:-1], 4, 4)
        return super().forward(rows, choices).squeeze(-1)


def set_targets(reference: Any, values: list[nn.Module]) -> None:
    targets = torch.stack([TensorDict.from_module(value) for value in values])
    parameters = reference.target_qvalue_network_params
    parameters.data.update_(TensorDict({"module": targets}, parameters.batch_size).data)


def as_theirs(data: TensorDict, action: Tensor) -> TensorDict:
    """The team of one's batch as TorchRL's losses read it."""
    following = data["next"]
    return TensorDict(
        {
            "observation": data["agents", "observation"][:, 0],
            "state": data["state"],
            "action": action,
            "steps_to_next_obs": data["steps_to_next_obs"],
            "next": {
                "observation": following["agents", "observation"][:, 0],
                "state": following["state"],
                "terminated": following["terminated"],
                "done": following["terminated"],
                "reward": following["reward"],
            },
        },
        [SIZE],
    )


def slopes(loss: Tensor, parameters: Any) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(parameters), retain_graph=True))


def compare_actors(loss: HASACLoss, reference: Any, ours: TensorDict, out: Any) -> None:
    """The actor's loss and gradients; ``out`` is what TorchRL's loss gave."""
    torch.testing.assert_close(ours["loss_actor"], out["loss_actor"])
    theirs = [p for p in reference.actor_network_params.values(True, True) if p.requires_grad]
    mine = slopes(ours["loss_actor"], loss.policy.actors[0].parameters())
    for a, b in zip(mine, slopes(out["loss_actor"], theirs), strict=True):
        torch.testing.assert_close(a, b)


def compare_critics(loss: HASACLoss, reference: Any, ours: TensorDict, out: Any) -> None:
    """The critics' loss and gradients."""
    torch.testing.assert_close(ours["loss_qvalue"], out["loss_qvalue"])
    both = [list(value.parameters()) for value in loss.critic.values]
    pairs = zip(*(slopes(ours["loss_qvalue"], one) for one in both), strict=True)
    stacked = [p for p in reference.qvalue_network_params.values(True, True) if p.requires_grad]
    for pair, b in zip(pairs, slopes(out["loss_qvalue"], stacked), strict=True):
        torch.testing.assert_close(torch.stack(pair), b)


def test_one_agent_is_soft_actor_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    """With bounds that are not symmetric, and discounts by the steps taken."""
    loss, data = make(ALONE), batch(ALONE, SIZE, dtype=torch.float64)
    space, noise = ALONE.agents[0].action, torch.randn(SIZE, 2, dtype=torch.float64)
    bounds = {"low": torch.tensor(space.low).double(), "high": torch.tensor(space.high).double()}
    actor = ProbabilisticActor(
        TensorDictModule(Gaussian(loss.policy.actors[0].net), ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs=bounds | {"upscale": 1.0},
        return_log_prob=True,
    )
    values = [
        TensorDictModule(Value(net), ["state", "action"], ["state_action_value"])
        for net in loss.critic.values
    ]
    reference = SACLoss(
        actor, values, loss_function="l2", alpha_init=ALPHA, target_entropy=-2.0
    ).double()
    reference.make_value_estimator(gamma=GAMMA)
    set_targets(reference, [Value(net) for net in loss.target_critic.values])

    monkeypatch.setattr("torch.distributions.normal._standard_normal", lambda *_, **__: noise)
    samples = loss.samples
    monkeypatch.setattr(loss, "samples", lambda d, i, *_: samples(d, i, lambda like: noise))
    out = reference(as_theirs(data, data["agents", "action"][:, 0]))
    ours = loss(data)
    compare_actors(loss, reference, ours, out)
    compare_critics(loss, reference, ours, out)
    # one temperature per agent and one of the team's, which TorchRL has in one
    torch.testing.assert_close(ours["loss_alpha"], 2 * out["loss_alpha"])


def test_one_agent_that_chooses_is_discrete_soft_actor_critic() -> None:
    """Its loss is a sum over all choices on both sides.

    Ours takes targets and temperatures from samples: a team's sums would grow exponentially.
    """
    loss = make(CHOOSING)
    data = batch(CHOOSING, SIZE, dtype=torch.float64)
    actor = ProbabilisticActor(
        TensorDictModule(copy.deepcopy(loss.policy.actors[0].net), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
    )
    values = [TensorDictModule(Values(n), ["state"], ["action_value"]) for n in loss.critic.values]
    reference = DiscreteSACLoss(
        actor,
        values,
        action_space="categorical",
        num_actions=4,
        loss_function="l2",
        alpha_init=ALPHA,
    ).double()
    reference.make_value_estimator(gamma=GAMMA)
    out = reference(as_theirs(data, data["agents", "action"][:, 0]))
    compare_actors(loss, reference, loss(data), out)
