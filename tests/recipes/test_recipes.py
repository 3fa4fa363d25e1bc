"""The recipes run, and do what their first lines say."""

from __future__ import annotations

import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from hetmarl.data import TeamCollector
from hetmarl.engines import UpdateRandomness
from hetmarl.objectives import DriftError, check_drift, check_neighbourhood
from hetmarl_envs import TeamSpec, check_team_env, make_env, registry
from hetmarl_envs.errors import ConfigError, UnknownNameError

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def load(name: str) -> ModuleType:
    """The recipe as a module, under the name by which ``_target_`` finds it."""
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_every_recipe_says_how_to_run_it() -> None:
    for path in RECIPES.rglob("*_*.py"):
        assert f"python recipes/{path.relative_to(RECIPES)}" in path.read_text(encoding="utf-8"), (
            path.name
        )


@pytest.mark.slow
def test_embedding_imports_neither_lightning_nor_hydra(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPES / "embed_in_torchrl.py")]
    command += ["--task", "vmas/navigation"]
    command += ["--total-frames", "2000", "--warmup-frames", "1000"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    # The recipe itself asserts on sys.modules.
    assert result.returncode == 0, result.stderr
    assert "2,000 frames" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_torchrl_collector_and_buffer() -> None:
    losses = load("torchrl_collector").train(total_frames=160, num_envs=4)
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.slow
def test_lightning_script_and_its_resume(tmp_path: Path) -> None:
    train = load("lightning_trainer").train
    settings = {
        "task": "vmas/navigation",
        "num_envs": 20,
        "warmup_frames": 1000,
        "eval_interval_frames": 1000,
    }
    whole = train(total_frames=3000, run_dir=tmp_path / "whole", **settings)
    train(total_frames=2000, run_dir=tmp_path / "parts", **settings)
    parts = train(total_frames=3000, run_dir=tmp_path / "parts", resume=True, **settings)
    assert whole.global_step == parts.global_step == 3
    weights = whole.lightning_module.state_dict()
    for name, value in parts.lightning_module.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_custom_environment_keeps_the_contract_and_resumes() -> None:
    recipe = load("custom_env")
    env = recipe.make(num_envs=3, seed=1, max_steps=5)
    spec = check_team_env(env, steps=12)
    env.set_seed(1)
    assert [agent.action.dim for agent in spec.agents] == [2, 1]
    other = recipe.make(num_envs=3, seed=2, max_steps=5)
    data = env.reset()
    other.reset()
    other.load_runtime_state(env.runtime_state())
    twin = data.clone()
    for _ in range(12):
        action = env.rand_action(data.clone())
        data, after = env.step_and_maybe_reset(action.clone())
        twin, twin_after = other.step_and_maybe_reset(action.clone())
        assert (data == twin).all()
        assert (after == twin_after).all()
        data = after
    assert env.render().shape == (128, 128, 3)


def test_custom_environment_refuses_a_wrong_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._families, "meeting", load("custom_env").FAMILY)
    assert make_env("meeting/plane").max_steps == 50
    with pytest.raises(UnknownNameError, match=r"meeting has no task 'palne'\. Expected 'plane'"):
        make_env("meeting/palne")


@pytest.mark.slow
def test_custom_environment_is_learned() -> None:
    module = load("custom_env").train(20_480)
    assert int(module.frames) == 20_480
    assert module.trainer.callback_metrics["eval/return_mean"] > -14  # random actions: -28


@pytest.mark.slow
def test_custom_algorithm_learns_under_its_name(tmp_path: Path) -> None:
    recipe = load("custom_algorithm")
    module = recipe.train(3_840)
    assert module.hparams["algorithm"] == "hatsallis"
    assert int(module.frames) == 3_840
    assert module.trainer.callback_metrics["eval/return_mean"] > 0.8
    module.trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    loaded = recipe.HATsallis.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.config == module.config


@pytest.mark.parametrize("settings", [{"order": 1.0}, {"weight": 0.0}, {"epochs": 0}])
def test_custom_algorithm_checks_its_ranges(settings: dict[str, float]) -> None:
    recipe = load("custom_algorithm")
    check_drift(recipe.TsallisDrift(order=1.5, weight=0.1), trials=3)
    with pytest.raises(ConfigError, match=next(iter(settings))):
        recipe.TsallisConfig(**settings)


@pytest.mark.parametrize("recipe", ["custom_algorithm", "maximum_entropy_drift"])
def test_a_new_member_takes_few_lines(recipe: str) -> None:
    """Config, drift, class and entry: what a member is, without imports and the training."""
    text = (RECIPES / f"{recipe}.py").read_text(encoding="utf-8")
    member = text[text.index("@dataclass") : text.index("def train")]
    lines = [line for line in member.splitlines() if line.strip() and '"""' not in line]
    assert len(lines) < 40


PAGE = RECIPES.parent / "docs" / "howto" / "custom_algorithm.md"


def test_the_code_of_the_page_runs() -> None:
    """Every block but the recipe itself, in order."""
    names: dict[str, Any] = vars(load("custom_algorithm")).copy()
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    checking, enumerated, *members = (block for block in blocks if "--8<--" not in block)
    with pytest.raises(DriftError) as caught:
        exec(checking, names)
    stated = checking.replace("\n# ", " ").split("DriftError: ")[1]
    for part in stated.strip().split("…"):
        assert part.strip(", ]") in str(caught.value)
    exec(enumerated.replace("range(20)", "range(3)"), names)
    assert names["team"].expected_return > 0
    for block in members:
        exec(block, names)
    check_neighbourhood(names["ReverseBall"](0.01), trials=2)
    env = make_env("games/mixed", num_envs=32)
    spec = TeamSpec.from_env(env)
    for name in ("ReverseHATRPO", "StoppingHAPPO"):
        module = names[name](spec)
        module.optimizers_of_team()
        data, _ = TeamCollector(env, module.policy, seed=0).collect(2, 0)
        found = module.engine.update(data, UpdateRandomness(0, 0))
        assert all(value.isfinite() for value in found.values())
        assert found["kl/agent_0"] > 0


@pytest.mark.slow
def test_a_maximum_entropy_drift_learns_under_its_name(tmp_path: Path) -> None:
    recipe = load("maximum_entropy_drift")
    check_drift(recipe.JeffreysDrift(), trials=3)
    module = recipe.train(1_280, weight=0.3)
    assert module.hparams["algorithm"] == "hasac_jeffreys"
    assert int(module.frames) == 1_280
    assert int(module.updates) > 10
    drifts = [module.trainer.logged_metrics[f"train/drift/{n}"] for n in module.spec.names]
    assert all(drift > 0 for drift in drifts)
    module.trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    loaded = recipe.HASACJeffreys.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.config == module.config
    assert loaded.loss.drift == recipe.JeffreysDrift(0.3)
    with pytest.raises(ConfigError, match="weight"):
        recipe.JeffreysConfig(weight=-1.0)


def test_the_code_of_the_off_policy_page_runs() -> None:
    text = (RECIPES.parent / "docs" / "algorithms" / "mehaml.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "--8<--" not in b)
    names: dict[str, Any] = {}
    exec(block, names)
    spec = TeamSpec.from_env(make_env("games/mixed", num_envs=2))
    module = names["Both"](spec)
    assert module.loss.drift is names["chi_squared"]
    assert module.loss.neighbourhood.radius == 0.1
