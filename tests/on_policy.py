"""On-policy algorithms without a Trainer: made, fed and updated by hand, in double precision."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from hetmarl.algorithms.on_policy import OnPolicyModule
from hetmarl.data import TeamCollector
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import OnPolicyNetworkConfig
from hetmarl.objectives import Reduce
from hetmarl_envs.contract import TeamSpec
from tests.teams import HybridEnv

NETWORK = {"hidden_sizes": [8], "activation": "tanh", "actor_gain": 1.0, "memory_size": 6}


def make(
    algorithm: type[OnPolicyModule],
    spec: TeamSpec | None = None,
    network: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **config: Any,
) -> OnPolicyModule:
    """The algorithm for ``HybridEnv``'s team or another, its optimisers and engine made."""
    spec = spec or TeamSpec.from_env(HybridEnv())
    settings = OnPolicyNetworkConfig(**NETWORK | (network or {}))
    module = algorithm(spec, algorithm.config_type(**config), settings, seed).to(dtype)
    module.made_optimizers = module.optimizers_of_team()  # type: ignore[assignment]
    return module


def collector(module: OnPolicyModule, env: Any = None, seed: int = 0) -> TeamCollector:
    """Collects on ``HybridEnv`` or another environment with the module's policy."""
    return TeamCollector(env or HybridEnv(), module.policy, seed=seed, critic=module.critic)


def rollout(
    module: OnPolicyModule, steps: int = 8, env: Any = None, seed: int = 0, chunk: int = 0
) -> TensorDict:
    """One rollout ``[E, T]``, its real numbers in the module's dtype."""
    return as_real(collector(module, env, seed).collect(steps, chunk)[0], module)


def as_real(data: TensorDict, module: nn.Module) -> TensorDict:
    """``data`` with its real numbers in the module's dtype."""
    dtype = next(module.parameters()).dtype
    return data.apply(lambda x: x.to(dtype) if x.is_floating_point() else x)


def update(
    module: OnPolicyModule, data: TensorDict, iteration: int = 0, seed: int = 0
) -> dict[str, Tensor]:
    """One iteration of the module's engine, on a copy of ``data``."""
    return module.engine.update(data.clone(), UpdateRandomness(seed, iteration))


def weights(module: nn.Module) -> Tensor:
    """All parameters ``[P]``, a copy."""
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def actors(module: OnPolicyModule) -> list[Tensor]:
    """Every agent's parameters, copies."""
    return [weights(actor) for actor in module.policy.actors]


class Processes:
    """Threads in place of processes: each gets a ``reduce`` that averages over all of them."""

    def __init__(self, count: int = 2) -> None:
        self.barrier, self.given = threading.Barrier(count), [torch.zeros(())] * count

    def reduce(self, rank: int) -> Reduce:
        def average(tensor: Tensor) -> Tensor:
            self.given[rank] = tensor.clone()
            self.barrier.wait(20)
            mean = torch.stack(self.given).mean(0)
            self.barrier.wait(20)
            return tensor.copy_(mean)

        return average

    def run(self, task: Callable[[int, Reduce], Any]) -> list[Any]:
        """``task(rank, reduce)`` of every rank, at once."""

        def guarded(rank: int) -> Any:
            try:
                return task(rank, self.reduce(rank))
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(len(self.given)) as pool:
            return list(pool.map(guarded, range(len(self.given))))
