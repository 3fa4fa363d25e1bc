"""``hetmarl <command>``."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "trains a team: hetmarl train algo=hasac task=mamujoco/ant_2x4",
    "evaluate": "episodes of a trained team, as JSON: hetmarl evaluate <run_dir> episodes=20",
    "render": "films a trained team: hetmarl render <run_dir> out=team.gif",
    "plot": "draws learning curves: hetmarl plot <run_dir>... out=curves.png",
    "list": "what there is: hetmarl list algos|tasks [pattern]",
    "doctor": "versions, what is installed, which tasks work: hetmarl doctor [family]",
    "sc2sim": "a simulated StarCraft II for the tasks smacv2/...: hetmarl sc2sim install <dir>",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the arguments name; exits with 2 where they make no sense."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return
    command, *rest = given
    if command == "--version":
        from hetmarl import __version__

        print(__version__)
        return
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.5)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        print(f"hetmarl: unknown command '{command}'.{hint}\n\n{usage()}", file=sys.stderr)
        raise SystemExit(2)
    try:
        importlib.import_module(f"hetmarl.cli.{command}").main(rest)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def usage() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: hetmarl <command> [arguments]", "", *lines])


if __name__ == "__main__":
    main()
