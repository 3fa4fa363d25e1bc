"""Sequential updates of agents that share parameters: refused, unless asked for.

What says how agents follow one another is refused where they do not.
"""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn

from hetmarl.lightning.module import TeamModule
from hetmarl.networks.sharing import sharing_sets
from hetmarl_envs.errors import ConfigError


def check_sharing(module: TeamModule, instead: str) -> None:
    """Refuses shared parameters where agents are updated one after another, or asked for in vain.

    With ``config.allow_shared_sequential`` it warns instead; without an order to the updates that
    and ``config.fixed_order`` are refused.

    Args:
        module: has ``sequential``.
        instead: a simultaneous algorithm of its kind.
    """
    if not module.sequential:
        _refuse_order(module)
    shared = [unit for unit in module.policy.units if len(unit) > 1]
    if not shared and any(len(s) > 1 for s in sharing_sets(module.spec, module.network)):
        raise ConfigError(
            f"network.sharing={module.network.sharing}: the actors that "
            f"{type(module.network).__name__}.make_actors made share nothing. Let it make single "
            "actors in make_actor instead, or set network.sharing=none."
        )
    if not module.sequential or not shared:
        return
    names = "; ".join(", ".join(module.spec.names[i] for i in unit) for unit in shared)
    text = (
        f"{module.name} updates one agent after another, each against its predecessors' new "
        f"policies, and the network settings let agents share parameters ({names}): an update "
        "of one moves the others too, so those after it do not see what the theory needs."
    )
    if not module.config.allow_shared_sequential:
        raise ConfigError(
            f"{text} Set network.sharing=none, take a simultaneous algorithm ({instead}), or set "
            "algo.allow_shared_sequential=true to update each set as one joint agent."
        )
    rank_zero_warn(f"{text} Each set is updated as one joint agent.")


def _refuse_order(module: TeamModule) -> None:
    for key in ("fixed_order", "allow_shared_sequential"):
        if getattr(module.config, key, False):
            raise ConfigError(
                f"algo.{key}=true: expected false, as {module.name} updates all agents at once, "
                "and they may share parameters anyway. Leave it out, or take a sequential "
                "algorithm."
            )
