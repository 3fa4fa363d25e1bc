"""The whole HASAC loop against its bare matrix products, and what Lightning costs of it.

    python benchmarks/training_loop.py [--threads 2]

HalfCheetah 2x3, 20 environments, one gradient step (batch 1000, networks 256×2) per vector step, a
full replay of 10⁶ frames. Lightning's Trainer runs with the callbacks and the logger of
`hetmarl train`; behind each of its iterations the same iteration is run without it, and the bare
products of one.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from interleaved import parse, table
from lightning.pytorch import Callback, LightningModule, Trainer
from products import acting, bare, gradient_step

import hetmarl
from hetmarl.algorithms import HASAC, HASACConfig
from hetmarl.data import ReplayData, ReplayDataConfig
from hetmarl.engines import UpdateRandomness
from hetmarl.lightning import build_loggers, quiet_lightning, team_callbacks
from hetmarl.networks import NetworkConfig
from hetmarl_envs.contract import TeamSpec

TASK = "mamujoco/halfcheetah_2x3"
ENVS, BATCH, FRAMES_PER_ITERATION = 20, 1000, 500


class InTurns(Callback):
    """Runs the alternatives behind every iteration of the Trainer and keeps all seconds."""

    def __init__(
        self,
        data: ReplayData,
        alternatives: dict[str, Callable[[], object]],
        rounds: int,
        timer: Any,
    ) -> None:
        self.data, self.alternatives, self.rounds, self.timer = data, alternatives, rounds, timer
        self.seconds: dict[str, list[float]] = {name: [] for name in ("trainer", *alternatives)}
        self.since = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes the times of one round."""
        if batch_idx:  # the first iteration starts everything up
            self.seconds["trainer"].append(self.timer() - self.since)
            for name, run in self.alternatives.items():
                start = self.timer()
                run()
                self.seconds[name].append(self.timer() - start)
        else:
            fill(self.data)
        if len(self.seconds["trainer"]) == self.rounds:
            trainer.should_stop = True
        self.since = self.timer()


def fill(data: ReplayData) -> None:
    """Repeats what the replay holds until it is full."""
    replay, collector = data.replay, data._collector
    assert replay is not None and collector is not None
    chunk, _ = collector.collect(replay.slots - replay.capacity - 1, 0, random=True)
    while len(replay) < replay.capacity * replay.num_envs:
        replay.extend(chunk)


def measure(given: Namespace, run_dir: Path) -> dict[str, float]:
    """Median seconds of an iteration, by who ran it."""
    rounds, buffer_size = (1, 2_000) if given.quick else (7, 1_000_000)
    make_env = partial(hetmarl.make_env, TASK, num_threads=given.threads)
    spec, network = TeamSpec.from_env(make_env()), NetworkConfig()
    module = HASAC(spec, HASACConfig(batch_size=BATCH, n_step=10), network)
    data = ReplayData(
        make_env,
        num_envs=ENVS,
        total_frames=50 * FRAMES_PER_ITERATION,
        config=ReplayDataConfig(FRAMES_PER_ITERATION, warmup_frames=0, buffer_size=buffer_size),
        eval_episodes=0,
        directory=run_dir / "replay",
    )
    steps = data.steps_per_batch

    def without_lightning() -> None:
        module.learn(data.collect(), UpdateRandomness(0, data.iteration))

    def collect() -> None:
        assert data._collector is not None
        data._collector.collect(steps, 0)

    products = bare(gradient_step(spec, network, BATCH) + acting(spec, network, ENVS), "onednn")
    mkl_products = bare(gradient_step(spec, network, BATCH) + acting(spec, network, ENVS), "torch")
    alternatives = {
        "without": without_lightning,
        "collect": collect,
        "onednn": lambda: [products() for _ in range(steps)],
        "torch": lambda: [mkl_products() for _ in range(steps)],
    }
    turns = InTurns(data, alternatives, rounds, given.timer)
    callbacks = [c for c in team_callbacks(run_dir) if type(c).__name__ != "TeamProgressBar"]
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[turns, *callbacks],
        logger=build_loggers([], run_dir),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=data)
    return {name: median(values) for name, values in turns.seconds.items()}


def main() -> None:
    """Prints the table."""
    given = parse(__doc__)
    quiet_lightning()
    warnings.filterwarnings("ignore")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        seconds = measure(given, Path(directory))
    whole = seconds["trainer"]
    rate = {
        name: f"{FRAMES_PER_ITERATION / value:,.0f} frames/s" for name, value in seconds.items()
    }
    table(
        f"HASAC loop, {TASK}, {ENVS} environments, batch {BATCH}, {given.threads} thread(s)",
        {
            "under the Trainer": rate["trainer"],
            "without Lightning": rate["without"],
            "bare products, oneDNN": rate["onednn"],
            "bare products, torch.mm": rate["torch"],
            "time / oneDNN": f"{whole / seconds['onednn']:.2f}",
            "time / torch.mm": f"{whole / seconds['torch']:.2f}",
            "Lightning's share": f"{1 - seconds['without'] / whole:.1%}   (goal: under 5 %)",
            "collecting's share": f"{seconds['collect'] / whole:.1%}",
            "measured in": f"{time.perf_counter() - began:.0f} s",
        },
    )


if __name__ == "__main__":
    main()
