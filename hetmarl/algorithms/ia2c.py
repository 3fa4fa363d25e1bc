"""IA2C: independent advantage actor-critic."""

from __future__ import annotations

from hetmarl.algorithms.maa2c import MAA2C
from hetmarl.networks import LocalValues


class IA2C(MAA2C):
    """MAA2C whose critics see what their agent sees: Vⁱ(oⁱ)."""

    name = "ia2c"
    critic_type = LocalValues
