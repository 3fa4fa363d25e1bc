"""``python -m hetmarl_envs.sc2sim -listen 127.0.0.1 -port 5000``: the simulated game."""

from hetmarl_envs.sc2sim.server import main

if __name__ == "__main__":
    main()
