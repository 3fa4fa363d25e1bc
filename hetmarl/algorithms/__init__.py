"""One file per algorithm: its LightningModule and its hyperparameters."""

from hetmarl.algorithms.registry import (
    AlgorithmEntry,
    get_algorithm,
    list_algorithms,
    register_algorithm,
)
from hetmarl_envs.lazy import exporting

_MODULES = {
    "HAA2C": "haa2c",
    "HADDPG": "haddpg",
    "HADDPGConfig": "haddpg",
    "HAD3QN": "had3qn",
    "HAD3QNConfig": "had3qn",
    "HAMDPO": "hamdpo",
    "HAMDPOConfig": "hamdpo",
    "HAPPO": "happo",
    "HAPPOConfig": "happo",
    "HASAC": "hasac",
    "HASACConfig": "hasac",
    "HATD3": "hatd3",
    "HATD3Config": "hatd3",
    "HASACBall": "hasac_ball",
    "HASACBallConfig": "hasac_ball",
    "HASACKL": "hasac_kl",
    "HASACKLConfig": "hasac_kl",
    "HATRPO": "hatrpo",
    "HATRPOConfig": "hatrpo",
    "IA2C": "ia2c",
    "IPPO": "ippo",
    "MAA2C": "maa2c",
    "MAA2CConfig": "maa2c",
    "MADDPG": "maddpg",
    "MAPPO": "mappo",
    "MASAC": "masac",
    "MATD3": "matd3",
    "MEHAML": "mehaml",
    "MEHAMLConfig": "mehaml",
    "GradientConfig": "on_policy",
    "OffPolicyConfig": "off_policy",
    "OffPolicyModule": "off_policy",
    "OnPolicyConfig": "on_policy",
    "OnPolicyModule": "on_policy",
}
__all__ = [
    *_MODULES,
    "AlgorithmEntry",
    "get_algorithm",
    "list_algorithms",
    "register_algorithm",
]


__getattr__ = exporting(
    __name__, *(f"{__name__}.{module}:{name}" for name, module in _MODULES.items())
)
