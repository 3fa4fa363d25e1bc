"""On an accelerator every number that Python looks at waits for the device: how often it looks.

Counted on a CPU, by the operators that hand a number over or make a size of it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import hetmarl
from hetmarl.algorithms import HAA2C, HAMDPO, HAPPO, HATRPO, IPPO, MAPPO
from hetmarl.data.collector import EpisodeTotals
from hetmarl.engines import TrustRegionConfig
from hetmarl_envs.contract import TeamSpec
from tests.on_policy import make, rollout, update


class HostReads(TorchDispatchMode):
    """Counts them while it is entered."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.READS or (name.startswith("index") and self._by_mask(args)):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _by_mask(args: Any) -> bool:
        given = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else []
        return any(isinstance(x, Tensor) and x.dtype == torch.bool for x in given)


AT_ONCE = 1
"""The steps at which episodes or the rollout end, for the values of their last observations."""


@pytest.mark.parametrize("algorithm", [HAPPO, HAA2C, HAMDPO, MAPPO, IPPO])
@pytest.mark.parametrize(("steps", "epochs", "minibatches"), [(4, 1, 1), (12, 3, 1), (12, 3, 2)])
def test_an_update_looks_once(algorithm: Any, steps: int, epochs: int, minibatches: int) -> None:
    """However many frames, agents and passes; where agents die, once for each besides.

    And then once for each of its minibatches, if there are several.
    """
    env = hetmarl.make_env("vmas/balance", num_envs=3)
    settings = {"epochs": epochs, "critic_epochs": epochs, "minibatches": minibatches}
    module = make(algorithm, TeamSpec.from_env(env), **settings)
    data = rollout(module, steps, env)
    with HostReads() as reads:
        update(module, data)
    assert reads.seen == {"nonzero": AT_ONCE}

    mortal = make(algorithm, **settings)
    data = rollout(mortal, steps)
    with HostReads() as reads:
        update(mortal, data)
    each = 1 if minibatches == 1 else 1 + epochs * minibatches
    looks = mortal.spec.num_agents * each
    assert reads.seen == {"nonzero": AT_ONCE, "_local_scalar_dense": looks}


@pytest.mark.parametrize("iterations", [2, 10])
def test_a_trust_region_looks_at_its_decisions(iterations: int) -> None:
    """Whether there is a direction, and whether each step that is tried is taken."""
    env = hetmarl.make_env("vmas/balance", num_envs=3)
    search = TrustRegionConfig(cg_iterations=iterations, backtracks=4)
    module = make(HATRPO, TeamSpec.from_env(env), search=search)
    data = rollout(module, 8, env)
    with HostReads() as reads:
        update(module, data)
    agents = module.spec.num_agents
    assert 2 * agents <= reads.seen.pop("_local_scalar_dense") <= agents * (1 + 4)
    assert reads.seen == {"nonzero": AT_ONCE}


def test_collecting_looks_once_at_which_episodes_ended() -> None:
    """Not at every step."""
    totals = EpisodeTotals(3)
    with HostReads() as reads:
        for step in range(6):
            done = torch.tensor([step == 2, False, step == 5])[:, None]
            info = {"won": done.float()}
            after = {"done": done, "reward": torch.full((3, 1), float(step)), "info": info}
            totals.add(TensorDict(after, [3]))
    assert not reads.seen
    with HostReads() as reads:
        episodes = totals.pop()
    assert reads.seen == {"nonzero": 1}
    assert episodes.returns.tolist() == [3.0, 15.0]
    assert episodes.lengths.tolist() == [3, 6]
    assert episodes.info["won"].tolist() == [1.0, 1.0]
    assert totals.pop().returns.shape == (0,)
    assert totals.returns.tolist() == [12.0, 15.0, 0.0]


@pytest.mark.parametrize(
    "look",
    [lambda x: bool(x.any()), lambda x: x.sum().item(), lambda x: x[x], lambda x: x.nonzero()],
    ids=["bool", "item", "mask", "nonzero"],
)
def test_counts(look: Any) -> None:
    """What it has to count, it counts; or the tests above could not fail."""
    with HostReads() as reads:
        look(torch.tensor([True, False]))
    assert sum(reads.seen.values()) >= 1
