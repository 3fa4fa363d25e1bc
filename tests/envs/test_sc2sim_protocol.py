"""The simulated game's protocol, driven over a websocket with bare messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hetmarl_envs.sc2sim import SIMULATED

from .sc2_client import Client, Server

pb = pytest.importorskip(
    "s2clientprotocol.sc2api_pb2", reason="the protocol's messages: pip install pys2clientprotocol"
)
common = pytest.importorskip("s2clientprotocol.common_pb2")
debug = pytest.importorskip("s2clientprotocol.debug_pb2")
raw = pytest.importorskip("s2clientprotocol.raw_pb2")


def create(client: Client, name: str) -> object:
    game = pb.RequestCreateGame(
        local_map=pb.LocalMap(map_path=f"SMAC_Maps/{name}.SC2Map", map_data=b"x" * 70_000)
    )
    game.player_setup.add(type=pb.Participant)
    game.player_setup.add(type=pb.Computer, race=common.Terran, difficulty=pb.VeryHard)
    return client.send(create_game=game)


def begin(client: Client, name: str) -> None:
    assert not create(client, name).create_game.HasField("error")  # type: ignore[attr-defined]
    options = pb.InterfaceOptions(raw=True)
    joined = client.send(join_game=pb.RequestJoinGame(race=common.Terran, options=options))
    assert joined.join_game.player_id == 1
    assert joined.status == pb.in_game


def units(client: Client) -> list[object]:
    answer = client.send(observation=pb.RequestObservation())
    return list(answer.observation.observation.raw_data.units)


def command(client: Client, ability: int, tags: list[int], **target: object) -> list[int]:
    order = raw.ActionRawUnitCommand(ability_id=ability, unit_tags=tags, **target)
    action = pb.Action(action_raw=raw.ActionRaw(unit_command=order))
    answer = client.send(action=pb.RequestAction(actions=[action]))
    return list(answer.action.result)


def test_a_whole_game(client: Client) -> None:
    ping = client.send(ping=pb.RequestPing())
    assert ping.status == pb.launched
    assert "simulated" in ping.ping.game_version
    begin(client, "3m")

    info = client.send(game_info=pb.RequestGameInfo()).game_info
    assert (info.start_raw.map_size.x, info.start_raw.map_size.y) == (32, 32)
    area = info.start_raw.playable_area
    assert (area.p0.x, area.p0.y, area.p1.x, area.p1.y) == (0, 0, 32, 32)
    assert len(info.start_raw.pathing_grid.data) == 32 * 32 // 8
    assert len(info.start_raw.terrain_height.data) == 32 * 32

    first = units(client)
    assert [unit.owner for unit in first] == [1, 1, 1, 2, 2, 2]
    assert {unit.unit_type for unit in first if unit.owner == 2} == {48}
    assert {(unit.health, unit.health_max, unit.shield_max) for unit in first} == {(45, 45, 0)}
    mine = [unit.tag for unit in first if unit.owner == 1]
    step = client.send(step=pb.RequestStep(count=8))
    assert step.step.simulation_loop == 8
    after = units(client)
    assert after[3].pos.x < first[3].pos.x, "the opponent marches"
    assert [unit.pos.x for unit in after[:3]] == [unit.pos.x for unit in first[:3]]

    point = common.Point2D(x=first[0].pos.x, y=first[0].pos.y + 2)
    assert command(client, 16, mine[:1], target_world_space_pos=point) == [1]
    assert command(client, 23, mine[1:], target_unit_tag=first[3].tag) == [1]
    client.send(step=pb.RequestStep(count=16))
    moved = units(client)
    assert moved[0].pos.y == pytest.approx(first[0].pos.y + 2, abs=0.1)
    assert moved[1].pos.x > first[1].pos.x + 1
    assert command(client, 4, mine) == [1]
    assert command(client, 9999, mine) != [1], "an ability that it does not know"
    for _ in range(40):
        client.send(step=pb.RequestStep(count=8))
        if len(units(client)) < 6:
            break
    assert len(units(client)) < 6, "somebody dies"


def test_killed_units_come_back_as_on_the_maps(client: Client) -> None:
    begin(client, "3s5z")
    before = units(client)
    kill = debug.DebugCommand(kill_unit=debug.DebugKillUnit(tag=[unit.tag for unit in before]))
    client.send(debug=pb.RequestDebug(debug=[kill]))
    client.send(step=pb.RequestStep(count=2))
    assert units(client) == []
    client.send(step=pb.RequestStep(count=1))
    again = units(client)
    assert len(again) == 16
    assert not {unit.tag for unit in again} & {unit.tag for unit in before}
    places = [[(unit.unit_type, unit.pos.x) for unit in seen if unit.owner == 1]
              for seen in (before, again)]  # fmt: skip
    assert places[0] == places[1]


def test_units_are_created_by_debug_commands(client: Client) -> None:
    begin(client, "32x32_flat")
    client.send(step=pb.RequestStep(count=10))
    assert units(client) == []
    data = client.send(data=pb.RequestData(unit_type_id=True)).data
    ids = [unit.unit_id for unit in data.units]
    assert ids == list(range(len(ids))), "clients count back from the end"
    names = {unit.unit_id: unit.name for unit in data.units}
    assert names[len(ids) - 9] == "Baneling" and names[len(ids) - 1] == "Zergling"
    made = [
        debug.DebugCommand(
            create_unit=debug.DebugCreateUnit(
                unit_type=kind, owner=owner, quantity=1, pos=common.Point2D(x=16, y=16)
            )
        )
        for kind, owner in ((len(ids) - 4, 1), (54, 2))
    ]
    client.send(debug=pb.RequestDebug(debug=made))
    client.send(step=pb.RequestStep(count=1))
    medivac, enemy = units(client)
    assert (medivac.owner, medivac.energy_max, medivac.is_flying) == (1, 200, True)
    assert medivac.health_max == enemy.health_max == 150


def test_mistakes_are_answered_not_fatal(client: Client) -> None:
    early = client.send(step=pb.RequestStep(count=1))
    assert "needs a running game" in early.error[0] and early.status == pb.launched
    unknown = create(client, "no_such_map")
    assert unknown.create_game.error == pb.ResponseCreateGame.InvalidMapPath  # type: ignore[attr-defined]
    assert "3s5z" in unknown.create_game.error_details  # type: ignore[attr-defined]
    joined = client.send(join_game=pb.RequestJoinGame(race=common.Terran))
    assert joined.join_game.HasField("error")
    replay = client.send(replay_info=pb.RequestReplayInfo())
    assert "does not answer 'replay_info'" in replay.error[0]
    client.frame(b"\xff\xff\xff\xff")
    answer = pb.Response.FromString(client.read()[1])
    assert "not a Request" in answer.error[0] and answer.HasField("status")
    begin(client, "3m")


def test_frames_of_every_kind(client: Client) -> None:
    message = pb.Request(id=7, ping=pb.RequestPing()).SerializeToString()
    client.frame(message[:1], kind=2, final=False)
    client.frame(b"are you there?", kind=9)
    assert client.read() == (10, b"are you there?"), "a pong between the fragments"
    client.frame(message[1:], kind=0)
    assert pb.Response.FromString(client.read()[1]).ping.game_version == SIMULATED
    client.frame(b"\x03\xe8", kind=8)
    assert client.read() == (8, b"\x03\xe8")


def test_the_server_ends_when_told_and_when_its_client_is_gone(root: Path) -> None:
    with Server(root) as server:
        with server.connect() as stranger:
            assert Client(stranger, path="/elsewhere").status == 404
        with server.connect() as connection:
            Client(connection).send(ping=pb.RequestPing())
        assert server.process.wait(5) == 0
    with Server(root) as server, server.connect() as connection:
        client = Client(connection)
        begin(client, "3m")
        assert client.send(quit=pb.RequestQuit()).status == pb.quit
        assert server.process.wait(5) == 0
    with Server(root) as server, server.connect():
        server.process.terminate()
        assert server.process.wait(5) == 0


def test_the_server_ignores_what_it_was_started_to_ignore(root: Path) -> None:
    """SIGTERM to a whole job does not end games that are still needed."""
    starter = ("sh", "-c", 'trap "" TERM; exec "$@"', "sh")
    with Server(root, prefix=starter) as server, server.connect() as connection:
        client = Client(connection)
        server.process.terminate()
        assert client.send(ping=pb.RequestPing()).status == pb.launched
        client.send(quit=pb.RequestQuit())
        assert server.process.wait(5) == 0


@pytest.mark.slow
def test_the_server_ends_with_whoever_started_it(root: Path) -> None:
    """A shell starts it in the background and dies: nobody is left to end it."""
    starter = ("sh", "-c", '"$@" & wait', "sh")
    with Server(root, prefix=starter) as server, server.connect() as connection:
        client = Client(connection)
        client.send(ping=pb.RequestPing())
        server.process.kill()
        server.process.wait()
        connection.settimeout(10.0)
        with pytest.raises((EOFError, ConnectionError)):
            client.read()


def test_a_game_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, hetmarl_envs.sc2sim.server as s; print('torch' in sys.modules, end=' ');"
    code += "print('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
