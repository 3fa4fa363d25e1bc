"""Collection, replay and evaluation; ``ReplayData`` alone needs Lightning and loads when used."""

from typing import Any

from hetmarl.data.collector import Episodes, TeamCollector
from hetmarl.data.evaluation import evaluate
from hetmarl.data.replay import Replay

__all__ = [
    "Episodes",
    "Replay",
    "ReplayData",
    "ReplayDataConfig",
    "TeamCollector",
    "evaluate",
]


def __getattr__(name: str) -> Any:
    if name in ("ReplayData", "ReplayDataConfig"):
        from hetmarl.data import replay_data

        return getattr(replay_data, name)
    raise AttributeError(f"module 'hetmarl.data' has no attribute '{name}'")
