"""A simulated StarCraft II server: ours alone, never to be mistaken for the game.

It speaks the game's own protocol, so that ``smacv2`` runs on it unchanged, on any machine and in
seconds: for tests, for learning to use the environments, for comparing algorithms with one another.
Its fights follow the public statistics of the units and nothing else of the game; what is measured
on it is never a result on StarCraft II, and says so.

A game is a process of its own that imports neither torch nor numpy.
"""

from __future__ import annotations

SIMULATED = "sc2sim (simulated, not StarCraft II)"
"""What the server calls itself where the game gives its version."""

SEED_TEXT = "sc2sim seed "
"""A text drawn by a debug command that begins like this seeds the random delays; a real game draws
it where nobody sees it."""
