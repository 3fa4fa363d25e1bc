"""Networks with memories: through time, in chunks, and in the factor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hetmarl.algorithms import HAPPO, IPPO, MAPPO
from hetmarl.engines import UpdateRandomness
from hetmarl.networks.body import Memory
from hetmarl.networks.recurrence import Recurrence
from hetmarl.objectives.values import values_and_next
from hetmarl_envs.errors import ConfigError
from tests.on_policy import as_real, collector, make, rollout, update, weights
from tests.teams import HybridEnv

KINDS = [("gru", 1), ("gru", 2), ("lstm", 1), ("lstm", 2)]


def step_by_step(net: Recurrence, x: Tensor, hidden: Tensor, is_init: Tensor) -> Any:
    """The plain loop over time; the state is zero where an episode begins."""
    outputs = []
    for t in range(x.shape[1]):
        hidden = hidden * ~is_init[:, t]
        # [N, H] holds, for an LSTM, all layers' h and then all layers' c
        parts = hidden.view(len(x), -1, net.layers, net.size)
        states = [part.transpose(0, 1).contiguous() for part in parts.unbind(1)]
        given = states[0] if net.kind == "gru" else tuple(states)
        out, after = net.net(x[:, t : t + 1], given)
        outputs.append(out)
        after = (after,) if net.kind == "gru" else after
        hidden = torch.cat([state.transpose(0, 1).flatten(1) for state in after], -1)
    return torch.cat(outputs, 1), hidden


@pytest.mark.parametrize(("kind", "layers"), KINDS)
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 7])
def test_one_fused_call_is_the_loop_over_time(
    kind: str, layers: int, rate: float, steps: int
) -> None:
    """Outputs, last state and all gradients, resets at any place."""
    net = Recurrence(kind, 3, 4, layers).double()
    x = torch.randn(5, steps, 3).double().requires_grad_()
    hidden = torch.randn(5, net.state_size).double().requires_grad_()
    is_init = torch.rand(5, steps, 1) < rate
    weigh = torch.randn(5, steps, 4).double()
    found = []
    for run in (net, lambda *a: step_by_step(net, *a)):
        output, last = run(x, hidden, is_init)
        total = (output * weigh).sum() + last.square().sum()
        gradients = torch.autograd.grad(total, [x, hidden, *net.parameters()])
        found.append([output, last, *gradients])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    if rate == 1.0:
        assert (found[0][3] == 0).all()  # nothing of before the episode


def test_a_state_of_before_the_episode_is_not_read() -> None:
    """Not even if it is not finite."""
    net = Recurrence("gru", 3, 4)
    x, is_init = torch.randn(2, 5, 3), torch.zeros(2, 5, 1, dtype=torch.bool)
    is_init[:, 0] = True
    clean = net(x, torch.zeros(2, 4), is_init)[0]
    assert torch.equal(net(x, torch.full((2, 4), float("nan")), is_init)[0], clean)


# ---------------------------------------------------------------------- from acting to updating
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "layers"), KINDS)
def test_the_ratio_before_any_update_is_one(kind: str, layers: int, dtype: torch.dtype) -> None:
    """The pass through time, the passes over chunks, and acting step by step all agree."""
    network = {"memory": kind, "memory_layers": layers}
    module = make(HAPPO, network=network, dtype=dtype, chunk_length=4)
    acting = collector(module)
    tolerance = 3e-6 if dtype == torch.float32 else 1e-12
    for chunk in range(2):  # the second begins in the middle of episodes
        data = as_real(acting.collect(8, chunk)[0], module)
        assert data["is_init"][:, 1:].any()
        prepared = module.loss.prepare(data.clone())
        for i, actor in enumerate(module.policy.actors):
            whole = module.loss.read(prepared, i)
            alive = whole.alive
            for t in range(8):
                memory = Memory(whole.hidden[:, t], whole.is_init[:, t])
                mask = None if whole.action_mask is None else whole.action_mask[:, t]
                parameters, hidden = actor(whole.observation[:, t], mask, memory)
                drawn = actor.distribution(parameters).log_prob(whole.action[:, t])
                gap = (drawn - whole.old_log_prob[:, t]).abs() * alive[:, t]
                assert gap.max() < tolerance
                if t < 7:
                    goes_on = ~whole.is_init[:, t + 1]
                    gap = (hidden - whole.hidden[:, t + 1]).abs() * goes_on
                    assert gap.max() < tolerance
            parts = whole.map(lambda x: x.reshape(-1, 4, *x.shape[2:]))
            for batch in (whole, parts):
                ratio = module.loss.change(i, batch).ratio
                assert (ratio - 1).abs().max() < tolerance


def test_states_continue_across_rollouts() -> None:
    """From zero at each episode's first step, through all rollouts: against one long loop."""
    module = make(HAPPO, network={"memory": "lstm"})
    acting = collector(module, HybridEnv(max_steps=9))
    data = torch.cat([acting.collect(n, i)[0] for i, n in enumerate((4, 1, 7))], 1)
    assert data["is_init"][:, 0].all() and data["is_init"][:, 1:].any()
    data = as_real(data, module)
    for i, name in enumerate(module.spec.names):
        actor, hidden = module.policy.actors[i], torch.zeros(3, 12).double()
        for t in range(12):
            hidden = hidden * ~data["is_init"][:, t]
            stored = data["hidden", name][:, t] * ~data["is_init"][:, t]
            torch.testing.assert_close(stored, hidden, rtol=0, atol=1e-12)
            frame = data[:, t]
            mask = module.spec.action_mask(frame, i)
            never = torch.zeros(3, 1, dtype=torch.bool)
            hidden = actor(module.spec.observation(frame, i), mask, Memory(hidden, never))[1]
            torch.testing.assert_close(
                data["next", "hidden", name][:, t], hidden, rtol=0, atol=1e-12
            )


def test_collecting_is_resumed_with_what_is_remembered() -> None:
    module = make(HAPPO, network={"memory": "gru"}, dtype=torch.float32)
    acting, again = collector(module), collector(module)
    acting.collect(7, 0)
    state = acting.state_dict()
    expected = acting.collect(6, 1)[0]
    again.load_state_dict(state)
    assert (again.collect(6, 1)[0] == expected).all()


# ---------------------------------------------------------------------- critics
@pytest.mark.parametrize("algorithm", [MAPPO, IPPO])
@pytest.mark.parametrize(("kind", "layers"), [("gru", 1), ("lstm", 2)])
def test_recurrent_values_of_steps_and_of_what_follows(
    algorithm: Any, kind: str, layers: int
) -> None:
    """Step by step; after an episode's last step its final observation, seen with its memory."""
    module = make(algorithm, network={"memory": kind, "memory_layers": layers})
    critic, acting = module.critic, collector(module)
    keys = ["critic"] if algorithm is MAPPO else [f"critic_{name}" for name in module.spec.names]
    start = acting._carrier.clone()
    states = {key: torch.zeros_like(start["hidden", key]) for key in keys}
    for chunk in range(2):
        data = as_real(acting.collect(8, chunk)[0], module)
        assert data["next", "done"][:, :-1].any()
        value, following, _ = values_and_next(data, critic)
        for t in range(8):
            frame, after = data[:, t].clone(), data["next"][:, t].clone()
            for key in keys:
                frame["hidden", key] = states[key] * ~frame["is_init"]
            # one step, from the states of this loop alone
            torch.testing.assert_close(value[:, t], critic(frame), rtol=0, atol=1e-11)
            critic.remember(frame)
            states = {key: frame["next", "hidden", key] for key in keys}
            for key in keys:
                after["hidden", key] = states[key]
            torch.testing.assert_close(following[:, t], critic(after), rtol=0, atol=1e-11)


# ---------------------------------------------------------------------- the update
def test_the_factor_goes_through_time() -> None:
    """The new policy's own states, from the rollout's first; not the stored states of the old."""
    module = make(HAPPO, network={"memory": "gru"}, actor_lr=0.05, chunk_length=2)
    data = rollout(module)
    prepared = module.loss.prepare(data.clone())
    order = UpdateRandomness(0, 0).order(5)
    seen: dict[int, Tensor] = {}
    read = module.loss.read
    module.loss.read = lambda d, i: seen.setdefault(i, read(d, i)) and read(d, i)
    update(module, data)
    first, second = order[:2]
    plain, actor = read(prepared, first), module.policy.actors[first]
    hidden, ratios = plain.hidden[:, 0], []
    for t in range(8):
        mask = None if plain.action_mask is None else plain.action_mask[:, t]
        memory = Memory(hidden, plain.is_init[:, t])
        parameters, hidden = actor(plain.observation[:, t], mask, memory)
        log_prob = actor.distribution(parameters).log_prob(plain.action[:, t])
        ratio = (log_prob - plain.old_log_prob[:, t]).exp()
        ratios.append(torch.where(plain.alive[:, t], ratio, 1.0))
    expected = read(prepared, second).advantage * torch.stack(ratios, 1)
    torch.testing.assert_close(seen[second].advantage, expected, rtol=1e-9, atol=1e-12)
    chunked = plain.map(lambda x: x.reshape(-1, 2, *x.shape[2:]))
    stale = module.loss.change(first, chunked).ratio.reshape(3, 8, 1)
    assert (stale - torch.stack(ratios, 1)).abs().max() > 1e-4  # the two differ


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [HAPPO, IPPO])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_an_iteration_with_plain_loops_is_the_same(
    algorithm: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"chunk_length": 4, "epochs": 2, "minibatches": 2, "critic_minibatches": 3}
    modules = [make(algorithm, network={"memory": kind}, **settings) for _ in range(2)]
    data = [rollout(modules[0], seed=i) for i in range(2)]
    for module in modules:
        for iteration, batch in enumerate(data):
            update(module, batch, iteration)
        monkeypatch.setattr(Recurrence, "forward", step_by_step)
    torch.testing.assert_close(*map(weights, modules), rtol=0, atol=1e-10)


def test_gradients_end_at_chunks_not_at_minibatches() -> None:
    """A chunk's loss has a gradient in what its first steps saw, none beyond its first."""
    module = make(HAPPO, network={"memory": "gru"}, chunk_length=4)
    prepared = module.loss.prepare(rollout(module, env=HybridEnv(max_steps=50, death_rate=0.0)))
    whole = module.loss.read(prepared, 0)
    seen = whole.observation.clone().requires_grad_()
    whole.observation = seen
    parts = whole.map(lambda x: x.reshape(-1, 4, *x.shape[2:]))
    ratio = module.loss.change(0, parts).log_ratio.reshape(3, 8)
    (slope,) = torch.autograd.grad(ratio[:, 6].sum(), seen)
    reached = (slope.abs().sum(-1) > 0).all(0).tolist()
    assert reached == [False, False, False, False, True, True, True, False]


def test_some_may_remember_and_others_not() -> None:
    """By agent; the critic by itself."""
    network = {
        "agents": {"valve": {"memory": "gru"}, "arm_1": {"memory": "lstm"}},
        "critic": {"memory": "none"},
    }
    module = make(HAPPO, network=network, chunk_length=4, epochs=2, minibatches=2)
    assert module.policy.recurrent == [2, 3] and not module.critic.recurrent
    data = rollout(module)
    assert set(data["hidden"].keys()) == {"valve", "arm_1"}
    before = [weights(a) for a in module.policy.actors]
    update(module, data)
    for actor, start in zip(module.policy.actors, before, strict=True):
        assert not torch.equal(weights(actor), start)


def test_chunks_that_do_not_divide_the_rollout() -> None:
    for network in ({"memory": "gru"}, {"critic": {"memory": "gru"}}):
        module = make(HAPPO, network=network, chunk_length=5)
        with pytest.raises(ConfigError, match=r"8 steps and algo.chunk_length=5 does not divide"):
            update(module, rollout(module))
