"""A team of choosers for tests: masks, deaths, several components, an order of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from hetmarl_envs.contract import ActionSpace, AgentSpec, TeamSpec
from tests.teams import HybridEnv

VALVE, PANEL = (
    ActionSpace("discrete", choices=(4,)),
    ActionSpace("multi_discrete", choices=(3, 2)),
)
CHOOSERS = TeamSpec(
    (
        AgentSpec("valve_0", "valve", 0, (3,), VALVE),
        AgentSpec("panel", "panel", 0, (2,), PANEL),
        AgentSpec("valve_1", "valve", 1, (3,), VALVE),
    ),
    state_dim=5,
)
ALONE = TeamSpec((AgentSpec("solo", "agents", 0, (3,), VALVE),), 3)


def legal_mask(*shape: int, choices: tuple[int, ...]) -> Tensor:
    """A random mask ``[*shape, ΣK_d]`` that leaves each component a choice."""
    parts = []
    for count in choices:
        part = torch.rand(*shape, count) < 0.5
        parts.append(part.scatter(-1, torch.randint(count, (*shape, 1)), True))
    return torch.cat(parts, -1)


def replayed(
    spec: TeamSpec,
    size: int = 8,
    *,
    masks: bool = True,
    deaths: bool = False,
    dtype: torch.dtype = torch.float64,
) -> TensorDict:
    """A replay batch ``[size]``: legal actions; the dead have no legal choice."""

    def observed() -> dict[str, Any]:
        values: dict[str, Any] = {"state": torch.randn(size, spec.state_dim or 1, dtype=dtype)}
        for group, members in spec.groups.items():
            agent, n = spec.agents[members[0]], len(members)
            entry = {"observation": torch.randn(size, n, *agent.observation_shape, dtype=dtype)}
            mask = legal_mask(size, n, choices=agent.action.choices)
            if deaths:
                entry["alive"] = torch.rand(size, n, 1) < 0.6
                mask &= entry["alive"]
            if masks:
                entry["action_mask"] = mask
            values[group] = entry
        return values

    root = observed()
    for group, members in spec.groups.items():
        space, n = spec.agents[members[0]].action, len(members)
        mask = root[group].get("action_mask", torch.ones(size, n, space.width, dtype=torch.bool))
        scores = torch.rand(size, n, space.width).masked_fill(~mask, -1)
        parts = [part.argmax(-1) for part in scores.split(list(space.choices), -1)]
        root[group]["action"] = space.write(torch.stack(parts, -1))
    following = observed() | {
        "reward": torch.randn(size, 1, dtype=dtype),
        "terminated": torch.rand(size, 1) < 0.4,
    }
    steps = torch.randint(1, 4, (size, 1))
    return TensorDict(root | {"next": following, "steps_to_next_obs": steps}, [size])


class ChoosingEnv(HybridEnv):
    """``HybridEnv`` without its continuous agents: every illegal action is an error."""

    GROUPS: ClassVar = {"valve": 1, "panel": 2}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.group_map = {"valve": ["valve"], "panel": ["panel_0", "panel_1"]}
        self.agent_names = ["panel_0", "valve", "panel_1"]
