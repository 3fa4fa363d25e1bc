"""What the names of tasks mean, as arguments of the two libraries' environments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hetmarl_envs.errors import UnknownNameError, did_you_mean

FORAGING = tuple(
    f"{sight}{name}"
    for name in "8x8-2p-2f-coop 10x10-3p-3f 15x15-3p-5f 15x15-4p-3f 15x15-4p-5f".split()
    for sight in ("", "2s-")
)
"""Those of EPyMARL's benchmark, each also with agents that see two cells far."""
WAREHOUSES = tuple(
    f"{name}{how}"
    for name in ("tiny-2ag", "tiny-4ag", "small-4ag")
    for how in ("", "-easy", "-hard")
)
"""Those of EPyMARL's benchmark, each also with twice and half the requests."""

_FORAGING = r"(?:Foraging-)?(?:([1-9]\d*)s-)?(\d+)x(\d+)-(\d+)p-(\d+)f(-coop)?(?:-v3)?"
_WAREHOUSE = r"(?:rware-)?(tiny|small|medium|large)-(\d+)ag(-easy|-hard)?(?:-v2)?"
_SIZES = {"tiny": (1, 3), "small": (2, 3), "medium": (2, 5), "large": (3, 5)}
_REQUESTS = {"-easy": 2.0, None: 1.0, "-hard": 0.5}


def foraging_arguments(task: str) -> dict[str, Any]:
    """Of ``lbforaging``'s ``ForagingEnv``, for ``"2s-8x8-2p-2f-coop"``: as it registers them.

    Raises:
        UnknownNameError: the name does not say sizes.
    """
    found = re.fullmatch(_FORAGING, task)
    if found is None:
        form = "'[<cells>s-]<rows>x<columns>-<agents>p-<foods>f[-coop]'"
        raise _unknown("lbf", task, form, FORAGING)
    sight, rows, columns, players, foods = (int(n or 0) for n in found.groups()[:5])
    return {
        "players": players,
        "min_player_level": 1,
        "max_player_level": 2,
        "field_size": (rows, columns),
        "min_food_level": 1,
        "max_food_level": None,
        "max_num_food": foods,
        "sight": sight or max(rows, columns),
        "max_episode_steps": 50,
        "force_coop": found[6] is not None,
        "penalty": 0.0,
    }


def warehouse_arguments(task: str) -> dict[str, Any]:
    """Of ``rware``'s ``Warehouse``, for ``"tiny-2ag-hard"``: as it registers them.

    Raises:
        UnknownNameError: the name is none of a warehouse.
    """
    found = re.fullmatch(_WAREHOUSE, task)
    if found is None:
        form = "'<tiny|small|medium|large>-<agents>ag[-easy|-hard]'"
        raise _unknown("rware", task, form, WAREHOUSES)
    rows, columns = _SIZES[found[1]]
    agents = int(found[2])
    return {
        "shelf_rows": rows,
        "shelf_columns": columns,
        "column_height": 8,
        "n_agents": agents,
        "msg_bits": 0,
        "sensor_range": 1,
        "request_queue_size": int(agents * _REQUESTS[found[3]]),
        "max_inactivity_steps": None,
        "max_steps": 500,
        "reward_type": "individual",
    }


def _unknown(family: str, task: str, form: str, listed: Sequence[str]) -> UnknownNameError:
    return UnknownNameError(
        f"'{family}/{task}' is no task.{did_you_mean(task, listed)} Expected {form}, such as "
        f"{', '.join(listed)}."
    )
