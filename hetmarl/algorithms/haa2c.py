"""HAA2C: heterogeneous-agent advantage actor-critic."""

from __future__ import annotations

from hetmarl.algorithms.on_policy import GradientConfig, OnPolicyModule


class HAA2C(OnPolicyModule):
    """Sequential updates of unequal agents by importance-weighted policy gradients.

    In a fresh random order agent iₘ ascends E[r·M] + c·E[H(πⁱᵐ)], M = Â(s, a)·∏_{j<m} r^{iⱼ}
    (Zhong et al. 2024, arXiv 2304.09870, section 4.2.1). In mirror learning: no drift, no
    neighbourhood. Of several epochs, the reference's 5, only the first is A2C proper.
    """

    name = "haa2c"
    config_type = GradientConfig
