"""Replay: a ring of frames (``ring``), drawn from as transitions and sequences (``replay``)."""

from hetmarl.data.replay.priority import Priorities
from hetmarl.data.replay.replay import Replay, n_step_return
from hetmarl.data.replay.ring import Ring
from hetmarl.data.replay.storage import free_memory

__all__ = ["Priorities", "Replay", "Ring", "free_memory", "n_step_return"]
