"""Losses of deterministic policies against loops over samples and agents, for mixed teams too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hetmarl.networks import DeterministicNetworkConfig, JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import DeterministicLoss
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError
from tests.teams import MIXED, STATELESS, UNEQUAL, batch

GAMMA = 0.9
SPECS = {"unequal": UNEQUAL, "no state": STATELESS, "mixed": MIXED}


def make(spec: TeamSpec = UNEQUAL, critics: int = 2, noise: float = 0.3) -> DeterministicLoss:
    """Losses in double, targets other than what they follow."""
    network = DeterministicNetworkConfig([8])
    policy, critic = TeamPolicy(spec, network), JointQ(spec, network, critics)
    loss = DeterministicLoss(policy, critic, gamma=GAMMA, policy_noise=noise, noise_clip=0.4)
    with torch.no_grad():
        for parameter in (p for target, _ in loss.targets for p in target.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return loss.double()


def numbered(seed: int):  # type: ignore[no-untyped-def]
    """Noise that can be had again."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def hot(choice: int, count: int) -> list[float]:
    return [float(k == choice) for k in range(count)]


def target_action(loss: DeterministicLoss, i: int, data, b: int, noise) -> list[float]:  # type: ignore[no-untyped-def]
    """Of one agent in one row, number by number; ``noise`` are its components' draws."""
    spec, actor = loss.spec.agents[i], loss.target_actors[i]
    output = actor.net(data[spec.group, "observation"][b, spec.index]).tolist()
    if spec.action.kind == "continuous":
        action = []
        for u, low, high, n in zip(output, spec.action.low, spec.action.high, noise, strict=True):
            half = (high - low) / 2
            smooth = half * max(-0.4, min(0.4, loss.policy_noise * n))
            action.append(
                max(
                    low,
                    min(
                        high,
                        (low + high) / 2
                        + half * torch.tanh(torch.tensor(u, dtype=torch.float64)).item()
                        + smooth,
                    ),
                )
            )
        return action
    mask = data.get((spec.group, "action_mask"), None)
    legal = [True] * len(output) if mask is None else mask[b, spec.index].tolist()
    action, start = [], 0
    for count in spec.action.choices:
        part = slice(start, start + count)
        draws = torch.special.ndtr(torch.tensor(noise[part], dtype=torch.float64))
        gumbel = (-(-draws.log()).log()).tolist() if loss.policy_noise else [0.0] * count
        scores = [x + g for x, g in zip(output[part], gumbel, strict=True)]
        open_to = [k for k in range(count) if legal[start + k]]
        if not open_to:  # dead: anything, of any choice equally
            scores, open_to = gumbel, list(range(count))
        action += hot(max(open_to, key=lambda k: scores[k]), count)
        start += count
    return action


@pytest.mark.parametrize("deaths", [False, True])
@pytest.mark.parametrize(("critics", "scale"), [(1, 0.0), (2, 0.3)])
@pytest.mark.parametrize("name", SPECS)
def test_target_and_critic_loss(name: str, critics: int, scale: float, deaths: bool) -> None:
    spec = SPECS[name]
    loss = make(spec, critics, scale)
    data = batch(spec, deaths=deaths, masks=True, dtype=torch.float64)
    following, drawn = data["next"], numbered(0)
    # drawn agent by agent, for all components of an action at once
    noise = [
        drawn(torch.empty(8, agent.action.width, dtype=torch.float64)).tolist()
        for agent in spec.agents
    ]
    targets, squares = [], []
    for b in range(8):
        actions = [
            torch.tensor(target_action(loss, i, following, b, noise[i][b]), dtype=torch.float64)
            for i in range(spec.num_agents)
        ]
        state = spec.critic_input(following)[b]
        value = min(q.item() for q in loss.target_critic(state, actions))
        k = int(data["steps_to_next_obs"][b])
        continues = 0.0 if following["terminated"][b] else 1.0
        y = following["reward"][b].item() + continues * GAMMA**k * value
        targets.append(y)
        joint: list[Tensor] = []
        for a in spec.agents:
            did = data[a.group, "action"][b, a.index].reshape(-1).tolist()
            parts = zip(did, a.action.choices, strict=True) if a.action.choices else ()
            numbers = [x for c, count in parts for x in hot(c, count)] or did
            joint.append(torch.tensor(numbers, dtype=torch.float64))
        squares += [(q.item() - y) ** 2 for q in loss.critic(spec.critic_input(data)[b], joint)]
    got = loss.target(data, numbered(0))
    assert got.squeeze(-1).tolist() == pytest.approx(targets, rel=1e-6)
    loss_q, _ = loss.qvalue(data, numbered(0))
    assert loss_q.item() == pytest.approx(sum(squares) / 8, rel=1e-6)
    assert len(squares) == 8 * critics


@pytest.mark.parametrize("name", SPECS)
def test_actor_loss_is_of_the_first_value_over_the_living(name: str) -> None:
    spec = SPECS[name]
    loss, data = make(spec), batch(spec, deaths=True, masks=True, dtype=torch.float64)
    samples = [loss.sample(data, i) for i in range(spec.num_agents)]
    joint = [s.action.detach() for s in samples]
    for i, a in enumerate(spec.agents):
        mine = [*joint[:i], samples[i].action, *joint[i + 1 :]]
        values = [
            -loss.critic(spec.critic_input(data)[b], [x[b] for x in mine])[0].squeeze()
            for b in range(8)
            if data[a.group, "alive"][b, a.index]
        ]
        expected = torch.stack(values).mean()
        parameters = list(loss.policy.actors[i].parameters())
        gradients = torch.autograd.grad(expected, parameters, retain_graph=True)
        got = loss.actor(data, i, mine)
        torch.testing.assert_close(got, expected)
        for a_, b_ in zip(torch.autograd.grad(got, parameters), gradients, strict=True):
            torch.testing.assert_close(a_, b_)
        assert any(g.any() for g in gradients)


def test_targets_respect_the_next_mask_and_nothing_else_does() -> None:
    """The next step's own, which at an episode's end is the true final one's."""
    loss, data = make(MIXED), batch(MIXED, masks=True, dtype=torch.float64)
    seen: list[list[Tensor]] = []
    critic = loss.target_critic.forward

    def spied(state: Tensor, actions: list[Tensor]) -> tuple[Tensor, ...]:
        seen.append(list(actions))
        return critic(state, actions)

    loss.target_critic.forward = spied  # type: ignore[method-assign]
    loss.target(data, numbered(0))
    other = data.clone()
    for group in ("panel", "valve"):
        other[group, "action_mask"] = ~other[group, "action_mask"]
    loss.target(other, numbered(0))
    assert all(map(torch.equal, *seen))
    for i, a in enumerate(MIXED.agents):
        if a.action.choices:
            mask = data["next", a.group, "action_mask"][:, a.index]
            assert not (seen[0][i] * ~mask).any()
            assert (seen[0][i] * ~data[a.group, "action_mask"][:, a.index]).any()  # it could have


def test_random_policies_are_refused() -> None:
    network = NetworkConfig([8])
    with pytest.raises(ConfigError, match="agent 'left' has a SquashedGaussianActor; expected a"):
        DeterministicLoss(TeamPolicy(UNEQUAL, network), JointQ(UNEQUAL, network))


def test_gradients_where_they_should_be() -> None:
    loss, data = make(), batch(UNEQUAL, dtype=torch.float64)
    for name, expected in {"loss_qvalue": "critic.", "loss_actor": "policy."}.items():
        loss.zero_grad()
        loss(data)[name].backward()
        touched = {n for n, p in loss.named_parameters() if p.grad is not None and p.grad.any()}
        assert touched and all(n.startswith(expected) for n in touched)
    assert not any(p.requires_grad for p in loss.target_actors.parameters())
    assert not any(p.requires_grad for p in loss.target_critic.parameters())


def test_forward_returns_every_loss_and_takes_renamed_keys() -> None:
    loss, data = make(MIXED), batch(MIXED, masks=True, dtype=torch.float64)
    torch.manual_seed(3)
    out = loss(data)
    assert set(out.keys()) == set(loss.out_keys)
    assert [out[k].requires_grad for k in loss.out_keys] == [True, True, False]
    torch.manual_seed(3)
    for where in (data, data["next"]):
        for group in ("panel", "valve"):
            where.rename_key_((group, "action_mask"), (group, "legal"))
    assert loss.set_keys(action_mask="legal") is None
    again = loss(data)
    assert all(torch.equal(out[k], again[k]) for k in loss.out_keys)
