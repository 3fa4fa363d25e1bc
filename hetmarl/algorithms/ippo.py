"""IPPO: independent proximal policy optimisation."""

from __future__ import annotations

from hetmarl.algorithms.mappo import MAPPO
from hetmarl.networks import LocalValues


class IPPO(MAPPO):
    """MAPPO whose critics see what their agent sees: Vⁱ(oⁱ) (de Witt et al. 2020, 2011.09533)."""

    name = "ippo"
    critic_type = LocalValues
