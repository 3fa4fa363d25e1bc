"""MATD3: multi-agent twin delayed policy gradient, the simultaneous baseline of HATD3."""

from __future__ import annotations

from hetmarl.algorithms.hatd3 import HATD3


class MATD3(HATD3):
    """HATD3 whose agents are updated all at once, against what the others did in the replay.

    Agent i ascends E[Q₁(s, a^{-i}, πⁱ(oⁱ))] with the other actions a^{-i} from the batch (Ackermann
    et al. 2019, arXiv 1910.01465), here with one pair of critics of the team's reward. Everything
    else is HATD3's, so that a comparison is one of the update alone.
    """

    name = "matd3"
    sequential = False
