"""Tables of learning runs: trains what is missing, one row per finished run.

    python benchmarks/learn.py run foundation        trains; kill it and start it again at any time
    python benchmarks/learn.py status foundation     what is finished, how far the others are
    python benchmarks/learn.py table foundation      the results as a Markdown table
    python benchmarks/learn.py plot foundation       docs/assets/<suite>_<task>.png
    python benchmarks/learn.py docs                  the tables in docs/ that are marked for it

The suites stand in ``benchmarks/suites.yaml``. A run is ``hetmarl train`` in a process of its own,
in ``runs/learn/``; a finished one adds a row to ``benchmarks/results/learn.csv`` and its evaluation
curve to ``benchmarks/results/curves/``. Finished runs are skipped and unfinished ones resumed from
their last checkpoint. Several of these commands may run at once: each run is taken by one of them.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from learn_docs import filled
from learn_report import markdown, plot, status
from learn_runs import Results, Run, locked, read_suite, write_csv
from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from hetmarl.curves import read_curve, read_metrics

ROOT = Path(__file__).resolve().parent.parent
EPISODES_OF_RANDOM = 20
BATTLES_AT_ONCE = 40
SEED_OF_BATTLES = 100_000


# ---------------------------------------------------------------------- training
def train(run: Run, results: Results, runs_dir: Path, threads: int) -> str:
    """Trains or resumes one run and records it; returns what happened, in words."""
    if results.find(run):
        return "finished before"
    run_dir = runs_dir / run.name
    with locked(runs_dir / f"{run.name}.lock") as lock:
        if lock is None:
            return "is being trained by another process"
        settings, ours = runs_dir / f"{run.name}.settings", " ".join(run.overrides)
        if run_dir.exists() and not settings.exists():
            return f"FAILED, {run_dir} is of unknown overrides: remove it or put them in {settings}"
        if settings.exists() and settings.read_text() != ours:
            shutil.rmtree(run_dir, ignore_errors=True)  # the suite asks for something else now
        settings.write_text(ours)
        if not is_complete(run, run_dir):
            started = (run_dir / "checkpoints" / "last.ckpt").exists()
            if not started and run_dir.exists():
                shutil.rmtree(run_dir)  # killed before its first checkpoint
            if not started:
                commit_of(run, runs_dir).write_text(commit())
            log = runs_dir / f"{run.name}.log"
            with log.open("a") as output:
                code = subprocess.run(
                    command(run, run_dir, threads, resume=started),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                    pass_fds=[lock.fileno()],
                    check=False,
                ).returncode
            if code or not is_complete(run, run_dir):
                return f"FAILED with exit code {code}, see {log}"
        began_with = commit_of(run, runs_dir).read_text()
        row = record(run, run_dir, results, {"threads": str(threads), "commit": began_with})
        return f"return {float(row['return_mean']):.0f}, random {float(row['random_mean']):.0f}"


def command(run: Run, run_dir: Path, threads: int, resume: bool) -> list[str]:
    """The ``hetmarl train`` of a run."""
    settings = [
        f"algo={run.algo}",
        f"task={run.task}",
        f"seed={run.seed}",
        f"total_frames={run.frames}",
        f"torch_threads={threads}",
        "trainer.enable_progress_bar=false",
        *run.overrides,
    ]
    place = [f"run_dir={run_dir}", *(["resume=last"] if resume else [])]
    return [sys.executable, "-m", "hetmarl.cli.main", "train", *settings, *place]


def commit_of(run: Run, runs_dir: Path) -> Path:
    """Where the commit stands that the run was started with."""
    return runs_dir / f"{run.name}.commit"


def is_complete(run: Run, run_dir: Path) -> bool:
    """Whether the run got to its last frame and was evaluated there."""
    if not (run_dir / "metrics.csv").exists():
        return False
    metrics = read_metrics(run_dir)
    evaluated = ~np.isnan(metrics.get("eval/return_mean", np.full(1, math.nan)))
    return bool(evaluated.any() and metrics["frames"][evaluated][-1] >= run.frames)


def record(
    run: Run, run_dir: Path, results: Results, circumstances: dict[str, str]
) -> dict[str, str]:
    """Writes the run's curve, then its row."""
    curve = read_curve(run_dir)
    metrics = read_metrics(run_dir)
    columns = {"return_mean": curve.mean, "return_std": curve.spread}
    if run.battles:
        columns["won"] = read_curve(run_dir, "eval/battle_won_mean").mean
    points = [
        (int(frames), *(f"{value:.6g}" for value in values))
        for frames, *values in zip(curve.frames, *columns.values(), strict=True)
    ]
    write_csv(results.curve(run), ("frames", *columns), points)
    random_mean, random_std, game = random_return(run_dir)
    row = run.identity | {
        "return_mean": f"{curve.mean[-1]:.6g}",
        "return_std": f"{curve.spread[-1]:.6g}",
        "best_mean": f"{curve.mean.max():.6g}",
        "random_mean": f"{random_mean:.6g}",
        "random_std": f"{random_std:.6g}",
        "wall_seconds": f"{np.nanmax(metrics['time/elapsed_seconds']):.0f}",
        "versions": versions(game),
        **circumstances,
    }
    if run.battles:
        won, random_won = battles_won(run_dir, run.battles)
        row |= {"won": f"{won}", "random_won": f"{random_won}", "battles": f"{run.battles}"}
    results.add(row)
    return row


def random_return(run_dir: Path) -> tuple[float, float, str]:
    """Mean and standard deviation of 20 episodes of uniform actions, in the run's own task.

    And what the task's game calls itself, empty where it has no name.
    """
    from hetmarl.cli.run_dir import read_config
    from hetmarl.cli.train import EnvFactory
    from hetmarl.conf import resolve
    from hetmarl.data import evaluate

    env = EnvFactory(resolve(read_config(run_dir)).train.task)(num_envs=EPISODES_OF_RANDOM, seed=0)
    result = evaluate(random_policy(env), env)
    env.close()
    return result["return_mean"], result["return_std"], getattr(env, "notes", {}).get("game", "")


def battles_won(run_dir: Path, battles: int) -> tuple[int, int]:
    """How many battles the last checkpoint wins, and uniform actions, on seeds of their own."""
    from hetmarl.cli.trained import load_run
    from hetmarl.data import evaluate

    _, make_env, trained, _ = load_run(str(run_dir), "last")
    at_once = math.gcd(battles, BATTLES_AT_ONCE)
    won = []
    for choose in (lambda env: trained, random_policy):
        env = make_env(num_envs=at_once, seed=SEED_OF_BATTLES)
        policy = choose(env)
        played = [evaluate(policy, env) for _ in range(battles // at_once)]
        env.close()
        won.append(round(sum(result["battle_won_mean"] * at_once for result in played)))
    return won[0], won[1]


def random_policy(env: EnvBase) -> Callable[[TensorDictBase], TensorDictBase]:
    """Uniform among what is allowed."""
    from hetmarl_envs.contract import TeamSpec, write_random_actions

    spec, generator = TeamSpec.from_env(env), torch.Generator().manual_seed(0)
    return lambda data: write_random_actions(data, spec, generator)


def commit() -> str:
    """The packages' version; ``-dirty`` behind it where they were changed since."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    dirty = git("status", "--porcelain", "--", "hetmarl", "envs", "pyproject.toml")
    return git("describe", "--always") + ("-dirty" if dirty else "")


def versions(game: str) -> str:
    """Of everything that numbers depend on; ``game``: what the task's calls itself, if anything."""
    named = [f"python {platform.python_version()}"]
    for package in "torch torchrl tensordict lightning mujoco vmas jaxmarl smacv2".split():
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(named + [f"game {game}"] * bool(game))


# ---------------------------------------------------------------------- command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["run", "status", "table", "plot", "docs"])
    parser.add_argument("suite", nargs="?", help="its name in the file of suites")
    parser.add_argument("--suites", type=Path, default=ROOT / "benchmarks" / "suites.yaml")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs" / "learn")
    parser.add_argument("--assets", type=Path, default=ROOT / "docs" / "assets")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch in each run")
    given = parser.parse_args(arguments)
    results = Results(given.results)
    if given.action == "docs":
        for page in sorted((ROOT / "docs").rglob("*.md")):
            text = page.read_text()
            if (made := filled(text, given.suites, results)) != text:
                page.write_text(made)
                print(page)
        return 0
    runs = read_suite(given.suite or "", given.suites)
    if given.action == "status":
        print(status(runs, results, given.runs_dir))
    elif given.action == "table":
        print(markdown(runs, results))
    elif given.action == "plot":
        for image in plot(runs, results, given.assets, given.suite):
            print(image)
    else:
        failed = 0

        def one(run: Run) -> None:
            nonlocal failed
            print(f"{run.name}: starts", flush=True)
            outcome = train(run, results, given.runs_dir, given.threads)
            failed += outcome.startswith("FAILED")
            print(f"{run.name}: {outcome}", flush=True)

        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(one, runs))
        return 1 if failed else 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
