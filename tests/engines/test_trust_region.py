"""The trust region's step: derivatives, linear algebra, and what it never does."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hetmarl.algorithms import HATRPO
from hetmarl.engines import (
    TrustRegionConfig,
    TrustRegionStep,
    UpdateRandomness,
    conjugate_gradient,
)
from hetmarl.engines import trust_region as module_under_test
from hetmarl.objectives import KLDrift
from hetmarl_envs.errors import ConfigError
from tests.on_policy import actors, as_real, make, rollout, update, weights
from tests.teams import HybridEnv


# ---------------------------------------------------------------------- linear algebra
@pytest.mark.parametrize("size", [1, 3, 12])
def test_conjugate_gradient_solves(size: int) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        root = torch.randn(size, size).double()
        matrix, b = root @ root.T + 0.1 * torch.eye(size), torch.randn(size).double()
        x = conjugate_gradient(lambda v, m=matrix: m @ v, b, 4 * size, 1e-24)
        torch.testing.assert_close(x, torch.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)


def test_conjugate_gradient_stops() -> None:
    """After the given number; at the tolerance nothing moves any more; b is left alone."""
    calls: list[Tensor] = []
    diagonal = torch.arange(1.0, 9.0).double()

    def product(v: Tensor) -> Tensor:
        calls.append(v)
        return diagonal * v

    b = torch.ones(8).double()
    before = b.clone()
    conjugate_gradient(product, b, 3)
    assert len(calls) == 3 and torch.equal(b, before)
    loose = conjugate_gradient(product, b, 100, 1e-2)
    assert torch.equal(loose, conjugate_gradient(product, b, 7, 1e-2))
    assert 0 < (diagonal * loose - b).square().sum() < 1e-2
    torch.testing.assert_close(conjugate_gradient(product, b, 100), b / diagonal)
    assert torch.equal(conjugate_gradient(product, torch.zeros_like(b)), torch.zeros_like(b))


def test_conjugate_gradient_of_nan() -> None:
    """It is not taken for convergence, or nobody would notice it."""
    b = torch.tensor([1.0, float("nan")])
    assert conjugate_gradient(lambda v: v, b, 3).isnan().any()


# ---------------------------------------------------------------------- second derivatives
def distance_of(module: Any, agent: int, data: Any) -> tuple[list[nn.Parameter], Any]:
    """An agent's parameters, and mean KL(old ‖ ·) as a function of the flat parameters."""
    loss, actor = module.loss, module.policy.actors[agent]
    prepared = loss.prepare(data.clone())
    batch = loss.read(prepared, agent)
    parameters = dict(actor.named_parameters())

    def mean_kl(flat: Tensor) -> Tensor:
        parts = flat.split([p.numel() for p in parameters.values()])
        values = {k: x.view_as(p) for (k, p), x in zip(parameters.items(), parts, strict=True)}
        given = (batch.observation, batch.action_mask, batch.memory)
        new = torch.func.functional_call(actor, values, given)[0]
        kl = actor.distribution(batch.old_parameters).kl(actor.distribution(new))
        alive = torch.ones_like(kl) if batch.alive is None else batch.alive
        return (kl * alive).sum() / alive.sum()

    return list(parameters.values()), mean_kl


@pytest.mark.parametrize("agent", [0, 1, 2])
@pytest.mark.parametrize("memory", ["none", "gru", "lstm"])
def test_hessian_vector_products_are_the_dense_hessians(
    agent: int, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gaussian, multi-discrete and discrete policies with masks and deaths; through time too."""
    network = {"hidden_sizes": [4], "memory": memory, "memory_size": 3}
    module = make(HATRPO, network=network, chunk_length=4)
    data = rollout(module, 4, HybridEnv(num_envs=2, death_rate=0.3, max_steps=3))
    parameters, mean_kl = distance_of(module, agent, data)
    flat = nn.utils.parameters_to_vector(parameters).detach()
    dense = torch.autograd.functional.hessian(mean_kl, flat)
    torch.testing.assert_close(dense, dense.T, rtol=1e-8, atol=1e-12)
    assert torch.linalg.eigvalsh(dense).min() > -1e-10 and dense.abs().max() > 1e-3
    seen: list[tuple[Tensor, Tensor]] = []

    def solve(product: Any, b: Tensor, *rest: Any) -> Tensor:
        for _ in range(3):
            v = torch.randn_like(b)
            seen.append((v, product(v)))
        return torch.zeros_like(b)

    monkeypatch.setattr(module_under_test, "conjugate_gradient", solve)
    units = module.engine.updates
    module.engine.updates = [u if i == agent else lambda *a: {} for i, u in enumerate(units)]
    update(module, data)
    assert len(seen) == 3
    for v, product in seen:
        torch.testing.assert_close(product, dense @ v + 0.1 * v, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("memory", ["none", "gru", "lstm"])
def test_second_derivatives_in_single_precision(memory: str) -> None:
    """Other kernels compute them (oneDNN's): equal to the double ones within rounding."""
    network = {"hidden_sizes": [16], "memory": memory, "memory_size": 8}
    found = []
    for dtype in (torch.float32, torch.float64):
        module = make(HATRPO, network=network, dtype=dtype, chunk_length=4)
        data = as_real(rollout(make(HATRPO, network=network, chunk_length=4), 4), module)
        batch = module.loss.read(module.loss.prepare(data), 0)
        change = module.loss.change(0, batch)
        parameters = list(module.policy.actors[0].parameters())
        kl = change.old.kl(change.new).mean()
        slopes = torch.autograd.grad(kl, parameters, create_graph=True)
        flat = torch.cat([s.reshape(-1) for s in slopes])
        v = torch.linspace(-1, 1, flat.numel()).to(dtype)
        product = torch.autograd.grad(flat @ v, parameters)
        found.append(torch.cat([p.reshape(-1) for p in product]).double())
    assert found[1].abs().max() > 1e-2
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------- the step
class Bowl:
    """Surrogate g·x − ½c·|x|³ and distance ½xᵀHx of x = parameters − start."""

    def __init__(self, size: int, seed: int, scale: float = 1.0, bend: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        root = torch.randn(size, size, generator=generator).double()
        self.matrix = root @ root.T / size + 0.01 * torch.eye(size)
        self.g = scale * torch.randn(size, generator=generator).double()
        self.bend = bend
        start = torch.randn(size, generator=generator).double()
        half = size // 2
        self.parameters = [nn.Parameter(start[:half].clone()), nn.Parameter(start[half:].clone())]
        self.start = start

    @property
    def x(self) -> Tensor:
        return torch.cat(self.parameters) - self.start

    def evaluate(self) -> tuple[Tensor, Tensor]:
        x = self.x
        surrogate = self.g @ x - 0.5 * self.bend * (x.square().sum() + 1e-30).pow(1.5)
        return surrogate, 0.5 * x @ self.matrix @ x


def test_an_exact_step_of_a_quadratic_problem() -> None:
    """Linear surrogate, no damping: x = √(2δ/gᵀH⁻¹g)·H⁻¹g, to the edge, .8 of it at most."""
    bowl = Bowl(6, 0)
    config = TrustRegionConfig(cg_iterations=50, cg_tolerance=1e-28, damping=0.0)
    taken = TrustRegionStep(bowl.parameters, 0.02, config)(bowl.evaluate)
    natural = torch.linalg.solve(bowl.matrix, bowl.g)
    full = math.sqrt(2 * 0.02 / (bowl.g @ natural).item()) * natural
    fraction = taken["step_fraction"].item()
    assert fraction in (1.0, 0.8)  # rounding decides on which side of the edge it ends
    torch.testing.assert_close(bowl.x.detach(), fraction * full, rtol=1e-6, atol=1e-9)
    assert taken["distance"].item() == pytest.approx(0.02 * fraction**2, rel=1e-6)
    assert taken["surrogate_gain"].item() == pytest.approx((bowl.g @ bowl.x).item(), rel=1e-9)


def test_never_beyond_the_radius_and_never_for_worse() -> None:
    """Over many problems, of which some must be refused."""
    fractions = []
    for seed in range(120):
        bend = (0.0, 0.1, 10.0, 1e4)[seed % 4]
        bowl = Bowl(7, seed, scale=10 ** (seed % 5 - 3), bend=bend)
        radius = (1e-4, 0.01, 1.0)[seed % 3]
        taken = TrustRegionStep(bowl.parameters, radius)(bowl.evaluate)
        surrogate, distance = bowl.evaluate()
        fractions.append(taken["step_fraction"].item())
        assert distance.item() < radius
        if fractions[-1] == 0:
            assert torch.equal(torch.cat(bowl.parameters), bowl.start)
            assert taken["distance"].item() == taken["surrogate_gain"].item() == 0
        else:
            assert surrogate.item() > 0
            assert taken["distance"].item() == pytest.approx(distance.item())
            assert taken["surrogate_gain"].item() == pytest.approx(surrogate.item(), rel=1e-6)
    assert 0 < fractions.count(0.0) < 100
    assert len(set(fractions)) > 3


def test_a_share_of_the_expected_improvement_is_asked_for() -> None:
    """Of a concave surrogate the full step gains less than its slope promises."""
    bowl = Bowl(4, 3)
    bowl.matrix = torch.eye(4).double()
    bowl.g = torch.tensor([1.0, 0, 0, 0]).double()
    config = TrustRegionConfig(damping=0.0, accept_ratio=0.5)
    radius = 0.5 * 1.01  # full step: length √1.01 in the first direction
    for bend, expected in ((0.5, 1.0), (1.2, 0.8), (1.6, 0.64), (1e4, 0.0)):
        # gain / expected = 1 − ½·bend·(f·1.005)²
        bowl.bend = bend
        for p, part in zip(bowl.parameters, bowl.start.split(2), strict=True):
            p.data.copy_(part)
        taken = TrustRegionStep(bowl.parameters, radius + 1e-9, config)(bowl.evaluate)
        assert taken["step_fraction"].item() == pytest.approx(expected)


@pytest.mark.parametrize("trouble", ["nan", "worse", "far"])
def test_a_refused_step_restores_every_bit(trouble: str) -> None:
    bowl, calls = Bowl(6, 1), []

    def evaluate() -> tuple[Tensor, Tensor]:
        surrogate, distance = bowl.evaluate()
        calls.append(1)
        if len(calls) > 1:
            if trouble == "nan":
                surrogate = surrogate * float("nan")
            elif trouble == "worse":
                surrogate = -surrogate.abs()
            else:
                distance = distance + 1
        return surrogate, distance

    before = [p.detach().clone() for p in bowl.parameters]
    ids = [p.data_ptr() for p in bowl.parameters]
    taken = TrustRegionStep(bowl.parameters, 0.1)(evaluate)
    assert len(calls) == 11 and taken["step_fraction"].item() == 0
    assert all(torch.equal(a, b) for a, b in zip(before, bowl.parameters, strict=True))
    assert ids == [p.data_ptr() for p in bowl.parameters]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_no_step(dtype: torch.dtype) -> None:
    bowl = Bowl(6, 2)
    bowl.g, bowl.matrix, bowl.start = (
        x.to(dtype) for x in (torch.zeros(6), bowl.matrix, bowl.start)
    )
    for p in bowl.parameters:
        p.data = p.data.to(dtype)
    before = [p.detach().clone() for p in bowl.parameters]
    taken = TrustRegionStep(bowl.parameters, 0.1)(bowl.evaluate)
    assert all(v.item() == 0 for v in taken.values())
    assert all(torch.equal(a, b) for a, b in zip(before, bowl.parameters, strict=True))


def test_a_tiny_gradient_has_a_step_all_the_same() -> None:
    """The step's length is the radius', not the gradient's, which may be small."""
    lengths = []
    for scale in (1.0, 1e-2, 1e-4):
        bowl = Bowl(6, 2, scale=scale)
        taken = TrustRegionStep(bowl.parameters, 0.01)(bowl.evaluate)
        lengths.append(taken["distance"].item())
        assert taken["step_fraction"].item() > 0
    assert min(lengths) > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        *({"decay": decay} for decay in (0.0, 1.0, 1.5)),
        *({"damping": -0.1}, {"cg_tolerance": -1.0}, {"accept_ratio": 1.0}),
        *({"backtracks": 0}, {"cg_iterations": 0}),
    ],
)
def test_bad_settings(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError, match=rf"algo\.search\.{name}={value}: expected "):
        TrustRegionConfig(**settings)


# ---------------------------------------------------------------------- HATRPO
def test_what_is_reported_of_a_refused_step_is_the_policy_that_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not the last one tried, whose numbers may not even be finite."""
    module = make(HATRPO)
    data = rollout(module)
    prepared = module.loss.prepare(data.clone())
    expected = module.loss.objective([module.loss.change(0, module.loss.read(prepared, 0))])
    objective = module.loss.objective

    def broken(changes: Any) -> Any:
        found = objective(changes)
        if torch.is_grad_enabled():
            return found
        nan = found.loss * float("nan")
        return found._replace(loss=nan, surrogate=nan)

    monkeypatch.setattr(module.loss, "objective", broken)
    before = weights(module.policy)
    metrics = module.engine.update(data, Fixed([0, 1, 2, 3, 4]))
    name = module.spec.names[0]
    assert metrics[f"step_fraction/{name}"] == 0 and torch.equal(weights(module.policy), before)
    torch.testing.assert_close(metrics[f"loss_actor/{name}"], expected.loss.detach())
    torch.testing.assert_close(metrics[f"entropy/{name}"], expected.entropy.detach())


MEMORIES = [("none", 1, 8), ("gru", 2, 8), ("lstm", 1, 8), ("gru", 1, 4), ("lstm", 2, 2)]


class Fixed(UpdateRandomness):
    def __init__(self, order: list[int]) -> None:
        super().__init__(0, 0)
        self.given = order

    def order(self, count: int) -> list[int]:
        return self.given


def test_hatrpo_equals_a_dense_solution() -> None:
    """Whole Hessians, solved exactly, and the line search written out, agent after agent."""
    config = TrustRegionConfig(cg_iterations=400, cg_tolerance=1e-26)
    network = {"hidden_sizes": [4]}
    module = make(HATRPO, network=network, delta=0.02, search=config)
    data, order = rollout(module, 8, HybridEnv(death_rate=0.2)), [2, 4, 0, 3, 1]
    twin = copy.deepcopy(module)
    loss, prepared = twin.loss, twin.loss.prepare(data.clone())
    factor = torch.ones(3, 8, 1).double()
    for i in order:
        parameters, mean_kl = distance_of(twin, i, data)
        batch = loss.read(prepared, i)
        advantage, alive = batch.advantage * factor, batch.alive.double()
        actor = twin.policy.actors[i]

        def ratio(actor: Any = actor, batch: Any = batch) -> Tensor:
            new = actor.distribution(actor(batch.observation, batch.action_mask)[0])
            return (new.log_prob(batch.action) - batch.old_log_prob).exp()

        def surrogate(a: Tensor = advantage, m: Tensor = alive, r: Any = ratio) -> Tensor:
            return (r() * a * m).sum() / m.sum()

        start = nn.utils.parameters_to_vector(parameters).detach().clone()
        before = surrogate()
        g = torch.cat([x.reshape(-1) for x in torch.autograd.grad(before, parameters)])
        damped = torch.autograd.functional.hessian(mean_kl, start) + 0.1 * torch.eye(len(start))
        x = torch.linalg.solve(damped, g)
        step, fraction = math.sqrt(2 * 0.02 / (x @ damped @ x)) * x, 1.0
        for _ in range(10):
            nn.utils.vector_to_parameters(start + fraction * step, parameters)
            gain = (surrogate() - before).item()
            near = mean_kl(start + fraction * step).item() < 0.02
            if near and gain > 0 and gain / (fraction * (g @ step).item()) > 0.5:
                break
            fraction *= 0.8
        else:
            nn.utils.vector_to_parameters(start, parameters)
        factor = torch.where(batch.alive, factor * ratio().detach(), factor)
    metrics = module.engine.update(data.clone(), Fixed(order))
    for i, name in enumerate(module.spec.names):
        assert 0 < metrics[f"step_fraction/{name}"] <= 1
        assert 0 < metrics[f"kl/{name}"] < 0.02
        torch.testing.assert_close(metrics[f"kl/{name}"], metrics[f"distance/{name}"])
        torch.testing.assert_close(actors(module)[i], actors(twin)[i], rtol=0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("memory", "layers", "chunk"), MEMORIES)
def test_hatrpo_stays_in_its_region(
    memory: str, layers: int, chunk: int, dtype: torch.dtype
) -> None:
    """Measured again by hand on the whole rollout, of which derivatives may see only chunks."""
    network = {"memory": memory, "memory_layers": layers}
    module = make(HATRPO, network=network, dtype=dtype, delta=0.005, chunk_length=chunk)
    steps = []
    for iteration in range(3):
        data = rollout(module, 8, HybridEnv(seed=iteration), seed=iteration)
        prepared = module.loss.prepare(data.clone())
        metrics = update(module, data, iteration)
        for i, name in enumerate(module.spec.names):
            steps.append(metrics[f"step_fraction/{name}"].item())
            change = module.loss.change(i, module.loss.read(prepared, i))
            kl = module.loss.mean_kl([change]).item()
            assert kl < 0.005
            assert metrics[f"distance/{name}"].item() == pytest.approx(kl, rel=1e-4, abs=1e-7)
            assert (kl > 0) == (steps[-1] > 0)
    assert sum(s > 0 for s in steps) > 8


def test_a_drift_within_a_neighbourhood() -> None:
    """What the search ascends is E[r·M] − E[D]: steps are shorter, and inside the ball as ever."""

    class Both(HATRPO):
        def drift(self) -> KLDrift:
            return KLDrift(0.05)

    both, plain = (make(algorithm, delta=0.02) for algorithm in (Both, HATRPO))
    data, order = rollout(both), Fixed([0, 1, 2, 3, 4])
    loss, prepared = both.loss, both.loss.prepare(data.clone())

    def objective() -> float:
        found = loss.objective([loss.change(0, loss.read(prepared, 0))])
        return (found.surrogate - found.drift).item()

    before = objective()
    metrics, others = (m.engine.update(data.clone(), order) for m in (both, plain))
    first = both.spec.names[0]
    gain = metrics[f"surrogate_gain/{first}"].item()
    assert gain == pytest.approx(objective() - before, rel=1e-6)
    assert 0 < metrics[f"step_fraction/{first}"] < others[f"step_fraction/{first}"]
    for name in both.spec.names:
        assert 0 < metrics[f"kl/{name}"] < 0.02
