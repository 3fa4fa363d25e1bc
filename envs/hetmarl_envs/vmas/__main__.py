"""``python -m hetmarl_envs.vmas`` prints all scenarios, ``… balance`` the options of one."""

from __future__ import annotations

import sys

from hetmarl_envs.contract import TeamSpec
from hetmarl_envs.errors import ContractError
from hetmarl_envs.vmas import VMASEnv, scenario_names, scenario_options


def scenario_table() -> str:
    """A Markdown table of all scenarios with their groups, as built with default options."""
    rows = [
        "| task | groups: agents (observation, action) | unequal | teams |",
        "|---|---|---|---|",
    ]
    for name in scenario_names():
        opposed = ""
        try:
            env = VMASEnv(name)
        except ContractError:
            env, opposed = VMASEnv(name, team_reward="mean"), "opposed"
        agents = TeamSpec.from_env(env).agents
        groups = []
        for group, names in env.group_map.items():
            agent = next(agent for agent in agents if agent.group == group)
            sizes = f"({agent.observation_shape[0]}, {agent.action.dim})"
            groups.append(f"{group}: {len(names)} {sizes}")
        unequal = "yes" if len(groups) > 1 else ""
        rows.append(f"| `vmas/{name}` | {' · '.join(groups)} | {unequal} | {opposed} |")
    return "\n".join(rows)


def main(arguments: list[str]) -> None:
    """Prints the table, or the options of the scenarios that are named."""
    if not arguments:
        print(scenario_table())
    for name in arguments:
        for option, default in scenario_options(name).items():
            print(f"{option} = {default}" if default else option)


if __name__ == "__main__":
    main(sys.argv[1:])
