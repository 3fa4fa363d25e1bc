"""MPE's scenarios: their names, the modules of ``mpe2`` that hold them, their options."""

from __future__ import annotations

import importlib
import inspect
import os
from typing import Any

from hetmarl_envs.errors import UnknownNameError, did_you_mean
from hetmarl_envs.options import check, check_names, like, whole

# Scenario name to its module in mpe2, at the version whose rules these are.
SCENARIOS = {
    "collect_treasure": "collect_treasure_v1",
    "simple": "simple_v3",
    "simple_adversary": "simple_adversary_v3",
    "simple_crypto": "simple_crypto_v3",
    "simple_formation": "simple_formation_v1",
    "simple_line": "simple_line_v1",
    "simple_push": "simple_push_v3",
    "simple_reference": "simple_reference_v3",
    "simple_speaker_listener": "simple_speaker_listener_v4",
    "simple_spread": "simple_spread_v3",
    "simple_tag": "simple_tag_v3",
    "simple_world_comm": "simple_world_comm_v3",
}

# What mpe2 takes besides, without a use here: infos are not part of the data, and nobody would
# advance the curriculum from its first stage.
_HIDDEN = ("self", "render_mode", "benchmark_data", "curriculum")


def load_scenario(name: str) -> Any:
    """``mpe2``'s class of the scenario called ``name``, the turn-by-turn environment.

    Raises:
        UnknownNameError: no such scenario; names the nearest.
    """
    if name not in SCENARIOS:
        raise UnknownNameError(
            f"MPE has no scenario '{name}'.{did_you_mean(name, SCENARIOS)} "
            f"Scenarios: {', '.join(SCENARIOS)}."
        )
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on import
    return importlib.import_module(f"mpe2.{SCENARIOS[name]}").raw_env


def scenario_options(name: str) -> dict[str, Any]:
    """The options of a scenario and their defaults, as ``mpe2`` declares them."""
    parameters = inspect.signature(load_scenario(name).__init__).parameters
    return {key: p.default for key, p in parameters.items() if key not in _HIDDEN}


def check_options(name: str, given: dict[str, Any], own: tuple[str, ...]) -> None:
    """Refuses options that the scenario does not take, and values of another type.

    Args:
        name: of the scenario.
        given: what was passed.
        own: names of the environment's own options, for the message.

    Raises:
        ConfigError: names the nearest option, or says what was expected.
    """
    known = scenario_options(name)
    check_names(f"mpe/{name}", given, known, own)
    for option, value in given.items():
        kind = whole(1) if option == "max_cycles" else like(known[option])
        check(f"mpe/{name}", option, value, kind)
