"""The on-policy engine: who moves, in what order, against whose policies, and by whose samples."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from hetmarl.algorithms import HAA2C, HAMDPO, HAPPO, HATRPO, IPPO, MAPPO
from hetmarl.algorithms.on_policy import OnPolicyModule
from hetmarl.engines import OnPolicyEngine, UpdateRandomness
from hetmarl_envs.contract import AgentSpec, TeamSpec
from hetmarl_envs.errors import ConfigError
from tests.on_policy import Processes, actors, make, rollout, update, weights
from tests.teams import HybridEnv


class Fixed(UpdateRandomness):
    """Random numbers whose order of agents is given."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__(0, 0)
        self.given = list(order)

    def order(self, count: int) -> list[int]:
        return self.given


def turns(module: Any) -> list[tuple[int, Any]]:
    """Notes each agent's batch when its turn comes."""
    seen: list[tuple[int, Any]] = []
    read = module.loss.read

    def noted(data: Any, agent: int) -> Any:
        batch = read(data, agent)
        seen.append((agent, copy.deepcopy(batch)))
        return batch

    module.loss.read = noted
    return seen


# ---------------------------------------------------------------------- order and factor
@pytest.mark.parametrize("algorithm", [HAPPO, HAA2C, HAMDPO, HATRPO])
def test_the_factor_holds_exactly_the_predecessors_new_ratios(algorithm: Any) -> None:
    """By the policies after the iteration, as every agent has one turn."""
    settings = {"delta": 0.1} if algorithm is HATRPO else {"actor_lr": 0.02}
    module = make(algorithm, **settings)
    data = rollout(module)
    prepared = module.loss.prepare(data.clone())
    seen = turns(module)
    updated = data.clone()
    module.engine.update(updated, Fixed([3, 1, 4, 0, 2]))
    assert "factor" not in updated.keys()  # the next update's would begin with it
    assert [agent for agent, _ in seen] == [3, 1, 4, 0, 2]
    del module.loss.read
    flat, factor = prepared, torch.ones(3, 8, 1, dtype=torch.float64)
    for agent, batch in seen:
        plain = module.loss.read(flat, agent)
        torch.testing.assert_close(batch.advantage, plain.advantage * factor, rtol=1e-10, atol=0)
        ratio = module.loss.change(agent, plain).ratio.detach()
        assert (ratio - 1).abs().max() > 0.01
        factor = factor * ratio


@pytest.mark.parametrize("algorithm", [MAPPO, IPPO])
def test_simultaneous_agents_see_no_factor(algorithm: Any) -> None:
    module = make(algorithm, actor_lr=0.02)
    data = rollout(module)
    prepared = module.loss.prepare(data.clone())
    seen = turns(module)
    update(module, data)
    del module.loss.read
    for agent, batch in seen:
        assert torch.equal(batch.advantage, module.loss.read(prepared, agent).advantage)


def test_a_fresh_order_every_iteration() -> None:
    module = make(HAPPO, critic_epochs=1)
    module.engine.updates = [lambda *_: {}] * 5
    data, seen = rollout(module, 2), turns(module)
    for iteration in range(60):
        update(module, data, iteration)
    names = [agent for agent, _ in seen]
    orders = [tuple(names[5 * i : 5 * i + 5]) for i in range(60)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len(set(orders)) > 30
    for place in range(5):
        assert {order[place] for order in orders} == set(range(5))
    fixed = make(HAPPO, epochs=1, critic_epochs=1, fixed_order=True)
    seen = turns(fixed)
    for iteration in range(3):
        update(fixed, data, iteration)
    assert [agent for agent, _ in seen] == list(range(5)) * 3


def test_simultaneous_updates_do_not_depend_on_each_other() -> None:
    """An agent moves alike whether the others move or not."""
    module = make(MAPPO, actor_lr=0.02)
    data, start = rollout(module), actors(module)
    alone = []
    for i in range(5):
        other = make(MAPPO, actor_lr=0.02)
        other.engine.updates = [
            u if k == i else lambda *a: {} for k, u in enumerate(other.engine.updates)
        ]
        update(other, data)
        alone.append(actors(other)[i])
        assert [torch.equal(a, b) for a, b in zip(actors(other), start, strict=True)].count(
            False
        ) == 1
    update(module, data)
    assert all(torch.equal(a, b) for a, b in zip(actors(module), alone, strict=True))


# ---------------------------------------------------------------------- who moves
@pytest.mark.parametrize("algorithm", [HAPPO, HATRPO, MAPPO, IPPO])
def test_nobody_else_moves_by_one_bit(algorithm: Any) -> None:
    """Also with Adam's momentum of the iterations before; critics and statistics too."""
    module = make(algorithm)
    moved: list[tuple[int, list[bool], bool]] = []

    def parts() -> tuple[list[Any], Any]:
        buffers = [b.clone() for b in module.loss.value_norm.buffers()]
        return actors(module), torch.cat([weights(module.critic), *buffers])

    def watched(position: int, inner: Any) -> Any:
        def run(*args: Any) -> Any:
            before, critic = parts()
            out = inner(*args)
            after, now = parts()
            changes = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
            moved.append((position, changes, torch.equal(critic, now)))
            return out

        return run

    engine = module.engine
    engine.updates = [watched(i, u) for i, u in enumerate(engine.updates)]
    inner, critics = engine.critic_step, []

    def critic_step(loss: Any) -> Any:
        before = actors(module)
        norm = inner(loss)
        critics.append(all(torch.equal(a, b) for a, b in zip(before, actors(module), strict=True)))
        return norm

    engine.critic_step = critic_step
    for iteration in range(3):
        update(module, rollout(module, seed=iteration), iteration)
    assert len(moved) == 15 and len(critics) == 15 and all(critics)
    for position, changes, critic_stood in moved:
        assert critic_stood
        assert changes == [i == position for i in range(5)]


def test_the_dead_of_a_whole_rollout_stay() -> None:
    """Momentum alone moves nobody: there is nothing to learn from."""
    module = make(HAPPO)
    for iteration in range(2):
        update(module, rollout(module, seed=iteration), iteration)
    data = rollout(module, seed=9)
    data["valve", "alive"].zero_()
    before = actors(module)
    metrics = update(module, data, 2)
    same = [torch.equal(a, b) for a, b in zip(before, actors(module), strict=True)]
    assert same == [False, False, True, False, False]
    assert metrics["ratio_deviation/valve"] == 0.0 and metrics["kl/valve"] == 0.0


class Parts(Fixed):
    """Whose minibatches are given; the valve comes first."""

    def __init__(self, *parts: Sequence[int]) -> None:
        super().__init__([2, 0, 1, 3, 4])
        self.parts = [torch.tensor(part) for part in parts]

    def minibatches(self, count: int, parts: int) -> list[Any]:
        return [None] if parts == 1 else list(self.parts)


def half_alive(module: OnPolicyModule, environments: slice) -> TensorDict:
    """A rollout ``[2, 8]`` in which the valve lives in some environments only."""
    data = rollout(module, env=HybridEnv(num_envs=2, death_rate=0.0))
    data["valve", "alive"].zero_()
    data["valve", "alive"][environments] = True
    return data


def test_the_dead_of_a_minibatch_stay() -> None:
    """The valve lives in the first of two: the second adds nothing, in any pass."""
    module, half = (make(HAPPO, minibatches=2, epochs=3) for _ in range(2))
    data = half_alive(module, slice(0, 1))
    metrics = module.engine.update(data.clone(), Parts(range(8), range(8, 16)))
    expected = half.engine.update(data.clone(), Parts(range(8)))
    same = [torch.equal(a, b) for a, b in zip(actors(module), actors(half), strict=True)]
    assert same == [False, False, True, False, False]
    for name in ("loss_actor", "grad_norm", "entropy", "kl"):
        assert torch.equal(metrics[f"{name}/valve"], expected[f"{name}/valve"])
    assert metrics["kl/valve"] > 0


@pytest.mark.parametrize("lives", [slice(0, 1), slice(1, 2)])
def test_processes_pass_over_a_minibatch_together(lives: slice) -> None:
    """Not where an agent lives in one process only."""
    whole, *parts = (make(HAPPO, minibatches=2) for _ in range(3))
    data = half_alive(whole, lives)
    data["valve", "alive"][:, 4:] = False  # nobody in the second minibatch
    first, second = [*range(4), *range(8, 12)], [*range(4, 8), *range(12, 16)]
    whole.engine.update(data.clone(), Parts(first, second))

    def task(rank: int, reduce: Any) -> None:
        use(parts[rank], reduce)
        parts[rank].engine.update(data[rank : rank + 1].clone(), Parts(range(4), range(4, 8)))

    Processes().run(task)
    assert torch.equal(weights(parts[0]), weights(parts[1]))
    torch.testing.assert_close(weights(parts[0]), weights(whole), rtol=0, atol=1e-9)


# ---------------------------------------------------------------------- names and order
ORDER = [3, 0, 4, 2, 1]
RENAMED = {"arm": "x", "valve": "a", "panel": "m"}


def permuted_spec(spec: TeamSpec) -> TeamSpec:
    """The same team in another order, under other names, in other places of other groups."""
    size = HybridEnv.GROUPS
    agents = []
    for place, i in enumerate(ORDER):
        own = spec.agents[i]
        index = size[own.group] - 1 - own.index
        agents.append(
            AgentSpec(
                f"agent_{place}", RENAMED[own.group], index, own.observation_shape, own.action
            )
        )
    return replace(spec, agents=tuple(agents))


def permuted_data(data: TensorDict) -> TensorDict:
    found = data.clone()
    for where in (found, found["next"]):
        for old, new in RENAMED.items():
            if where.get(old, None) is not None:
                group = where.pop(old)
                dims = data.batch_dims
                where[new] = TensorDict(
                    {key: value.flip(dims) for key, value in group.items()}, data.batch_size
                )
    return found


@pytest.mark.parametrize("algorithm", [HAPPO, HATRPO, MAPPO, IPPO])
def test_names_groups_and_order_mean_nothing(algorithm: Any) -> None:
    """Permuted agents with permuted random numbers are updated alike."""
    module = make(algorithm)
    other = make(algorithm, permuted_spec(module.spec))
    for place, i in enumerate(ORDER):
        other.policy.actors[place].load_state_dict(module.policy.actors[i].state_dict())
    if algorithm is IPPO:
        state = {}
        for key, value in module.critic.state_dict().items():
            name, i, rest = key.split(".", 2)  # a list of networks in team order
            state[f"{name}.{ORDER.index(int(i))}.{rest}"] = value
        other.critic.load_state_dict(state)
    else:
        other.critic.load_state_dict(module.critic.state_dict())
    turn = [2, 0, 4, 1, 3]
    for iteration in range(2):
        data = rollout(module, seed=iteration)
        first = module.engine.update(data.clone(), Fixed(turn))
        second = other.engine.update(permuted_data(data), Fixed([ORDER.index(i) for i in turn]))
        for place, i in enumerate(ORDER):
            for key in ("loss_actor", "kl"):
                a, b = first[f"{key}/{module.spec.names[i]}"], second[f"{key}/agent_{place}"]
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    for place, i in enumerate(ORDER):
        torch.testing.assert_close(actors(module)[i], actors(other)[place], rtol=0, atol=1e-11)


# ---------------------------------------------------------------------- shared parameters
def test_units_are_those_who_have_anything_in_common() -> None:
    """Continuous and discrete agents share a body though only some have a σ."""
    full = make(MAPPO, network={"sharing": "full"})
    assert full.policy.units == [[0, 1, 2, 3, 4]]
    sets = [["arm_0", "valve"], ["panel_0", "panel_1"], ["arm_1"]]
    part = make(MAPPO, network={"sharing": sets})
    assert part.policy.units == [[0, 2], [1, 4], [3]]
    for module in (full, part):
        owned = [id(p) for o in module.made_optimizers for g in o.param_groups for p in g["params"]]
        everything = [*module.policy.parameters(), *module.critic.parameters()]
        assert sorted(owned) == sorted(id(p) for p in everything)
    with pytest.raises(ConfigError, match=r"happo updates one agent after another.*share"):
        make(HAPPO, network={"sharing": "full"})


@pytest.mark.parametrize(
    "sharing", ["full", [["arm_0", "valve"], ["panel_0", "panel_1"], ["arm_1"]]]
)
def test_simultaneous_sharing_descends_the_mean_over_all_agents_samples(sharing: Any) -> None:
    """One gradient step of one unit, against every living (sample, agent) pair by itself."""
    module = make(MAPPO, network={"sharing": sharing}, epochs=1, max_grad_norm=None)
    loss = module.loss
    data = rollout(module, env=HybridEnv(death_rate=0.3))
    flat = loss.prepare(data.clone()).reshape(-1)
    unit = loss.policy.units[0]
    terms = []
    for i in unit:
        batch = loss.read(flat, i)
        for row in range(len(flat)):
            one = batch.map(lambda x, row=row: x[row : row + 1])
            if one.alive.item():
                terms.append(loss.objective([loss.change(i, one)]).loss)
    parameters = list(torch.nn.ModuleList(loss.policy.actors[i] for i in unit).parameters())
    expected = torch.autograd.grad(torch.stack(terms).mean(), parameters)
    step = module.engine.updates[0].step
    found: list[Any] = []
    optimizer_step = step.optimizer.step
    step.optimizer.step = lambda: (
        found.extend(p.grad.clone() for p in parameters),
        optimizer_step(),
    )
    update(module, data)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.filterwarnings("ignore:.*share parameters")
def test_sequential_sharing_is_one_joint_agent() -> None:
    """Clipping sees the product of the set's ratios; the factor takes it in once."""
    settings = {"allow_shared_sequential": True, "actor_lr": 0.02, "max_grad_norm": None}
    sets = {"sharing": [["panel_0", "panel_1"], ["arm_0", "arm_1"], ["valve"]]}
    module = make(HAPPO, network=sets, epochs=3, **settings)
    data = rollout(module, env=HybridEnv(death_rate=0.0))
    assert module.policy.units == [[0, 3], [1, 4], [2]]
    prepared = module.loss.prepare(data.clone())
    seen = turns(module)
    module.engine.update(data.clone(), Fixed([1, 2, 0]))
    del module.loss.read
    assert [agent for agent, _ in seen] == [1, 4, 2, 0, 3]
    ratio = [module.loss.change(i, module.loss.read(prepared, i)).ratio.detach() for i in range(5)]
    plain = [module.loss.read(prepared, i).advantage for i in range(5)]
    batches = dict(seen)
    for agent, factor in (
        (1, 1.0),
        (4, 1.0),
        (2, ratio[1] * ratio[4]),
        (0, ratio[1] * ratio[4] * ratio[2]),
    ):
        torch.testing.assert_close(batches[agent].advantage, plain[agent] * factor)


@pytest.mark.filterwarnings("ignore:.*share parameters")
def test_a_trust_region_around_a_joint_agent() -> None:
    """The radius bounds the members' divergences together, living ones only."""
    sets = {"sharing": [["panel_0", "panel_1", "arm_0"], ["arm_1"], ["valve"]]}
    module = make(HATRPO, network=sets, delta=0.005, allow_shared_sequential=True)
    for iteration in range(3):
        data = rollout(module, env=HybridEnv(seed=iteration, death_rate=0.3), seed=iteration)
        prepared = module.loss.prepare(data.clone())
        metrics = update(module, data, iteration)
        changes = [module.loss.change(i, module.loss.read(prepared, i)) for i in (0, 1, 4)]
        alive = torch.cat([c.alive for c in changes], -1)
        kl = torch.cat([c.old.kl(c.new) for c in changes], -1)
        mean = (kl * alive).sum() / alive.any(-1).sum()
        for name in ("arm_0", "panel_0", "panel_1"):
            assert metrics[f"distance/{name}"].item() == pytest.approx(mean.item(), rel=1e-9)
        assert 0 < mean < 0.005


# ---------------------------------------------------------------------- minibatches
def test_every_pass_sees_every_sample_once() -> None:
    module = make(HAPPO, epochs=2, minibatches=3, critic_epochs=2, critic_minibatches=5)
    data = rollout(module, 7)
    loss, sizes = module.loss, {"actor": [], "critic": []}
    rows: dict[str, list[Any]] = {"actor": [], "critic": []}
    change, value = loss.change, loss.value

    def changed(agent: int, batch: Any) -> Any:
        if torch.is_grad_enabled() and agent == 1:
            sizes["actor"].append(len(batch.observation))
            rows["actor"].append(batch.observation)
        return change(agent, batch)

    def valued(batch: Any) -> Any:
        sizes["critic"].append(len(batch))
        rows["critic"].append(batch["state"])
        return value(batch)

    loss.change, loss.value = changed, valued
    update(module, data)
    everything = {"actor": data["panel", "observation"][:, :, 0], "critic": data["state"]}
    assert sizes == {"actor": [7, 7, 7] * 2, "critic": [5, 4, 4, 4, 4] * 2}
    for name, whole in everything.items():
        whole = whole.flatten(0, 1)
        half = len(rows[name]) // 2
        passes = [torch.cat(rows[name][:half]), torch.cat(rows[name][half:])]
        assert not torch.equal(*passes)  # drawn anew
        for seen in passes:
            distance = torch.cdist(seen, whole)
            assert ((distance == 0).sum(0) == 1).all() and ((distance == 0).sum(1) == 1).all()


def test_too_many_minibatches() -> None:
    module = make(HAPPO, minibatches=100)
    with pytest.raises(ConfigError, match="24 samples cannot be split into 100 minibatches"):
        update(module, rollout(module))


def test_as_many_updates_as_units() -> None:
    module = make(HAPPO)
    with pytest.raises(ConfigError, match="4 updates for 5 units of agents"):
        OnPolicyEngine(module.loss, module.engine.updates[:4], module.engine.critic_step)


# ---------------------------------------------------------------------- processes, seeds
def use(module: OnPolicyModule, reduce: Any) -> None:
    module.loss.reduce = reduce
    module.engine.critic_step.reduce = reduce
    for each in module.engine.updates:
        each.step.reduce = reduce


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "network", "settings"),
    [
        (HAPPO, {}, {"minibatches": 3, "critic_minibatches": 2, "epochs": 2}),
        (HATRPO, {}, {}),
        (IPPO, {}, {"epochs": 2, "minibatches": 2}),
        (MAPPO, {"sharing": "full"}, {"epochs": 2}),
        (HAPPO, {"memory": "gru"}, {"epochs": 2, "minibatches": 2, "chunk_length": 4}),
    ],
)
def test_two_processes_are_one_on_everything(algorithm: Any, network: Any, settings: Any) -> None:
    """Deaths make the numbers of living samples unequal."""
    whole = make(algorithm, network=network, **settings)
    parts = [make(algorithm, network=network, **settings) for _ in range(2)]
    for iteration in range(2):
        halves = [
            rollout(whole, env=HybridEnv(num_envs=2, seed=seed, death_rate=0.3), seed=iteration)
            for seed in (1, 2)
        ]
        whole.engine.update(torch.cat(halves), UpdateRandomness(0, iteration, (0, 1)))

        def task(rank: int, reduce: Any, halves: Any = halves, at: int = iteration) -> None:
            use(parts[rank], reduce)
            parts[rank].engine.update(halves[rank].clone(), UpdateRandomness(0, at, (rank,)))

        Processes().run(task)
    assert torch.equal(weights(parts[0]), weights(parts[1]))
    torch.testing.assert_close(weights(parts[0]), weights(whole), rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "memory"), [(HAPPO, "none"), (HATRPO, "lstm")])
def test_the_same_seed_is_the_same_run(algorithm: Any, memory: str) -> None:
    """Three iterations on fresh rollouts, whatever the global random state."""

    def run(seed: int, disturbance: int) -> Any:
        torch.manual_seed(disturbance)
        network, settings = {"memory": memory}, {"chunk_length": 2}
        if algorithm is not HATRPO:
            settings |= {"epochs": 2, "minibatches": 2}
        module = make(algorithm, network=network, seed=seed, dtype=torch.float32, **settings)
        for iteration in range(3):
            data = rollout(module, 4, HybridEnv(seed=iteration), seed=seed, chunk=iteration)
            update(module, data, iteration, seed)
        return weights(module)

    assert torch.equal(run(1, 0), run(1, 99))
    assert not torch.equal(run(1, 0), run(2, 0))
