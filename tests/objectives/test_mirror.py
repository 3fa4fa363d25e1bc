"""The losses of mirror learning: against TorchRL's, drifts, deaths, masks, TorchRL's contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical, Independent, Normal
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss

from hetmarl.algorithms import HAA2C, HAMDPO, HAPPO, HATRPO, IPPO, MAPPO
from hetmarl.objectives import ClipDrift, KLBall, KLDrift, MirrorLoss, NoDrift
from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec
from hetmarl_envs.errors import ConfigError
from tests.on_policy import actors, make, rollout, update, weights
from tests.teams import CountingEnv, HybridEnv


def prepared(module: Any, **settings: Any) -> Any:
    """A rollout ``[N]`` that ``prepare`` has seen, policies moved since."""
    data = module.loss.prepare(rollout(module, **settings))
    with torch.no_grad():
        for p in module.policy.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return data.reshape(-1)


# ---------------------------------------------------------------------- one agent
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_happo_of_one_agent_is_ppo(kind: str) -> None:
    """Loss and gradients are those of TorchRL's ClipPPOLoss (coefficients exact in float32)."""
    space = ActionSpace("continuous", (-1.0, -1.0), (1.0, 1.0))
    if kind == "discrete":
        space = ActionSpace("discrete", choices=(4,))
    spec = TeamSpec((AgentSpec("solo", "g", 0, (3,), space),), 5)
    module = make(HAPPO, spec, clip_epsilon=0.125, entropy_coef=2**-5)
    loss, actor, n = module.loss, module.policy.actors[0], 50
    observation = torch.randn(n, 3).double()
    with torch.no_grad():
        old = actor(observation)[0]
        drawn = actor.distribution(old).sample(torch.randn_like)
        old_log_prob = actor.distribution(old).log_prob(drawn)
        for p in actor.parameters():
            p.add_(0.05 * torch.randn_like(p))
    action = drawn[:, None] if kind == "continuous" else drawn
    group = {"observation": observation[:, None], "action": action, "sample": action}
    group |= {"advantage": torch.randn(n, 1, 1).double(), "old_parameters": old[:, None]}
    group |= {"old_log_prob": old_log_prob[:, None]}
    root = {
        "state": torch.randn(n, 5),
        "value": torch.randn(n, 1),
        "value_target": torch.ones(n, 1),
    }
    data = TensorDict({"g": group} | root, [n])
    found = loss(data)["loss_objective"]

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.actor = actor

        def forward(self, x: Any) -> Any:
            parameters = self.actor(x)[0]
            return parameters.chunk(2, -1) if kind == "continuous" else parameters

    keys = ["loc", "scale"] if kind == "continuous" else ["logits"]
    theirs = ProbabilisticActor(
        TensorDictModule(Heads(), ["observation"], keys),
        in_keys=keys,
        distribution_class=(lambda loc, scale: Independent(Normal(loc, scale), 1))
        if kind == "continuous"
        else Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Linear(3, 1).double(), ["observation"])
    ppo = ClipPPOLoss(
        theirs, critic, clip_epsilon=0.125, entropy_coeff=2**-5, normalize_advantage=False
    ).double()
    flat = TensorDict(
        {
            "observation": observation,
            "action": action[:, 0],
            "action_log_prob": old_log_prob[:, 0],
            "advantage": group["advantage"][:, 0],
            "value_target": torch.zeros(n, 1).double(),
        },
        [n],
    )
    out = ppo(flat)
    expected = out["loss_objective"] + out["loss_entropy"]
    assert 0.1 < out["clip_fraction"] < 0.9
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    mine = torch.autograd.grad(found, list(actor.parameters()))
    entries = ppo.actor_network_params.flatten_keys(".").items()
    parameters = {name: p for name, p in entries if p.requires_grad}
    other = torch.autograd.grad(expected, list(parameters.values()))
    named = {name.split("actor.")[-1]: g for name, g in zip(parameters, other, strict=True)}
    for (name, _), gradient in zip(actor.named_parameters(), mine, strict=True):
        torch.testing.assert_close(gradient, named[name], rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------- limits
COMMON = {"epochs": 3, "minibatches": 2, "actor_lr": 0.01, "entropy_coef": 0.01}


@pytest.mark.parametrize("direction", ["new_old", "old_new"])
def test_hamdpo_with_infinite_steps_is_haa2c(direction: str) -> None:
    free = make(HAMDPO, step_size=float("inf"), kl_direction=direction, **COMMON)
    plain, held = make(HAA2C, **COMMON), make(HAMDPO, step_size=1e-3, **COMMON)
    data = rollout(plain)
    for module in (free, plain, held):
        start = actors(module)
        kl = {k: v for k, v in update(module, data).items() if k.startswith("kl/")}
        assert all(not torch.equal(a, b) for a, b in zip(start, actors(module), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(actors(free), actors(plain), strict=True))
    wide = update(make(HAA2C, **COMMON), data)
    assert all(kl[key] < wide[key] for key in kl)  # and a small one holds it back


def test_happo_without_clipping_is_haa2c() -> None:
    wide, plain = make(HAPPO, clip_epsilon=1e6, **COMMON), make(HAA2C, **COMMON)
    data = rollout(plain)
    update(wide, data), update(plain, data)
    torch.testing.assert_close(weights(wide), weights(plain), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "drift", [NoDrift(), ClipDrift(0.1), KLDrift(0.3), KLDrift(0.3, "old_new"), KLBall(0.1)]
)
def test_no_drift_and_no_slope_of_it_at_the_old_policy(drift: Any) -> None:
    """And none is negative in expectation, wherever the policy goes."""
    module = make(HAPPO)
    loss, flat = module.loss, module.loss.prepare(rollout(module)).reshape(-1)
    of = drift.distance if isinstance(drift, KLBall) else drift
    for agent in range(5):
        change = loss.change(agent, loss.read(flat, agent))
        value = loss.mean([of(change)], [change])
        assert value.item() == pytest.approx(0.0, abs=1e-14)
        if value.requires_grad:
            parameters = list(module.policy.actors[agent].parameters())
            for slope in torch.autograd.grad(value, parameters, allow_unused=True):
                assert slope is None or slope.abs().max() < 1e-12
    with torch.no_grad():
        for p in module.policy.parameters():
            p.add_(0.3 * torch.randn_like(p))
        for agent in range(5):
            change = loss.change(agent, loss.read(flat, agent))
            assert loss.mean([of(change)], [change]) >= 0


def test_clip_drift_is_what_clipping_takes_away() -> None:
    module = make(HAPPO)
    flat = prepared(module)
    change = module.loss.change(0, module.loss.read(flat, 0))
    r, m = change.ratio, change.advantage
    expected = torch.minimum(r * m, r.clamp(0.9, 1.1) * m)
    torch.testing.assert_close(r * m - ClipDrift(0.1)(change), expected, rtol=0, atol=1e-12)
    assert ((r > 1.1) & (m > 0)).any() and ((r < 0.9) & (m < 0)).any()


# ---------------------------------------------------------------------- the dead
def garbage(data: Any) -> Any:
    """``data`` with other (finite) observations and actions of the dead."""
    found = data.clone()
    for where in (found, found["next"]):
        for group in HybridEnv.GROUPS:
            dead = ~where[group, "alive"]
            seen = where[group, "observation"]
            where[group, "observation"] = torch.where(dead, 50 * torch.randn_like(seen), seen)
            if where is found:
                for key in ("action", "sample"):
                    acted = where.get((group, key), None)
                    if acted is None:
                        continue
                    other = acted.flip(0).flip(1) if acted.dtype == torch.int64 else acted + 7.0
                    flag = dead.squeeze(-1) if acted.ndim == dead.ndim - 1 else dead
                    where[group, key] = torch.where(flag, other, acted)
    return found


SHARED = {"sharing": [["panel_0", "panel_1"], ["arm_0", "arm_1"], ["valve"]]}


@pytest.mark.parametrize(
    ("algorithm", "network", "settings"),
    [
        (HAPPO, {}, {"epochs": 2, "entropy_coef": 0.1}),
        (HAMDPO, {}, {"epochs": 2, "step_size": 0.5}),
        (HATRPO, {}, {}),
        (MAPPO, SHARED, {"epochs": 2}),
        (MAPPO, {"sharing": "full"}, {"epochs": 2}),
        (HAPPO, SHARED, {"epochs": 2, "allow_shared_sequential": True}),
        (IPPO, {}, {"epochs": 2}),
        (IPPO, {"memory": "gru"}, {"epochs": 2, "chunk_length": 4}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*share parameters")
def test_nothing_follows_from_what_the_dead_see_and_do(
    algorithm: Any, network: Any, settings: Any
) -> None:
    """The whole iteration, to the bit."""
    clean, dirty = (make(algorithm, network=network, **settings) for _ in range(2))
    data = rollout(clean, env=HybridEnv(death_rate=0.3))
    other = garbage(data)
    assert not torch.equal(data["panel", "observation"], other["panel", "observation"])
    assert not torch.equal(data["valve", "action"], other["valve", "action"])
    first, second = update(clean, data), update(dirty, other)
    assert torch.equal(weights(clean), weights(dirty))
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_a_dead_agents_ratio_is_exactly_one() -> None:
    module = make(HAPPO)
    flat = prepared(module, env=HybridEnv(death_rate=0.4))
    for agent in range(5):
        change = module.loss.change(agent, module.loss.read(garbage(flat), agent))
        alive = change.alive
        assert alive is not None and not alive.all() and alive.any()
        assert (change.ratio[~alive] == 1).all() and (change.ratio[alive] != 1).any()


def test_means_are_those_of_the_living() -> None:
    """Entropy, divergence and loss of a batch are those of its living samples alone."""
    module = make(HAPPO, entropy_coef=0.5)
    loss, flat = module.loss, prepared(module, env=HybridEnv(death_rate=0.4))
    for agent in range(5):
        batch = loss.read(flat, agent)
        assert batch.alive is not None
        rows = batch.alive.squeeze(-1)
        whole = loss.objective([loss.change(agent, batch)])
        living = loss.objective([loss.change(agent, batch.map(lambda x, rows=rows: x[rows]))])
        for a, b in zip(whole[:4], living[:4], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        own = living.change[0].new.entropy().mean()
        torch.testing.assert_close(whole.entropy, own, rtol=1e-12, atol=0)
        kl = loss.mean_kl(living.change)
        torch.testing.assert_close(loss.mean_kl(whole.change), kl, rtol=1e-12, atol=1e-14)


def test_nobody_alive_in_a_batch() -> None:
    module = make(HAPPO)
    batch = module.loss.read(prepared(module), 1)
    batch.alive = torch.zeros_like(batch.alive)
    objective = module.loss.objective([module.loss.change(1, batch)])
    assert objective.loss.item() == 0.0
    for slope in torch.autograd.grad(objective.loss, list(module.policy.actors[1].parameters())):
        assert (slope == 0).all()


# ---------------------------------------------------------------------- agents as one
def test_joint_change_is_the_product_over_the_living() -> None:
    module = make(HAPPO)
    loss, flat = module.loss, prepared(module, env=HybridEnv(death_rate=0.4))
    changes = [loss.change(i, loss.read(flat, i)) for i in (1, 2, 4)]
    joint = loss.joint_change(changes)
    assert joint.alive is not None
    for row in range(len(flat)):
        living = [c for c in changes if c.alive[row]]
        assert bool(joint.alive[row]) == bool(living)
        if living:
            ratio = torch.stack([c.ratio[row] for c in living]).prod(0)
            torch.testing.assert_close(joint.ratio[row], ratio)
            advantage = torch.stack([c.advantage[row] for c in living]).mean(0)
            torch.testing.assert_close(joint.advantage[row], advantage)
            kl = sum(c.old.kl(c.new)[row] for c in living)
            torch.testing.assert_close(joint.old.kl(joint.new)[row], kl)


def test_a_joint_advantage_is_the_members_mean_also_where_nobody_dies() -> None:
    """As with values of each agent's own, whose standardised advantages differ."""
    loss = make(IPPO).loss
    flat = prepared(make(IPPO))
    changes = [loss.change(i, loss.read(flat, i))._replace(alive=None) for i in (1, 2, 4)]
    joint = loss.joint_change(changes)
    assert joint.alive is None
    mean = torch.stack([c.advantage for c in changes]).mean(0)
    torch.testing.assert_close(joint.advantage, mean)
    assert not torch.allclose(mean, changes[0].advantage)


def test_a_unit_lives_while_any_member_does() -> None:
    """Also where only some of its members can die, and where the first is dead throughout."""
    module = make(HAPPO)
    loss, flat = module.loss, prepared(module)
    changes = [loss.change(i, loss.read(flat, i)) for i in (1, 2, 4)]
    immortal = [changes[0], changes[1]._replace(alive=None), changes[2]]
    assert loss.joint_change(immortal).alive is None or loss.joint_change(immortal).alive.all()
    gone = changes[0]._replace(
        alive=torch.zeros_like(changes[0].alive), advantage=changes[0].advantage * 1e5
    )
    joint = loss.joint_change([gone, *changes[1:]])
    assert joint.advantage[joint.alive].abs().max() < 10


# ---------------------------------------------------------------------- TorchRL's contract
def test_forward_is_the_sum_of_the_agents_losses() -> None:
    module = make(MAPPO, entropy_coef=0.1)
    loss, flat = module.loss, prepared(module)
    out = loss(flat)
    assert set(out.keys()) == set(loss.out_keys)
    parts = [loss.objective([loss.change(i, loss.read(flat, i))]) for i in range(5)]
    torch.testing.assert_close(out["loss_objective"], sum(p.loss for p in parts))
    assert out["loss_objective"].requires_grad and out["loss_critic"].requires_grad
    assert not out["entropy"].requires_grad and not out["kl"].requires_grad
    slopes = torch.autograd.grad(
        out["loss_objective"], list(loss.critic.parameters()), allow_unused=True
    )
    assert all(s is None for s in slopes)


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_forward_by_keyword(memory: str) -> None:
    """What every batch has is enough, where nobody dies and everything is legal."""
    module = make(HAPPO, TeamSpec.from_env(CountingEnv()), {"memory": memory})
    data = module.loss.prepare(rollout(module, env=CountingEnv(num_envs=2), steps=10))
    data = data if memory == "gru" else data.reshape(-1)
    loss = module.loss
    assert ("wide", "sample") in loss.in_keys and ("wide", "action") not in loss.in_keys
    expected = loss(data)
    selected = loss(data.select(*loss.in_keys))
    names = {"_".join(k) if isinstance(k, tuple) else k: data[k] for k in loss.in_keys}
    given = dict(zip(loss.out_keys, loss(**names), strict=True))
    for name in loss.out_keys:
        torch.testing.assert_close(selected[name], expected[name])
        torch.testing.assert_close(given[name], expected[name])


@pytest.mark.parametrize("settings", [{"direction": "new-old"}, {"step_size": 0.0}])
def test_a_divergence_that_is_none(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings))}=.*expected"):
        KLDrift(**settings)


def test_a_direction_of_hamdpo_that_is_none() -> None:
    """Named as the user wrote it."""
    match = r"algo\.kl_direction='old-new': expected one of new_old, old_new\."
    with pytest.raises(ConfigError, match=match):
        HAMDPO.config_type(kl_direction="old-new")


def test_keys_can_be_renamed() -> None:
    module = make(HAPPO)
    data = rollout(module)
    plain = module.loss.prepare(data.clone()).reshape(-1)
    loss = MirrorLoss(module.policy, module.critic, ClipDrift(0.2)).double()
    names = {"action": "did", "sample": "drew", "action_mask": "may", "alive": "lives"}
    names |= {"advantage": "gain", "old_log_prob": "before", "value_target": "goal"}
    names["observation"] = "seen"
    loss.set_keys(**names)
    for where in (data, data["next"]):
        for group in HybridEnv.GROUPS:
            for old, new in names.items():
                if where.get((group, old), None) is not None:
                    where[group].rename_key_(old, new)
    out = loss(loss.prepare(data).reshape(-1))
    expected = module.loss(plain)
    torch.testing.assert_close(out["loss_critic"], expected["loss_critic"])
    torch.testing.assert_close(out["loss_objective"], expected["loss_objective"])
