"""MAPPO: multi-agent proximal policy optimisation with a joint critic."""

from __future__ import annotations

from hetmarl.algorithms.happo import HAPPO


class MAPPO(HAPPO):
    """HAPPO's objective with everybody's M = Â: all agents at once, from the same data.

    Each agent ascends E[min(r·Â, clip(r, 1 ± ε)·Â)] + c·E[H], the critic sees the state (Yu et al.
    2022, arXiv 2103.01955). Its authors let agents share parameters, ``network.sharing=full``; here
    they do not unless asked.
    """

    name = "mappo"
    sequential = False
