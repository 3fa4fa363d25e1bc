"""HASAC's losses against loops over samples and agents, masks, keys, and TorchRL's contract."""

from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import HASACLoss, frozen, masked_mean
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError
from tests.teams import ALONE, STATELESS, UNEQUAL, batch

SPECS = {"unequal": UNEQUAL, "no state": STATELESS, "alone": ALONE}
GAMMA = 0.9


def make(spec: TeamSpec = UNEQUAL, **settings: float) -> HASACLoss:
    """Losses in double, all temperatures different."""
    network = NetworkConfig([8])
    loss = HASACLoss(TeamPolicy(spec, network), JointQ(spec, network), gamma=GAMMA, **settings)
    loss = loss.double()
    with torch.no_grad():
        for i, log_alpha in enumerate(loss.log_alpha):
            log_alpha.fill_(-1.0 - 0.3 * i)
        loss.log_alpha_joint.fill_(-0.5)
        for parameter in loss.target_critic.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return loss


def numbered(seed: int):  # type: ignore[no-untyped-def]
    """Noise that can be had again."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean() if values else torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("deaths", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_target_and_critic_loss(name: str, deaths: bool) -> None:
    spec = SPECS[name]
    loss, data = make(spec), batch(spec, deaths=deaths, dtype=torch.float64)
    noise = numbered(0)
    following = data["next"]
    samples = [loss.sample(following, i, noise) for i in range(spec.num_agents)]
    targets, squares = [], []
    for b in range(8):
        entropy = 0.0
        for i, agent in enumerate(spec.agents):
            if not deaths or following[agent.group, "alive"][b, agent.index]:
                entropy -= samples[i].log_prob[b, 0].item()
        next_state = spec.critic_input(following)[b]
        q = min(v.item() for v in loss.target_critic(next_state, [s.action[b] for s in samples]))
        value = q + math.exp(-0.5) * entropy
        k = int(data["steps_to_next_obs"][b])
        continues = 0.0 if following["terminated"][b] else 1.0
        y = following["reward"][b].item() + continues * GAMMA**k * value
        targets.append(y)
        joint = [data[a.group, "action"][b, a.index] for a in spec.agents]
        squares += [(q - y) ** 2 for q in loss.critic(spec.critic_input(data)[b], joint)]
    got = loss.target(data, numbered(0))
    assert got.shape == (8, 1)
    assert got.squeeze().tolist() == pytest.approx(targets, rel=1e-12)
    loss_q, q_mean = loss.qvalue(data, numbered(0))
    torch.testing.assert_close(loss_q, torch.stack(squares).sum() / 8)
    q1, q2 = loss.critic(spec.critic_input(data), spec.joint_action(data))
    torch.testing.assert_close(q_mean, torch.cat([q1, q2]).mean().detach())


@pytest.mark.parametrize("deaths", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_actor_and_temperature_losses(name: str, deaths: bool) -> None:
    spec = SPECS[name]
    loss, data = make(spec), batch(spec, deaths=deaths, dtype=torch.float64)
    samples = [loss.sample(data, i) for i in range(spec.num_agents)]
    joint = [s.action for s in samples]
    expected_alpha = torch.zeros((), dtype=torch.float64)
    gaps = [0.0] * 8
    for i, agent in enumerate(spec.agents):
        terms, excess = [], []
        for b in range(8):
            if deaths and not data[agent.group, "alive"][b, agent.index]:
                continue
            q = min(loss.critic(spec.critic_input(data)[b], [a[b] for a in joint]))
            log_prob = samples[i].log_prob[b, 0]
            terms.append(math.exp(-1.0 - 0.3 * i) * log_prob - q[0])
            excess.append(log_prob.detach() - agent.action.dim)
            gaps[b] += excess[-1].item()
        torch.testing.assert_close(
            loss.actor(data, i, joint, samples[i].log_prob),
            mean(terms).detach(),
            check_layout=False,
        )
        expected_alpha -= (-1.0 - 0.3 * i) * mean(excess)
    expected_alpha -= -0.5 * sum(gaps) / 8
    got = loss.temperature(data, [s.log_prob for s in samples])
    torch.testing.assert_close(got.detach(), expected_alpha)


def test_temperatures_follow_their_targets() -> None:
    """Entropy below its target lowers log π's … raises α, and the joint target is the sum."""
    loss, data = make(target_entropy_scale=0.5), batch(UNEQUAL, dtype=torch.float64)
    assert [loss.target_entropy(data, i) for i in range(3)] == [-1.0, -0.5, -1.0]
    log_probs = [torch.full((8, 1), v, dtype=torch.float64) for v in (3.0, 0.5, -4.0)]
    loss.temperature(data, log_probs).backward()
    # d/d log α of −log α·(log π + H̄): descending it raises α where log π > −H̄
    gradients = [p.grad.item() for p in loss.log_alpha]
    assert gradients == pytest.approx([-2.0, 0.0, 5.0])
    assert loss.log_alpha_joint.grad.item() == pytest.approx(sum(gradients))


def test_fixed_temperatures_are_one_and_have_no_gradient() -> None:
    loss = HASACLoss(
        TeamPolicy(UNEQUAL, NetworkConfig([8])),
        JointQ(UNEQUAL, NetworkConfig([8])),
        alpha=0.3,
        auto_alpha=False,
    )
    alphas = [*loss.log_alpha, loss.log_alpha_joint]
    assert [a.exp().item() for a in alphas] == pytest.approx([0.3] * 4)
    assert not any(a.requires_grad for a in alphas)
    with pytest.raises(ConfigError, match=r"alpha=0: expected a temperature above 0"):
        make(alpha=0)


def test_dead_agents_count_nowhere() -> None:
    """What a dead agent sees and did changes no loss but the critic's view of its observation."""
    loss, data = make(), batch(UNEQUAL, deaths=True, dtype=torch.float64)
    dead = ~data["legs", "alive"][:, 1]
    assert dead.any() and not dead.all()
    samples = [loss.sample(data, i, numbered(i)) for i in range(3)]
    other = data.clone()
    other["legs", "observation"][:, 1] += 3.0 * dead
    moved = [loss.sample(other, i, numbered(i)) for i in range(3)]
    assert not torch.equal(samples[2].log_prob, moved[2].log_prob)
    actions = [s.action for s in samples]
    for i in range(3):
        a = loss.actor(data, i, actions, samples[i].log_prob)
        torch.testing.assert_close(a, loss.actor(other, i, actions, moved[i].log_prob))
    temperatures = [loss.temperature(data, [s.log_prob for s in x]) for x in (samples, moved)]
    torch.testing.assert_close(*temperatures)


def test_nobody_alive_gives_zero_with_zero_gradient() -> None:
    loss, data = make(), batch(UNEQUAL, deaths=True, dtype=torch.float64)
    data["legs", "alive"].zero_()
    samples = [loss.sample(data, i) for i in range(3)]
    value = loss.actor(data, 0, [s.action for s in samples], samples[0].log_prob)
    gradients = torch.autograd.grad(value, list(loss.policy.actors[0].parameters()))
    assert value.item() == 0 and not any(g.any() for g in gradients)


def test_masked_mean_over_processes() -> None:
    """The mean of two processes' results is the mean over the living of both batches."""
    x, alive = torch.randn(10, 1), torch.rand(10, 1) < 0.5
    halves = [(x[:4], alive[:4]), (x[4:8], alive[4:8])]
    count = torch.stack([m.float().sum() for _, m in halves]).mean()
    parts = [masked_mean(v, m, lambda _: count.clone()) for v, m in halves]
    torch.testing.assert_close(torch.stack(parts).mean(), x[:8][alive[:8]].mean())
    torch.testing.assert_close(masked_mean(x, None), x.mean())


@pytest.mark.parametrize("moved", range(3))
def test_whose_loss_moves_with_an_agents_observation(moved: int) -> None:
    """With a state, the critic sees no observation: agent i's loss moves with its own alone."""
    loss, data = make(), batch(UNEQUAL, dtype=torch.float64)
    other = data.clone()
    spec = UNEQUAL.agents[moved]
    other[spec.group, "observation"][:, spec.index] += 1.0
    actions = UNEQUAL.joint_action(data)
    changed = []
    for i in range(3):
        values = []
        for d in (data, other):
            sample = loss.sample(d, i, numbered(i))
            joint = [*actions[:i], sample.action, *actions[i + 1 :]]
            values.append(loss.actor(d, i, joint, sample.log_prob).item())
        changed.append(values[0] != values[1])
    assert changed == [i == moved for i in range(3)]
    assert torch.equal(loss.target(data, numbered(0)), loss.target(other, numbered(0)))


# ---------------------------------------------------------------------- TorchRL's contract
@pytest.mark.filterwarnings("error")
def test_forward_returns_every_loss() -> None:
    loss, data = make(), batch(UNEQUAL, dtype=torch.float64)
    out = loss(data)
    assert set(out.keys()) == set(loss.out_keys)
    assert out.batch_size == torch.Size([])
    for name in loss.out_keys:
        assert out[name].shape == () and out[name].isfinite()
        assert out[name].requires_grad == name.startswith("loss_"), name


def test_forward_by_keyword() -> None:
    loss, data = make(), batch(UNEQUAL, dtype=torch.float64).exclude("steps_to_next_obs")
    torch.manual_seed(0)
    expected = loss(data)
    names = {"_".join(k) if isinstance(k, tuple) else k: data[k] for k in loss.in_keys}
    torch.manual_seed(0)
    for name, value in zip(loss.out_keys, loss(**names), strict=True):
        assert torch.equal(value, expected[name]), name


def gradients_of(loss: HASACLoss, value: Tensor) -> set[str]:
    """Names of the parts that ``value`` has a non-zero gradient in."""
    loss.zero_grad()
    value.backward()
    touched = {n for n, p in loss.named_parameters() if p.grad is not None and p.grad.any()}
    parts = ("policy.actors.0", "policy.actors.1", "policy.actors.2", "critic", "target_critic")
    return {part for part in (*parts, "log_alpha") for n in touched if n.startswith(part)}


def test_each_loss_has_gradients_where_it_should() -> None:
    loss, data = make(), batch(UNEQUAL, dtype=torch.float64)
    actors = {f"policy.actors.{i}" for i in range(3)}
    assert gradients_of(loss, loss(data)["loss_qvalue"]) == {"critic"}
    assert gradients_of(loss, loss(data)["loss_actor"]) == actors
    assert gradients_of(loss, loss(data)["loss_alpha"]) == {"log_alpha"}
    assert not any(p.requires_grad for p in loss.target_critic.parameters())
    assert all(p.requires_grad for p in loss.critic.parameters())  # frozen only meanwhile


def test_forward_adds_up_the_agents_losses_against_current_policies() -> None:
    loss, data = make(), batch(UNEQUAL, dtype=torch.float64)
    torch.manual_seed(5)
    got = loss(data)
    torch.manual_seed(5)
    samples = [loss.sample(data, i) for i in range(3)]
    actions = [s.action for s in samples]
    expected = sum(loss.actor(data, i, actions, s.log_prob) for i, s in enumerate(samples))
    torch.testing.assert_close(got["loss_actor"], expected)
    entropy = -torch.cat([s.log_prob for s in samples], -1).sum(-1).mean()
    torch.testing.assert_close(got["entropy"], entropy.detach())


def test_renamed_keys() -> None:
    loss, data = make(), batch(UNEQUAL, deaths=True, dtype=torch.float64)
    names = {
        "observation": "seen",
        "action": "did",
        "alive": "lives",
        "state": "world",
        "reward": "gain",
        "terminated": "over",
        "steps": "k",
    }
    torch.manual_seed(0)
    renamed = data.clone()
    expected = loss(data)
    old = {"steps": "steps_to_next_obs"}
    for key in list(renamed.keys(True, True)):
        path = key if isinstance(key, tuple) else (key,)
        new = {old.get(k, k): v for k, v in names.items()}.get(path[-1])
        renamed.rename_key_(key, (*path[:-1], new))
    assert "observation" not in str(sorted(map(str, renamed.keys(True, True))))
    loss.set_keys(**names)
    torch.manual_seed(0)
    got = loss(renamed)
    for name in loss.out_keys:
        assert torch.equal(got[name], expected[name]), name
    assert ("legs", "seen") in loss.in_keys and ("next", "gain") in loss.in_keys


def test_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        make().set_keys(colour="red")


def test_reads_torchrls_multi_step_batches() -> None:
    """TorchRL's ``MultiStep`` writes ``steps_to_next_obs [B]``, without the last axis."""
    from torchrl.data.postprocs import MultiStep

    chunk = batch(ALONE, 6)
    chunk = TensorDict(
        {
            **{k: chunk[k].unsqueeze(0) for k in ("agents", "state")},
            "next": chunk["next"].unsqueeze(0).exclude("terminated"),
        },
        [1, 6],
    )
    never = torch.zeros(1, 6, 1, dtype=torch.bool)
    chunk["next"].update({"done": never, "terminated": never, "truncated": never})
    reward = chunk["next", "reward"].clone().squeeze()
    data = MultiStep(GAMMA, 3)(chunk).reshape(-1)
    loss = make(ALONE).float()
    got = loss.target(data, numbered(0)).squeeze()
    following = data["next"]
    sample = loss.sample(following, 0, numbered(0))
    q = torch.minimum(*loss.target_critic(following["state"], [sample.action]))
    value = (q - math.exp(-0.5) * sample.log_prob).squeeze().detach()
    for t in range(6):
        k = min(3, 6 - t)
        n_step = sum(GAMMA**j * reward[t + j] for j in range(k))
        torch.testing.assert_close(got[t], n_step + GAMMA**k * value[t])


def test_frozen_restores_after_an_error() -> None:
    critic = JointQ(UNEQUAL, NetworkConfig([8]))
    first = next(critic.parameters()).requires_grad_(False)
    with pytest.raises(ZeroDivisionError), frozen(critic):
        1 / any(p.requires_grad for p in critic.parameters())
    assert not first.requires_grad
    assert sum(p.requires_grad for p in critic.parameters()) == 7
