"""MADDPG: multi-agent deep deterministic policy gradient, HADDPG's simultaneous baseline."""

from __future__ import annotations

from hetmarl.algorithms.haddpg import HADDPG


class MADDPG(HADDPG):
    """HADDPG whose agents are updated all at once, against what the others did in the replay.

    Agent i ascends E[Q(s, a^{-i}, πⁱ(oⁱ))] with the other actions a^{-i} from the batch (Lowe et
    al. 2017, arXiv 1706.02275, equation 5), here with one critic of the team's reward. Everything
    else is HADDPG's, so that a comparison is one of the update alone.
    """

    name = "maddpg"
    sequential = False
