"""HASAC's losses for choices and mixed teams: closed forms, and loops over samples and agents."""

from __future__ import annotations

import math

import pytest
import torch

from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import HASACLoss
from tests.teams import MIXED, batch

GAMMA, SHARE = 0.9, 0.7
ALPHAS = [math.exp(-1.0 - 0.3 * i) for i in range(4)]
ALPHA_JOINT = math.exp(-0.5)


def make(**settings: float) -> HASACLoss:
    """Losses in double, all temperatures different."""
    network = NetworkConfig([8])
    policy, critic = TeamPolicy(MIXED, network), JointQ(MIXED, network)
    settings = {"target_entropy_choices": SHARE} | settings
    loss = HASACLoss(policy, critic, gamma=GAMMA, **settings).double()
    with torch.no_grad():
        for log_alpha, alpha in zip(loss.log_alpha, ALPHAS, strict=True):
            log_alpha.fill_(math.log(alpha))
        loss.log_alpha_joint.fill_(math.log(ALPHA_JOINT))
        for parameter in loss.target_critic.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return loss


def numbered(seed: int):  # type: ignore[no-untyped-def]
    """Noise that can be had again."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def test_target_entropy_without_masks() -> None:
    """A share of log 3 + log 2, of log 4; −2 for the arm's two numbers."""
    loss, data = make(), batch(MIXED, dtype=torch.float64)
    panel = SHARE * math.log(6)
    expected = [panel, -2.0, SHARE * math.log(4), panel]
    assert [float(loss.target_entropy(data, i)) for i in range(4)] == pytest.approx(expected)


def test_target_entropy_counts_the_legal_choices() -> None:
    loss, data = make(), batch(MIXED, 3, masks=True, dtype=torch.float64)
    data["panel", "action_mask"] = torch.tensor(
        [
            [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1]],
            [[1, 0, 1, 0, 1], [0, 1, 1, 1, 1]],
            [[0, 0, 0, 0, 0], [1, 1, 1, 1, 0]],  # the dead have none
        ]
    ).bool()
    data["valve", "action_mask"] = torch.tensor(
        [[[1, 1, 1, 1]], [[0, 1, 0, 0]], [[0, 1, 1, 1]]]
    ).bool()
    legal = {0: [6, 2, 1], 3: [1, 4, 3], 2: [4, 1, 3]}
    for i, counts in legal.items():
        got = loss.target_entropy(data, i)
        assert got.shape == (3, 1)
        assert got.squeeze(-1).tolist() == pytest.approx([SHARE * math.log(k) for k in counts])


def test_equally_likely_choices_have_the_largest_entropy() -> None:
    """With a share of 1 the temperature of a uniform policy has no gradient on any mask."""
    loss = make(target_entropy_choices=1.0)
    data = batch(MIXED, 16, deaths=True, masks=True, dtype=torch.float64)
    with torch.no_grad():
        for i in (0, 2, 3):
            for parameter in loss.policy.actors[i].parameters():
                parameter.zero_()
    samples = [loss.sample(data, i) for i in range(4)]
    loss.temperature(data, [s.log_prob for s in samples]).backward()
    for i in (0, 2, 3):
        assert loss.log_alpha[i].grad.item() == pytest.approx(0.0, abs=1e-7)
    assert loss.log_alpha[1].grad.abs() > 0.1


@pytest.mark.parametrize("deaths", [False, True])
def test_temperature_gradient(deaths: bool) -> None:
    """d L/d log αⁱ = −mean over the living of (log πⁱ + H̄ⁱ), jointly −mean of the sum."""
    loss = make()
    data = batch(MIXED, 16, deaths=deaths, masks=True, dtype=torch.float64)
    log_probs = [-torch.rand(16, 1, dtype=torch.float64) for _ in range(4)]
    loss.temperature(data, log_probs).backward()
    joint = 0.0
    for i, agent in enumerate(MIXED.agents):
        excess = []
        for b in range(16):
            if deaths and not data[agent.group, "alive"][b, agent.index]:
                continue
            target = -2.0
            if agent.action.choices:
                mask = data[agent.group, "action_mask"][b, agent.index]
                counts = [int(m.sum()) for m in mask.split(list(agent.action.choices))]
                target = SHARE * sum(math.log(k) for k in counts)
            excess.append(log_probs[i][b].item() + target)
        joint -= sum(excess) / 16
        assert loss.log_alpha[i].grad.item() == pytest.approx(-sum(excess) / len(excess))
    assert loss.log_alpha_joint.grad.item() == pytest.approx(joint)


def sampled(
    loss: HASACLoss, data, i: int, b: int, noise: torch.Tensor
) -> tuple[list[float], float]:  # type: ignore[no-untyped-def]
    """One agent's action and its log-probability in one row, number by number."""
    agent, actor = MIXED.agents[i], loss.policy.actors[i]
    output = actor.net(data[agent.group, "observation"][b, agent.index]).detach()
    if agent.action.kind == "continuous":
        mean, log_std = output.chunk(2)
        low, high = torch.tensor(agent.action.low), torch.tensor(agent.action.high)
        u = mean + log_std.exp() * noise
        density = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
        slope = ((high - low) / 2 * (1 - u.tanh() ** 2)).log()
        action = (low + high) / 2 + (high - low) / 2 * u.tanh()
        return action.tolist(), (density - slope).sum().item()
    mask = data[agent.group, "action_mask"][b, agent.index]
    if not mask.any():
        mask, output = ~mask, torch.zeros_like(output)  # dead
    action: list[float] = []
    total, start = 0.0, 0
    for count in agent.action.choices:
        part = range(start, start + count)
        weights = {k: math.exp(output[k]) for k in part if mask[k]}
        log_p = {k: math.log(w / sum(weights.values())) for k, w in weights.items()}
        gumbel = {k: -math.log(-torch.special.ndtr(noise[k]).log().item()) for k in log_p}
        drawn = max(log_p, key=lambda k: log_p[k] + gumbel[k])
        total += log_p[drawn]
        action += [float(k == drawn) for k in part]
        start += count
    return action, total


@pytest.mark.parametrize("deaths", [False, True])
def test_losses_of_a_mixed_team(deaths: bool) -> None:
    """Target, critic's and actors' losses, row by row and agent by agent."""
    loss = make(exact_choices=False)
    data = batch(MIXED, deaths=deaths, masks=True, dtype=torch.float64)
    following, drawn = data["next"], numbered(0)
    widths = [agent.action.width for agent in MIXED.agents]
    next_noise = [drawn(torch.empty(8, w, dtype=torch.float64)) for w in widths]
    noise = [numbered(10 + i)(torch.empty(8, w).double()) for i, w in enumerate(widths)]

    def living(part, i: int, b: int) -> bool:  # type: ignore[no-untyped-def]
        agent = MIXED.agents[i]
        return not deaths or bool(part[agent.group, "alive"][b, agent.index])

    targets = []
    for b in range(8):
        chosen = [sampled(loss, following, i, b, next_noise[i][b]) for i in range(4)]
        actions = [torch.tensor(a, dtype=torch.float64) for a, _ in chosen]
        q = min(v.item() for v in loss.target_critic(following["state"][b], actions))
        log_prob = sum(lp for i, (_, lp) in enumerate(chosen) if living(following, i, b))
        k = int(data["steps_to_next_obs"][b])
        continues = 0.0 if following["terminated"][b] else 1.0
        value = GAMMA**k * (q - ALPHA_JOINT * log_prob)
        targets.append(following["reward"][b].item() + continues * value)
    assert loss.target(data, numbered(0)).squeeze(-1).tolist() == pytest.approx(targets, rel=1e-6)

    samples = [loss.sample(data, i, numbered(10 + i)) for i in range(4)]
    joint = [s.action for s in samples]
    for i in range(4):
        terms = []
        for b in range(8):
            action, log_prob = sampled(loss, data, i, b, noise[i][b])
            assert joint[i][b].tolist() == pytest.approx(action, rel=1e-6, abs=1e-12)
            if not living(data, i, b):
                continue
            others = [a[b].detach() for a in joint]
            others[i] = torch.tensor(action, dtype=torch.float64)
            q = min(v.item() for v in loss.critic(data["state"][b], others))
            terms.append(ALPHAS[i] * log_prob - q)
        got = loss.actor(data, i, joint, samples[i].log_prob).item()
        assert got == pytest.approx(sum(terms) / len(terms), rel=1e-6)


def test_gradient_of_the_value_reaches_every_kind_of_actor() -> None:
    loss = make()
    data = batch(MIXED, 32, deaths=True, masks=True, dtype=torch.float64)
    samples = [loss.sample(data, i) for i in range(4)]
    for i in range(4):
        joint = [s.action.detach() for s in samples]
        joint[i] = samples[i].action
        value = loss.actor(data, i, joint, torch.zeros(32, 1).double())  # no entropy term
        gradients = torch.autograd.grad(value, list(loss.policy.actors[i].parameters()))
        assert all(g.isfinite().all() and g.any() for g in gradients)


def test_a_sum_over_choices_is_what_draws_estimate() -> None:
    """The exact loss is the mean of α·log π − Q over many draws, its gradient its slope."""
    loss, i = make(), 2  # the valve, one of four
    data = batch(MIXED, 1, masks=True, dtype=torch.float64)
    place = MIXED.agents[i]
    data[place.group, "action_mask"][:, place.index, :2] = True
    joint = [s.action.detach() for s in (loss.sample(data, k, numbered(k)) for k in range(4))]
    exact = loss.actor(data, i, joint)
    many = data.expand(200_000).contiguous()
    with torch.no_grad():
        sample = loss.sample(many, i, numbered(9))
        others = [action.expand(200_000, -1) for action in joint]
        q = torch.minimum(
            *loss.critic(loss.state(many), [*others[:i], sample.action, *others[i + 1 :]])
        )
        drawn = (ALPHAS[i] * sample.log_prob - q).mean()
    assert exact.item() == pytest.approx(drawn.item(), abs=2e-2)
    parameters = list(loss.policy.actors[i].parameters())
    slope = torch.autograd.grad(exact, parameters)
    direction, step = [torch.randn_like(p) for p in parameters], 1e-6
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(sign * step * d)
        values.append(loss.actor(data, i, joint).item())
    expected = sum((g * d).sum() for g, d in zip(slope, direction, strict=True)).item()
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-5, abs=1e-8)
