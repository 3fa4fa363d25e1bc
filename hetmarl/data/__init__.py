"""Collection, replay and evaluation; the DataModules alone need Lightning and load when used."""

from hetmarl.data.collector import Episodes, TeamCollector
from hetmarl.data.evaluation import evaluate
from hetmarl.data.replay import Replay
from hetmarl.data.selective_sharing import selective_sharing
from hetmarl_envs.lazy import exporting

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


__getattr__ = exporting(
    __name__, *(f"{__name__}.{module}:{name}" for name, module in _MODULES.items())
)
