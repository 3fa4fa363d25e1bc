"""The settings of a run. The fields are the keys of the command line, ``trainer.devices=2``.

``algo.*``, ``data.*`` and ``network.*`` have dataclasses of their own: those of the algorithm that
is chosen. One *frame* is one step of one environment, all its agents together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hetmarl_envs.errors import ConfigError


@dataclass
class EvalConfig:
    """Evaluation: whole episodes of the deterministic policy, in environments of its own."""

    interval_frames: int = 20_000
    """Frames between evaluations, typically total_frames/50 to total_frames/10; at least 1."""
    episodes: int = 20
    """Episodes of each evaluation; at least 1."""

    def __post_init__(self) -> None:
        _at_least("eval.interval_frames", self.interval_frames, 1)
        _at_least("eval.episodes", self.episodes, 1)


@dataclass
class CheckpointConfig:
    """Checkpoints from which a run goes on exactly."""

    interval_frames: int | None = None
    """Frames between checkpoints; null: at each evaluation."""

    def __post_init__(self) -> None:
        if self.interval_frames is not None:
            _at_least("checkpoint.interval_frames", self.interval_frames, 1)


@dataclass
class TrainerConfig:
    """Arguments of Lightning's Trainer, under its names; the rest of them go under ``extra``."""

    accelerator: str = "auto"
    """auto, cpu, gpu. Apple's GPUs (mps) have no double precision, which counters need."""
    devices: int | str | list[int] = 1
    """How many processes (on GPUs: one each), or which GPUs, [0,3]; "auto": all."""
    num_nodes: int = 1
    """Machines."""
    strategy: str = "auto"
    """auto, ddp: several devices synchronise the gradient of the agent that is being updated."""
    precision: int | str = "32-true"
    """32-true, 64-true or bf16-mixed."""
    max_time: str | dict[str, int] | None = None
    """Wall time after which the run stops, "DD:HH:MM:SS"; null: none."""
    enable_progress_bar: bool = True
    """Shows the live bar and the table of evaluations."""
    enable_model_summary: bool = False
    """Prints Lightning's table of modules at the start."""
    log_every_n_steps: int = 1
    """Iterations for a row of metrics.csv; at least 1."""
    deterministic: bool | str | None = None
    """true or "warn": refuses, or warns of, operations that differ between runs (GPU)."""
    benchmark: bool | None = None
    """Lets cuDNN try its algorithms."""
    detect_anomaly: bool = False
    """Names the operation behind a NaN gradient; slow."""
    profiler: str | None = None
    """simple, advanced or pytorch; null: none."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Any other argument of the Trainer, trainer.extra.limit_train_batches=10."""

    def __post_init__(self) -> None:
        _at_least("trainer.num_nodes", self.num_nodes, 1)
        _at_least("trainer.log_every_n_steps", self.log_every_n_steps, 1)
        if isinstance(self.devices, int) and self.devices < 1 and self.devices != -1:
            raise ConfigError(f"trainer.devices={self.devices}: expected 1 or more, or -1 for all.")


@dataclass
class TaskConfig:
    """A task; its family's own options stand beside ``name``: ``task.agent_obsk=0``."""

    name: str
    """"family/task", see ``hetmarl list tasks``."""
    target: str | None = None
    """Key ``_target_``: import path of make(*, num_envs, seed, device, **options), for an
    environment that is not registered."""
    options: dict[str, Any] = field(default_factory=dict)
    """The family's own options."""

    def __post_init__(self) -> None:
        for key in ("num_envs", "seed", "device"):
            if key in self.options:
                whole = "trainer.accelerator" if key == "device" else key
                raise ConfigError(f"task.{key} is not a setting of the task: set {whole}.")


@dataclass
class TrainConfig:
    """The keys at the top of a run's configuration."""

    algo: Any
    """Algorithm, see ``hetmarl list algos``; algo.* are its hyperparameters."""
    task: TaskConfig
    """Task, see ``hetmarl list tasks``; task.* are its options."""
    network: Any
    """network.*: sizes of actors and critics."""
    data: Any
    """data.*: how experience is collected and stored."""
    seed: int = 0
    """Of everything random; equal seeds give equal runs. 0 or more."""
    total_frames: int = 200_000
    """Frames at which the run ends."""
    num_envs: int = 10
    """Environments stepped together, per process; typically 8 to 64 on CPU, more on GPU."""
    run_dir: str | None = None
    """Where everything is written; null: runs/<task>/<algo>/<time>-seed<seed>."""
    resume: str | None = None
    """last: goes on from run_dir's last checkpoint; or a run directory or checkpoint; null: new."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: list[str] = field(default_factory=lambda: ["csv"])
    """Any of csv (always), tensorboard, wandb, mlflow, neptune."""
    logger_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Arguments of a logger by its name: logger_options.wandb.offline=true."""
    torch_threads: int | None = 1
    """Threads of torch on the CPU; one is fastest for small networks, more pay for large ones and
    batches of 1000; null: torch's choice."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        _at_least("seed", self.seed, 0)
        if self.seed >= 2**32:
            raise ConfigError(f"seed={self.seed}: expected less than 2**32.")
        _at_least("total_frames", self.total_frames, 1)
        _at_least("num_envs", self.num_envs, 1)
        if self.torch_threads is not None:
            _at_least("torch_threads", self.torch_threads, 1)


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{key}={value}: expected {least} or more.")
