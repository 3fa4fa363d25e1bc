"""HAD3QN's losses against loops over samples, agents and choices, and TorchRL's double DQN."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import OneHot
from torchrl.modules import QValueActor
from torchrl.objectives import DQNLoss

from hetmarl.networks import GreedyNetworkConfig, JointQ, TeamPolicy
from hetmarl.objectives import HAD3QNLoss
from hetmarl_envs.contract import TeamSpec
from tests.choosing import ALONE, CHOOSERS, replayed

GAMMA = 0.9


def make(spec: TeamSpec = CHOOSERS, count: int = 1) -> HAD3QNLoss:
    torch.manual_seed(0)
    network = GreedyNetworkConfig([8, 6])
    loss = HAD3QNLoss(TeamPolicy(spec, network), JointQ(spec, network, count), gamma=GAMMA).double()
    with torch.no_grad():
        for parameter in loss.target_critic.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return loss


def one_hot(choice: Sequence[int], counts: Sequence[int]) -> Tensor:
    hot = [nn.functional.one_hot(torch.tensor(c), k) for c, k in zip(choice, counts, strict=True)]
    return torch.cat(hot).double()


def combinations(loss: HAD3QNLoss, data: TensorDict, i: int, b: int) -> list[tuple[int, ...]]:
    """The legal ones of an agent in a sample."""
    counts = loss.spec.agents[i].action.choices
    found = list(itertools.product(*map(range, counts)))
    mask = loss.spec.action_mask(data, i)
    if mask is None:
        return found
    starts = [sum(counts[:d]) for d in range(len(counts))]
    return [c for c in found if all(mask[b, s + k] for s, k in zip(starts, c, strict=True))]


def values(loss: HAD3QNLoss, data: TensorDict, i: int, b: int) -> dict[tuple[int, ...], Tensor]:
    """Qⁱ of every legal choice in a sample."""
    actor, legal = loss.policy.actors[i], combinations(loss, data, i, b)
    features = actor.net(loss.spec.observation(data, i)[b])
    every = [tuple(c) for c in actor.choices.tolist()]
    advantage = dict(zip(every, actor.advantage(features), strict=True))
    mean = sum(advantage[c] for c in legal) / max(1, len(legal))
    return {c: actor.value(features)[0] + advantage[c] - mean for c in legal}


def greedy(loss: HAD3QNLoss, data: TensorDict, b: int) -> list[Tensor]:
    """Everybody's in a sample, one-hot; the first where nothing is legal."""
    joint = []
    for i, agent in enumerate(loss.spec.agents):
        q = values(loss, data, i, b)
        best = max(q, key=lambda c, q=q: q[c].item()) if q else (0,) * agent.action.dim
        joint.append(one_hot(best, agent.action.choices))
    return joint


@pytest.mark.parametrize("deaths", [False, True])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_target_and_critic_loss(masks: bool, deaths: bool, count: int) -> None:
    loss, data = make(count=count), replayed(CHOOSERS, masks=masks, deaths=deaths)
    following, targets, squares = data["next"], [], []
    for b in range(8):
        next_q = loss.target_critic(following["state"][b], greedy(loss, following, b))
        value = min(q.item() for q in next_q)
        k = int(data["steps_to_next_obs"][b])
        continues = 0.0 if following["terminated"][b] else 1.0
        targets.append(following["reward"][b].item() + continues * GAMMA**k * value)
        joint = [
            one_hot(loss.spec.action(data, i)[b].tolist(), agent.action.choices)
            for i, agent in enumerate(CHOOSERS.agents)
        ]
        squares += [(q - targets[-1]) ** 2 for q in loss.critic(data["state"][b], joint)]
    got = loss.target(data)
    assert got.squeeze(-1).tolist() == pytest.approx(targets, rel=1e-12)
    torch.testing.assert_close(loss.qvalue(data)[0], torch.stack(squares).sum() / 8)


@pytest.mark.parametrize("deaths", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_each_agent_fits_all_of_its_legal_choices(masks: bool, deaths: bool) -> None:
    loss, data = make(), replayed(CHOOSERS, masks=masks, deaths=deaths)
    joint = [loss.sample(data, i).action for i in range(3)]
    for i, agent in enumerate(CHOOSERS.agents):
        terms = []
        for b in range(8):
            if deaths and not CHOOSERS.alive(data, i)[b]:
                continue
            errors = []
            for choice, value in values(loss, data, i, b).items():
                given = [action[b] for action in joint]
                given[i] = one_hot(choice, agent.action.choices)
                (q,) = loss.critic(data["state"][b], given)
                errors.append((value - q[0]).square())
            terms.append(torch.stack(errors).mean())
        got = loss.actor(data, i, joint)
        torch.testing.assert_close(got, torch.stack(terms).mean())
        # its own entry is not looked at, and the critic gets no gradient
        other = [*joint[:i], torch.zeros_like(joint[i]), *joint[i + 1 :]]
        assert torch.equal(loss.actor(data, i, other), got)
        own, theirs = list(loss.policy.actors[i].parameters()), list(loss.critic.parameters())
        found = torch.autograd.grad(got, own + theirs, allow_unused=True)
        assert all(g.isfinite().all() for g in found[: len(own)])
        assert all(g is None for g in found[len(own) :])


def test_what_is_illegal_or_dead_changes_nothing() -> None:
    loss, data = make(), replayed(CHOOSERS, deaths=True)
    alive = data["valve", "alive"][:, 0]
    joint = [loss.sample(data, i).action for i in range(3)]
    before = loss.actor(data, 0, joint)
    data["valve", "observation"][:, 0][~alive.squeeze(-1)] += 5.0
    torch.testing.assert_close(loss.actor(data, 0, joint), before)


class Told(nn.Module):
    """An actor whose values are the critic's own: what HAD3QN's agent strives for."""

    def __init__(self, actor: nn.Module, critic: JointQ) -> None:
        super().__init__()
        self.encoded, self.critic = actor.encoded, (critic,)  # in a tuple: not its parameters

    def values(self, observation: Tensor) -> Tensor:
        rows = observation.repeat_interleave(4, 0)
        (q,) = self.critic[0](rows, [self.encoded.repeat(len(observation), 1)])
        return q.view(-1, 4)

    def sample(self, observation: Tensor, noise: object, mask: None) -> tuple[Tensor, None]:
        sample = self.encoded[self.values(observation).argmax(-1)]
        return type("Sample", (), {"action": sample, "log_prob": None})  # type: ignore[return-value]


def test_one_agent_that_knows_the_critic_is_torchrls_double_dqn() -> None:
    """Loss and gradient of TorchRL's ``DQNLoss(double_dqn=True)`` on the same numbers."""
    loss, data = make(ALONE), replayed(ALONE, 32, masks=False)
    data["agents", "observation"][:, 0] = data["state"]
    data["next", "agents", "observation"][:, 0] = data["next", "state"]
    loss.policy.actors[0] = Told(loss.policy.actors[0], loss.critic)

    class Table(nn.Module):
        """The critic with an output per choice, as DQN has it."""

        def __init__(self, critic: JointQ) -> None:
            super().__init__()
            self.net = critic.values[0]

        def forward(self, state: Tensor) -> Tensor:
            hot = torch.eye(4, dtype=state.dtype).expand(*state.shape[:-1], 4, 4)
            rows = state.unsqueeze(-2).expand(*state.shape[:-1], 4, state.shape[-1])
            return self.net(torch.cat([rows, hot], -1)).squeeze(-1)

    table = TensorDictModule(Table(loss.critic), ["state"], ["action_value"])
    dqn = DQNLoss(
        QValueActor(table, spec=OneHot(4), in_keys=["state"]),
        loss_function="l2",
        double_dqn=True,
        delay_value=True,
    )
    target = dict(loss.target_critic.values[0].named_parameters())
    for name, parameter in dqn.target_value_network_params.flatten_keys(".").items():
        parameter.data.copy_(target[name.partition("net.")[2]])
    dqn.make_value_estimator(gamma=GAMMA)
    data["steps_to_next_obs"].fill_(1)  # TorchRL's estimator has one γ
    given = TensorDict(
        {
            "state": data["state"],
            "action": nn.functional.one_hot(data["agents", "action"][:, 0], 4),
            "next": {
                "state": data["next", "state"],
                "reward": data["next", "reward"],
                "done": data["next", "terminated"],
                "terminated": data["next", "terminated"],
            },
        },
        [32],
    )
    expected, (got, _) = dqn(given)["loss"], loss.qvalue(data)
    torch.testing.assert_close(got, expected)
    ours = torch.autograd.grad(got, list(loss.critic.parameters()))
    theirs = torch.autograd.grad(
        expected, list(dqn.value_network_params.flatten_keys(".").values())
    )
    for a, b in zip(ours, sorted_like(ours, theirs), strict=True):
        torch.testing.assert_close(a, b)


def sorted_like(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[Tensor]:
    """Those of ``theirs`` in the order of shapes in ``ours``, all of which differ."""
    by_shape = {t.shape: t for t in theirs}
    assert len(by_shape) == len(ours)
    return [by_shape[o.shape] for o in ours]


def test_torchrls_contract() -> None:
    loss, data = make(), replayed(CHOOSERS)
    out = loss(data)
    assert set(out.keys()) == set(loss.out_keys)
    joint = [loss.sample(data, i).action for i in range(3)]
    actors = sum(loss.actor(data, i, joint) for i in range(3))
    torch.testing.assert_close(out["loss_actor"], actors)
    assert out["loss_qvalue"].requires_grad and not out["q_mean"].requires_grad
    loss.set_keys(action_mask="legal")
    renamed = data.clone()
    for where in (renamed, renamed["next"]):
        for group in ("valve", "panel"):
            where.rename_key_((group, "action_mask"), (group, "legal"))
    torch.testing.assert_close(loss(renamed)["loss_actor"], out["loss_actor"])
