"""What every algorithm's LightningModule shares: counting, logging, evaluation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from hetmarl.data.evaluation import evaluate
from hetmarl.engines.randomness import UpdateRandomness, stable_seed
from hetmarl.guards import all_finite, check_finite
from hetmarl.lightning.exact import RESUME_KEY, random_state, set_random_state
from hetmarl.lightning.strategy import average
from hetmarl.lightning.trainer_checks import check_trainer
from hetmarl.networks.config import NetworkConfig
from hetmarl.networks.policy import TeamPolicy
from hetmarl.objectives.reduce import Reduce, identity
from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ConfigError


class TeamModule(LightningModule):
    """A team that learns: one ``training_step`` is one iteration of its algorithm.

    Optimisation is manual and the optimisers are raw. Lightning would count each of their steps as
    a global step; instead a clock, an optimiser without parameters, ticks once per iteration, so
    that ``trainer.global_step`` counts iterations and step-based checkpoints fire. Metrics are
    logged once per iteration with frames as their step.

    Subclasses make their critic in ``make_critic`` and their losses in ``make_loss``, optimisers in
    ``optimizers_of_team`` and learn in ``learn``.

    Args:
        spec: the team, from ``TeamSpec.from_env(env)``. It and the next two may also be given as
            the plain dicts that checkpoints hold, as ``load_from_checkpoint`` does.
        config: hyperparameters, a ``config_type``; None: its defaults.
        network: settings of actors and critic, a ``network_type``; None: its defaults.
        seed: of the initial weights and the updates.

    Raises:
        ConfigError: the team's spaces, or the settings, are not for this algorithm.
    """

    name: ClassVar[str]
    """What checkpoints call the algorithm; a variant sets its own."""
    config_type: ClassVar[type[Any]]
    """Dataclass of the hyperparameters; a variant with more of them sets its own."""
    network_type: ClassVar[type[NetworkConfig]] = NetworkConfig
    """Dataclass of the networks' settings."""
    frames: Tensor
    iteration: Tensor
    loss: Any
    metric_names: tuple[str, ...]
    """What ``learn`` returns at most; all are logged every time, NaN where it left them out."""

    def __init__(
        self,
        spec: TeamSpec | dict[str, Any],
        config: Any = None,
        network: NetworkConfig | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spec = TeamSpec.from_dict(spec) if isinstance(spec, dict) else spec
        self.config: Any = self._settings(config, self.config_type, "config")
        self.network: Any = self._settings(network, self.network_type, "network")
        self.seed = seed
        self.register_buffer("frames", torch.zeros((), dtype=torch.long))
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long))
        self.save_hyperparameters(
            {
                "algorithm": self.name,
                "spec": self.spec.to_dict(),
                "config": asdict(self.config),
                "network": self.network.to_dict(),
                "network_type": type(self.network).__name__,
                "seed": seed,
            }
        )
        with seeded(seed, "weights"):
            policy = TeamPolicy(self.spec, self.network)
            critic = self.make_critic()
        self.loss = self.make_loss(policy, critic)

    def _settings(self, given: Any, expected: type[Any], what: str) -> Any:
        if given is None:
            return expected()
        if isinstance(given, dict):
            return expected(**given)
        if not isinstance(given, expected):
            raise ConfigError(
                f"{what} is a {type(given).__name__}; {type(self).__name__} expects a "
                f"{expected.__name__}."
            )
        return given

    @property
    def policy(self) -> TeamPolicy:
        """The team's actors."""
        return self.loss.policy

    @property
    def critic(self) -> Any:
        """The team's value network."""
        return self.loss.critic

    @abstractmethod
    def make_critic(self) -> nn.Module:
        """A new value network for ``self.spec`` and ``self.network``."""

    @abstractmethod
    def make_loss(self, policy: TeamPolicy, critic: Any) -> nn.Module:
        """The losses, with attributes ``policy`` and ``critic``; a variant returns its own."""

    @abstractmethod
    def optimizers_of_team(self) -> list[Optimizer]:
        """The optimisers, made when training starts, always in the same order."""

    @abstractmethod
    def learn(self, batch: Any, randomness: UpdateRandomness) -> dict[str, Tensor]:
        """The algorithm's update from one iteration's batch; returns scalars to log."""

    # ------------------------------------------------------------------ training
    def configure_callbacks(self) -> list[Callback]:
        """Adds none; the one hook in which unsupported Trainer flags can be refused in time."""
        check_trainer(self.trainer)
        return []

    def configure_optimizers(self) -> list[Optimizer]:
        """The clock, then the team's optimisers; Lightning saves and restores them."""
        clock = torch.optim.SGD([{"params": []}], lr=0.0)
        return [clock, *self.optimizers_of_team()]

    @property
    def reduce(self) -> Reduce:
        """The average over the trainer's processes."""
        return identity if self._trainer is None or self.trainer.world_size == 1 else average

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration: learns from ``batch``, counts, logs."""
        randomness = UpdateRandomness(
            self.seed, int(self.iteration), (self.global_rank,), self.device
        )
        metrics = self.learn(batch, randomness)
        frames_before = int(self.frames)
        ended = batch.episodes
        told = {"return": ended.returns, "length": ended.lengths, **ended.info}
        sums = [values.double().sum() for values in told.values()]
        values = [*metrics.values(), *(total.to(self.device) for total in sums)]
        values.append(torch.tensor(float(len(ended.returns)), device=self.device))
        *means, episodes = self.reduce(torch.stack([value.double() for value in values])).cpu()
        totals = means[len(metrics) :]
        metrics = dict(zip(metrics, means, strict=False))
        check_finite(metrics, frames_before)  # first: metrics stand in the order of updates
        self._check_weights(frames_before)
        self.frames += batch.frames
        self.iteration += 1
        self.optimizers()[0].step()  # type: ignore[index]
        # Lightning repeats the last value of a key left out: every key, every time
        nan = torch.tensor(float("nan"), dtype=torch.float64)
        logged = {f"train/{name}": metrics.get(name, nan) for name in self.metric_names}
        for name, total in zip(told, totals, strict=True):
            logged[f"train/{name}_mean"] = total / episodes  # 0/0, NaN, where none ended
        # "step" is the loggers' x axis; in double, because float32 counts to 16.7 million only
        logged["step"] = self.frames.double().cpu()
        self.log_dict(logged, on_step=True, batch_size=1)

    def _check_weights(self, frames: int) -> None:
        """Finite gradients can make infinite weights: then no checkpoint of this iteration."""
        if all_finite(self.parameters()):
            return
        actors = zip(self.spec.names, self.policy.actors, strict=True)
        owned = {f"weights/{n}": nn.utils.parameters_to_vector(a.parameters()) for n, a in actors}
        check_finite(owned | dict(self.named_parameters()), frames)

    # ------------------------------------------------------------------ checkpoints
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what only exact resume needs, unless it is a checkpoint of weights alone."""
        if "optimizer_states" in checkpoint:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            checkpoint[RESUME_KEY] = data.resume_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Hands it back when training goes on."""
        if self._trainer is None:
            return
        # Lightning does it after loading the weights, and would round those of 64-true to 32 bits
        self.trainer.precision_plugin.convert_module(self)
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        self.trainer.datamodule.load_resume_state(checkpoint.get(RESUME_KEY))  # type: ignore[attr-defined]
        # a finished run that is given more frames has not seen its last batch
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        progress["is_last_batch"] = False

    # ------------------------------------------------------------------ evaluation
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Evaluates the deterministic policy on the DataModule's ``eval_env``."""
        with isolated_random(), plain_precision():
            result = evaluate(self.policy, self.trainer.datamodule.eval_env())  # type: ignore[attr-defined]
        numbers = {name: value for name, value in result.items() if isinstance(value, float)}
        logged = {f"eval/{n}": torch.tensor(v, dtype=torch.float64) for n, v in numbers.items()}
        logged["step"] = self.frames.double().cpu()
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=1)


def finite_means(updates: Sequence[dict[str, Tensor]], frames: int) -> dict[str, Tensor]:
    """Means of the scalars of an iteration's gradient steps.

    Args:
        updates: every gradient step's, in the order in which they came about.
        frames: frames trained so far.

    Raises:
        NonFiniteError: names the first one in time that is NaN or infinite: one agent's NaN is
            soon everybody's.
    """
    if not updates:
        return {}
    names = dict.fromkeys(name for update in updates for name in update)  # some steps lack some
    means = {n: torch.stack([u[n] for u in updates if n in u]).mean() for n in names}
    if not all_finite(means.values()):
        for update in updates:
            check_finite(update, frames)
    return means


@contextmanager
def isolated_random() -> Iterator[None]:
    """Leaves the global random states of torch, numpy and Python as they were."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


@contextmanager
def plain_precision() -> Iterator[None]:
    """As it is while data is collected, whatever ``trainer.precision``.

    Inside of a LightningModule's steps ``64-true`` makes float64 the default and ``bf16-mixed``
    casts every product; an environment's physics wants neither.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def seeded(*where: int | str) -> Iterator[None]:
    """Torch's global random state seeded by its arguments inside; outside it stays as it was."""
    with isolated_random():
        torch.manual_seed(stable_seed(*where))
        yield


def adam(
    learning_rate: float, epsilon: float = 1e-8
) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    """Makes Adam over parameters, in the fused form that costs one kernel."""
    return lambda parameters: torch.optim.Adam(
        parameters, lr=learning_rate, eps=epsilon, fused=True
    )
