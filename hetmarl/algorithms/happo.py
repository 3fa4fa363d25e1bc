"""HAPPO: heterogeneous-agent proximal policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from hetmarl.algorithms.on_policy import GradientConfig, OnPolicyModule, positive
from hetmarl.objectives import ClipDrift


@dataclass
class HAPPOConfig(GradientConfig):
    """Hyperparameters of HAPPO; the published ones of each task are overlays, ``+experiment=``."""

    clip_epsilon: float = 0.2
    """ε: how far a ratio pays to move from 1; .05 to .3."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "clip_epsilon")


class HAPPO(OnPolicyModule):
    """Sequential updates of unequal agents with clipped ratios.

    In a fresh random order agent iₘ ascends, for some epochs,

        E[min(r·M, clip(r, 1 ± ε)·M)] + c·E[H(πⁱᵐ)],   M = Â(s, a)·∏_{j<m} r^{iⱼ}

    with r its own ratio and M the advantage weighted by its updated predecessors' (Kuba et al.
    2022, arXiv 2109.11251, algorithm 4; Zhong et al. 2024, arXiv 2304.09870). In mirror learning:
    the drift ``ClipDrift``, no neighbourhood.
    """

    name = "happo"
    config_type = HAPPOConfig

    def drift(self) -> ClipDrift:
        return ClipDrift(self.config.clip_epsilon)
