"""One HASAC gradient step against the same matrix products written bare.

    python benchmarks/hasac_step.py [--threads 2]

Batch 1000, networks 256×2, twin critic; sampling from a full replay of 10⁶ frames, n = 10.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from interleaved import in_bfloat16, interleaved, parse, table
from products import bare, gradient_step, operations

import hetmarl
from hetmarl.algorithms import HASAC, HASACConfig
from hetmarl.data import Replay, TeamCollector
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import NetworkConfig
from hetmarl_envs.contract import TeamSpec

TASK = "mamujoco/halfcheetah_2x3"
BATCH, N_STEP = 1000, 10


def full_replay(collector: TeamCollector, frames: int, directory: Path) -> Replay:
    """A memory-mapped replay that has just become full of random actions' frames."""
    steps = min(1000, frames // collector.num_envs)
    chunk, _ = collector.collect(steps, 0, random=True)
    index = collector.env.observation_index
    replay = Replay(
        chunk, collector.spec, frames, spare=steps, directory=directory, observation_index=index
    )
    while len(replay) < frames:
        replay.extend(chunk)
    return replay


def main() -> None:
    """Prints the table."""
    given = parse(__doc__)
    frames, rounds, seconds = (20_000, 1, 0.0) if given.quick else (1_000_000, 15, 0.3)
    env = hetmarl.make_env(TASK, num_envs=20, seed=0)
    spec, network, config = (
        TeamSpec.from_env(env),
        NetworkConfig(),
        HASACConfig(batch_size=BATCH, n_step=N_STEP),
    )
    team = HASAC(spec, config, network)
    team.configure_optimizers()
    randomness = UpdateRandomness(0, 0)
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        replay = full_replay(TeamCollector(env, team.policy, seed=0), frames, Path(directory))

        def sample() -> object:
            return replay.sample(BATCH, n_step=N_STEP, generator=generator)

        def learn() -> None:
            team.engine.update(data, randomness)

        data = replay.sample(BATCH, n_step=N_STEP, generator=generator)
        products = gradient_step(spec, network, BATCH)
        times = interleaved(
            {
                "step": learn,
                "bfloat16": in_bfloat16(learn),
                "torch": bare(products, "torch"),
                "onednn": bare(products, "onednn"),
                "sample": sample,
            },
            rounds=rounds,
            slice_seconds=seconds,
            clock=given.timer,
        )
    step = times["step"]
    gigaflops = operations(products) / 1e9
    table(
        f"HASAC gradient step, {TASK}, batch {BATCH}, {given.threads} thread(s)",
        {
            "gradient step": f"{step * 1e3:.1f} ms",
            "gradient step, bfloat16 autocast": f"{times['bfloat16'] * 1e3:.1f} ms, "
            f"{step / times['bfloat16']:.2f} times as fast",
            "bare products, torch.mm": f"{times['torch'] * 1e3:.1f} ms, "
            f"{gigaflops / times['torch']:.0f} GFLOP/s",
            "bare products, oneDNN": f"{times['onednn'] * 1e3:.1f} ms, "
            f"{gigaflops / times['onednn']:.0f} GFLOP/s",
            "step / torch.mm": f"{step / times['torch']:.2f}   (goal: at most 1.25)",
            "step / oneDNN": f"{step / times['onednn']:.2f}",
            "sampling": f"{times['sample'] * 1e3:.2f} ms, {len(replay):,} frames",
            "sampling / step": f"{times['sample'] / step:.1%}   (goal: under 5 %)",
        },
    )


if __name__ == "__main__":
    main()
