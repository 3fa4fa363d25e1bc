"""The game behind the protocol: requests in, responses out, no transport."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from s2clientprotocol import debug_pb2, error_pb2, sc2api_pb2

from hetmarl_envs.sc2sim import SEED_TEXT, SIMULATED
from hetmarl_envs.sc2sim.messages import fill_unit, map_info, type_data
from hetmarl_envs.sc2sim.opponent import hunt, march
from hetmarl_envs.sc2sim.scenarios import FLAT_MAP, SCENARIOS, SIZE, Scenario
from hetmarl_envs.sc2sim.units import UNITS, UnitType
from hetmarl_envs.sc2sim.world import Order, World

MOVE, ATTACK, STOP, HEAL = 16, 23, 4, 386
"""The abilities that SMAC's client uses."""
AGENTS, OPPONENT = 1, 2
RESPAWN = 3
"""Loops that a map of SMAC's stays empty before its units come back."""


class Game:
    """Answers requests as the game would; one player, and a scripted opponent.

    ``respond`` never raises: what it does not know is an ``error`` in the response.
    """

    def __init__(self) -> None:
        self.status = sc2api_pb2.launched
        self.delays = random.Random(0)
        self.world = World(SIZE, SIZE, delays=self.delays)
        self.scenario: Scenario | None = None
        self._types: dict[int, UnitType] = {}
        self._empty = 0
        self._requests: dict[str, Callable[[Any, Any], None]] = {
            "create_game": self._create_game,
            "join_game": self._join_game,
            "restart_game": self._restart_game,
            "leave_game": self._leave_game,
            "game_info": self._game_info,
            "data": self._data,
            "observation": self._observation,
            "action": self._action,
            "step": self._step,
            "debug": self._debug,
            "save_replay": self._save_replay,
            "available_maps": self._available_maps,
            "quit": self._quit,
            "ping": self._ping,
        }

    @property
    def over(self) -> bool:
        """Whether the client asked to quit."""
        return bool(self.status == sc2api_pb2.quit)

    def respond(self, message: bytes) -> bytes:
        """A ``Request`` to its ``Response``, both serialised."""
        response = sc2api_pb2.Response()
        try:
            request = sc2api_pb2.Request.FromString(message)
        except Exception as error:  # whatever the protobuf in use raises for bytes of another kind
            response.error.append(f"not a Request: {error}")
            response.status = self.status
            return response.SerializeToString()
        name = request.WhichOneof("request")
        response.id = request.id
        if name not in self._requests:
            response.error.append(f"{SIMULATED} does not answer '{name}' requests")
        elif name in _IN_GAME and self.status != sc2api_pb2.in_game:
            state = sc2api_pb2.Status.Name(self.status)
            response.error.append(f"'{name}' needs a running game; the status is {state}")
        else:
            answer = getattr(response, name)
            answer.SetInParent()
            self._requests[name](getattr(request, name), answer)
        response.status = self.status
        return response.SerializeToString()

    # ------------------------------------------------------------------ before and after
    def _create_game(self, request: Any, response: Any) -> None:
        name = PurePath(request.local_map.map_path.replace("\\", "/")).stem
        if name not in SCENARIOS:
            response.error = sc2api_pb2.ResponseCreateGame.InvalidMapPath
            response.error_details = f"unknown map '{name}'; known: {', '.join(SCENARIOS)}"
            return
        self.scenario = SCENARIOS[name]
        self.world.brain = hunt if name == FLAT_MAP else march
        if request.HasField("random_seed"):
            self.delays.seed(request.random_seed)
        self.status = sc2api_pb2.init_game

    def _join_game(self, request: Any, response: Any) -> None:
        if self.scenario is None:
            response.error = sc2api_pb2.ResponseJoinGame.GameFull
            response.error_details = "create a game first"
            return
        response.player_id = AGENTS
        types = [*UNITS.values(), *self.scenario.agent_types.values()]
        self._types = {kind.type_id: kind for kind in types}
        self._begin()
        self.status = sc2api_pb2.in_game

    def _begin(self) -> None:
        """The map's own units where it has some."""
        assert self.scenario is not None
        self.world.kill(unit.tag for unit in self.world.units)
        self._empty = 0
        agents = self.scenario.agent_types
        sides = ((AGENTS, self.scenario.agents, agents), (OPPONENT, self.scenario.enemies, UNITS))
        for owner, squads, types in sides:
            for squad in squads:
                for _ in range(squad.count):
                    unit = self.world.spawn(types[squad.name], owner, squad.x, squad.y)
                    unit.goal = self.scenario.goal if owner == OPPONENT else None

    def _restart_game(self, request: Any, response: Any) -> None:
        self._begin()

    def _leave_game(self, request: Any, response: Any) -> None:
        self.status = sc2api_pb2.launched

    def _quit(self, request: Any, response: Any) -> None:
        self.status = sc2api_pb2.quit

    def _ping(self, request: Any, response: Any) -> None:
        response.game_version = SIMULATED

    # ------------------------------------------------------------------ what there is
    def _game_info(self, request: Any, response: Any) -> None:
        assert self.scenario is not None
        response.map_name = self.scenario.name
        for player in (AGENTS, OPPONENT):
            kind = sc2api_pb2.Participant if player == AGENTS else sc2api_pb2.Computer
            response.player_info.add(player_id=player, type=kind)
        response.options.raw = True
        map_info(response.start_raw, SIZE)

    def _data(self, request: Any, response: Any) -> None:
        assert self.scenario is not None
        type_data(response, self._types)

    def _available_maps(self, request: Any, response: Any) -> None:
        response.local_map_paths.extend(f"SMAC_Maps/{name}.SC2Map" for name in SCENARIOS)

    def _observation(self, request: Any, response: Any) -> None:
        observation = response.observation
        observation.game_loop = self.world.loop
        observation.player_common.player_id = AGENTS
        units = observation.raw_data.units
        for unit in self.world.units:
            fill_unit(units.add(), unit)

    def _save_replay(self, request: Any, response: Any) -> None:
        response.data = f"{SIMULATED}: no replays\n".encode()

    # ------------------------------------------------------------------ what happens
    def _step(self, request: Any, response: Any) -> None:
        for _ in range(request.count or 1):
            self._empty = 0 if self.world.units else self._empty + 1
            if self._empty == RESPAWN:  # the maps' own trigger; on the flat one it creates nobody
                self._begin()
            self.world.step(1)
        response.simulation_loop = self.world.loop

    def _action(self, request: Any, response: Any) -> None:
        for action in request.actions:
            command = action.action_raw.unit_command
            known = self._command(command)
            response.result.append(error_pb2.Success if known else error_pb2.NotSupported)

    def _command(self, command: Any) -> bool:
        order = None
        if command.ability_id in (ATTACK, HEAL):
            target = self.world.find(command.target_unit_tag)
            kind = "attack" if command.ability_id == ATTACK else "heal"
            order = Order(kind, target=target) if target is not None else None
        elif command.ability_id == MOVE:
            point = command.target_world_space_pos
            order = Order("move", point.x, point.y)
        elif command.ability_id != STOP:
            return False
        for tag in command.unit_tags:
            unit = self.world.find(tag)
            if unit is not None and unit.owner == AGENTS:
                unit.order = order
        return True

    def _debug(self, request: Any, response: Any) -> None:
        for command in request.debug:
            if command.HasField("kill_unit"):
                self.world.kill(command.kill_unit.tag)
            elif command.HasField("create_unit"):
                self._create(command.create_unit)
            for text in command.draw.text:
                if text.text.startswith(SEED_TEXT):
                    self.delays.seed(text.text)

    def _create(self, command: debug_pb2.DebugCreateUnit) -> None:
        kind = self._types.get(command.unit_type)
        if kind is None:
            return  # as the game does with ids that it does not know
        for _ in range(command.quantity or 1):
            self.world.spawn(kind, command.owner, command.pos.x, command.pos.y)


_IN_GAME = ("game_info", "data", "observation", "action", "step", "debug", "restart_game")
