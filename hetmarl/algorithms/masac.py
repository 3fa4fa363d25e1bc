"""MASAC: multi-agent soft actor-critic with a joint critic, the simultaneous baseline of HASAC."""

from __future__ import annotations

from hetmarl.algorithms.hasac import HASAC


class MASAC(HASAC):
    """HASAC whose agents are updated all at once, against what the others did in the replay.

    Agent i ascends E[min Q(s, a^{-i}, aⁱ) − αⁱ·log πⁱ(aⁱ|oⁱ)] with aⁱ ~ πⁱ and the other actions
    a^{-i} from the batch, as in MADDPG (Lowe et al. 2017, arXiv 1706.02275). Everything else,
    critic, temperatures, networks, is HASAC's, so that a comparison is one of the update alone.
    """

    name = "masac"
    sequential = False
