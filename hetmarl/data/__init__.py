"""Collection, replay and evaluation; the DataModules alone need Lightning and load when used."""

from importlib import import_module
from typing import Any

from hetmarl.data.collector import Episodes, TeamCollector
from hetmarl.data.evaluation import evaluate
from hetmarl.data.replay import Replay
from hetmarl.data.selective_sharing import selective_sharing

__all__ = [
    "Episodes",
    "Replay",
    "ReplayData",
    "ReplayDataConfig",
    "RolloutData",
    "RolloutDataConfig",
    "TeamCollector",
    "evaluate",
    "selective_sharing",
]
_MODULES = {
    "ReplayData": "replay_data",
    "ReplayDataConfig": "replay_data",
    "RolloutData": "rollout_data",
    "RolloutDataConfig": "rollout_data",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"hetmarl.data.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'hetmarl.data' has no attribute '{name}'")
