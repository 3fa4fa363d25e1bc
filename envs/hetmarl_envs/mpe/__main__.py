"""``python -m hetmarl_envs.mpe`` prints all scenarios, ``... simple_tag`` the options of one."""

from __future__ import annotations

import sys

from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ContractError
from hetmarl_envs.mpe import SCENARIOS, MPEEnv, scenario_options

SHARED = ("max_cycles", "continuous_actions", "dynamic_rescaling")


def scenario_table() -> str:
    """A Markdown table of all scenarios as built with default options."""
    rows = [
        "| task | groups: agents (observation, choices, real actions) | teams | its own options |",
        "|---|---|---|---|",
    ]
    for name in SCENARIOS:
        opposed = ""
        try:
            env = MPEEnv(name)
        except ContractError:
            env, opposed = MPEEnv(name, team_reward="sum"), "opposed"
        real = TeamSpec.from_env(MPEEnv(name, team_reward="sum", continuous_actions=True)).agents
        groups = []
        for group, names in env.group_map.items():
            agent, twin = (
                next(agent for agent in agents if agent.group == group)
                for agents in (TeamSpec.from_env(env).agents, real)
            )
            sizes = (agent.observation_shape[0], agent.action.choices[0], twin.action.dim)
            groups.append(f"{group}: {len(names)} {sizes}")
        options = [f"`{key}`" for key in scenario_options(name) if key not in SHARED]
        rows.append(f"| `mpe/{name}` | {' · '.join(groups)} | {opposed} | {', '.join(options)} |")
    return "\n".join(rows)


def main(arguments: list[str]) -> None:
    """Prints the table, or the options of the scenarios that are named."""
    if not arguments:
        print(scenario_table())
    for name in arguments:
        for option, default in scenario_options(name).items():
            print(f"{option} = {default}")


if __name__ == "__main__":
    main(sys.argv[1:])
