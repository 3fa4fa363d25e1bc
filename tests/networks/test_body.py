"""What networks are built of: convolutions, hidden layers, norms, memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hetmarl.networks import Body, Memory, OnPolicyNetworkConfig
from hetmarl.networks.recurrence import Recurrence

KINDS = {
    "mlp": {},
    "gru": {"memory": "gru"},
    "lstm": {"memory": "lstm"},
    "two layers": {"memory": "lstm", "memory_layers": 2},
    "plain": {"layer_norm": False, "orthogonal": False},
    "plain gru": {"memory": "gru", "layer_norm": False, "orthogonal": False},
}


def config(**settings: object) -> OnPolicyNetworkConfig:
    small = {"hidden_sizes": [7, 6], "memory_size": 5, "channels": [2, 3]}
    return OnPolicyNetworkConfig(**small | settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4,), (3, 2), (1, 8, 8), (2, 5, 9)])
def test_shapes(kind: str, shape: tuple[int, ...]) -> None:
    body = Body(shape, config(**KINDS[kind]), extra=2)
    extra = torch.ones(2)
    for batch in ((3,), (3, 4)):
        features, hidden = body(torch.randn(*batch, *shape), None, extra)
        assert features.shape == (*batch, body.out_features)
        assert (hidden is None) == (body.hidden_size == 0)
        if hidden is not None:
            assert hidden.shape == (3, body.hidden_size)
    expected = {"gru": 5, "plain gru": 5, "lstm": 10, "two layers": 20}
    assert body.hidden_size == expected.get(kind, 0)
    assert body.out_features == (5 if "memory" in KINDS[kind] else 6)


@pytest.mark.parametrize("shape", [(4,), (1, 8, 8)])
def test_no_batch_and_empty_batches(shape: tuple[int, ...]) -> None:
    body = Body(shape, config())
    assert body(torch.randn(*shape))[0].shape == (6,)
    assert body(torch.randn(0, *shape))[0].shape == (0, 6)


def test_extra_numbers_are_read() -> None:
    for shape in ((4,), (1, 8, 8)):
        body, x = Body(shape, config(), extra=2), torch.randn(3, *shape)
        one, other = (body(x, None, torch.tensor(e))[0] for e in ([1.0, 0.0], [0.0, 1.0]))
        assert not torch.allclose(one, other)


def test_convolutions_see_where_something_is() -> None:
    """An image and the same pixels in another order differ, batch axes do not."""
    body, x = Body((1, 8, 8), config()), torch.randn(2, 3, 1, 8, 8)
    assert not torch.allclose(body(x)[0], body(x.flip(-1))[0])
    torch.testing.assert_close(body(x)[0][1, 2], body(x[1, 2])[0])
    assert [type(m) for m in body.encoder.net] == [nn.Conv2d, nn.ReLU] * 2


def test_layer_norms_are_where_they_are_said_to_be() -> None:
    def norms(body: Body) -> list[tuple[int, ...]]:
        return [m.normalized_shape for m in body.modules() if isinstance(m, nn.LayerNorm)]

    assert norms(Body((4,), config(memory="gru"))) == [(4,), (7,), (6,), (5,)]
    assert norms(Body((4,), config(memory="gru", layer_norm=False))) == []
    kinds = [type(m).__name__ for m in Body((4,), config(), last_activation="tanh").layers]
    one = ["Linear", "ReLU", "LayerNorm"]
    assert kinds == ["LayerNorm", *one, "Linear", "Tanh", "LayerNorm"]


@pytest.mark.parametrize(("activation", "gain"), [("relu", math.sqrt(2)), ("tanh", 5 / 3)])
def test_weights_are_orthogonal_with_the_activations_gain(activation: str, gain: float) -> None:
    body = Body((1, 8, 8), config(activation=activation, memory="lstm"))
    weights = [m.weight for m in body.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert len(weights) == 4
    for weight in weights:
        assert_orthogonal(weight, gain)
    assert body.memory is not None
    for name, parameter in body.memory.named_parameters():
        if "weight" in name:
            assert_orthogonal(parameter, 1.0)
    biases = [p for name, p in body.named_parameters() if "bias" in name]
    assert all((bias == 0).all() for bias in biases)


def assert_orthogonal(weight: Tensor, gain: float) -> None:
    """Rows, or columns if they are fewer, are orthogonal and of length ``gain``."""
    flat = weight.detach().flatten(1)
    flat = flat if len(flat) <= flat.shape[1] else flat.T
    torch.testing.assert_close(flat @ flat.T, gain**2 * torch.eye(len(flat)), atol=1e-5, rtol=0)


def test_pytorchs_own_weights() -> None:
    torch.manual_seed(0)
    body = Body((4,), config(orthogonal=False, layer_norm=False))
    torch.manual_seed(0)
    assert torch.equal(body.layers[0].weight, nn.Linear(4, 7).weight)


# ---------------------------------------------------------------------- memory
PATTERNS = [
    [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
    [[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
    [[0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0]],
    [[1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 0]],
    [[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]],
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("kind", "layers"), [("gru", 1), ("lstm", 1), ("lstm", 2), ("gru", 2)])
def test_a_sequence_is_its_steps_one_by_one(
    kind: str, layers: int, pattern: list[list[int]]
) -> None:
    """Outputs, final state and every gradient, against a loop that zeroes the state."""
    net = Recurrence(kind, 3, 4, layers).double()
    x = torch.randn(2, 6, 3, dtype=torch.double, requires_grad=True)
    start = torch.randn(2, net.state_size, dtype=torch.double, requires_grad=True)
    is_init = torch.tensor(pattern, dtype=torch.bool).unsqueeze(-1)
    outputs, state = [], start
    for t in range(6):
        state = torch.where(is_init[:, t], torch.zeros_like(state), state)
        output, state = net(x[:, t : t + 1], state, torch.zeros_like(is_init[:, :1]))
        outputs.append(output)
    given = [x, start, *net.parameters()]
    weight = torch.randn(2, 6, 4, dtype=torch.double)
    expected = (torch.cat(outputs, 1) * weight).sum() + state.sum()
    output, final = net(x, start, is_init)
    torch.testing.assert_close(output, torch.cat(outputs, 1))
    torch.testing.assert_close(final, state)
    found = (output * weight).sum() + final.sum()
    for a, b in zip(
        torch.autograd.grad(found, given, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, given, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_one_fused_call_for_a_sequence(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, calls = Recurrence(kind, 3, 4), []
    run = net.net.forward
    monkeypatch.setattr(net.net, "forward", lambda *a: (calls.append(1), run(*a))[1])
    is_init = torch.rand(5, 20, 1) < 0.3
    net(torch.randn(5, 20, 3), torch.zeros(5, net.state_size), is_init)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_a_chunk_goes_on_from_its_stored_state(kind: str) -> None:
    body = Body((4,), config(memory=kind))
    x, is_init = torch.randn(2, 6, 4), torch.zeros(2, 6, 1, dtype=torch.bool)
    whole, final = body(x, Memory(torch.zeros(2, body.hidden_size), is_init))
    first, state = body(x[:, :4], None)
    second, last = body(x[:, 4:], Memory(state, is_init[:, 4:]))
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(last, final)
    stepped, _ = body(x[:, 4], Memory(state, is_init[:, 4]))
    torch.testing.assert_close(stepped, whole[:, 4])


def test_states_of_another_dtype_are_taken() -> None:
    body = Body((4,), config(memory="lstm")).double()
    memory = Memory(torch.zeros(2, body.hidden_size), torch.zeros(2, 1, dtype=torch.bool))
    features, hidden = body(torch.randn(2, 4).double(), memory)
    assert features.dtype == hidden.dtype == torch.float64
