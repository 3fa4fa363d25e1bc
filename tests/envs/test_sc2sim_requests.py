"""Requests of the protocol around a game: restart, leave, replay, maps, random seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hetmarl_envs.sc2sim import SIMULATED
from hetmarl_envs.sc2sim.scenarios import SCENARIOS

from .sc2_client import Client

pb = pytest.importorskip(
    "s2clientprotocol.sc2api_pb2", reason="the protocol's messages: pip install pys2clientprotocol"
)
common = pytest.importorskip("s2clientprotocol.common_pb2")
raw = pytest.importorskip("s2clientprotocol.raw_pb2")


def begin(client: Client, name: str, **settings: Any) -> None:
    game = pb.RequestCreateGame(
        local_map=pb.LocalMap(map_path=f"SMAC_Maps/{name}.SC2Map"), **settings
    )
    created = client.send(create_game=game)
    assert not created.create_game.HasField("error") and created.status == pb.init_game
    joined = client.send(join_game=pb.RequestJoinGame(race=common.Terran))
    assert joined.status == pb.in_game


def step(client: Client, count: int) -> None:
    client.send(step=pb.RequestStep(count=count))


def places(client: Client) -> list[tuple[int, int, float, float, float]]:
    """Whose, of which type, where, and its life, of every unit."""
    seen = client.send(observation=pb.RequestObservation()).observation.observation
    return [
        (u.owner, u.unit_type, u.pos.x, u.pos.y, u.health + u.shield) for u in seen.raw_data.units
    ]


def test_a_game_is_restarted_where_it_began(client: Client) -> None:
    early = client.send(restart_game=pb.RequestRestartGame())
    assert "needs a running game" in early.error[0]
    begin(client, "3s5z")
    first = places(client)
    step(client, 60)
    assert places(client) != first, "the opponent marches"
    again = client.send(restart_game=pb.RequestRestartGame())
    assert not again.error and again.HasField("restart_game")
    assert again.status == pb.in_game
    assert places(client) == first
    step(client, 8)
    assert len(places(client)) == len(first)


def test_who_leaves_a_game_can_begin_another(client: Client) -> None:
    begin(client, "3m")
    left = client.send(leave_game=pb.RequestLeaveGame())
    assert left.HasField("leave_game") and left.status == pb.launched
    gone = client.send(observation=pb.RequestObservation())
    assert "needs a running game; the status is launched" in gone.error[0]
    begin(client, "2s_vs_1sc")
    assert [owner for owner, *_ in places(client)] == [1, 1, 2]


def test_there_are_no_replays_and_the_answer_says_so(client: Client) -> None:
    begin(client, "3m")
    step(client, 8)
    before = places(client)
    saved = client.send(save_replay=pb.RequestSaveReplay())
    assert saved.save_replay.data.decode().startswith(SIMULATED)
    assert not saved.error and saved.status == pb.in_game
    assert places(client) == before, "the game goes on"


def test_maps_are_those_that_can_be_created(client: Client, root: Path) -> None:
    answer = client.send(available_maps=pb.RequestAvailableMaps())
    assert answer.status == pb.launched, "no game is needed"
    paths = list(answer.available_maps.local_map_paths)
    assert sorted(path.split("/")[-1] for path in paths) == sorted(f"{n}.SC2Map" for n in SCENARIOS)
    assert all((root / "Maps" / path).is_file() for path in paths)


def test_battles_follow_from_the_random_seed(client: Client) -> None:
    """By the weapons' delays, which it draws."""

    def battle(seed: int) -> list[Any]:
        begin(client, "3m", random_seed=seed)
        seen = client.send(observation=pb.RequestObservation()).observation.observation
        mine = [unit.tag for unit in seen.raw_data.units if unit.owner == 1]
        (foe, *_) = (unit.tag for unit in seen.raw_data.units if unit.owner == 2)
        order = raw.ActionRawUnitCommand(ability_id=23, unit_tags=mine, target_unit_tag=foe)
        action = pb.Action(action_raw=raw.ActionRaw(unit_command=order))
        client.send(action=pb.RequestAction(actions=[action]))
        course = []
        for _ in range(30):
            step(client, 4)
            course.append(places(client))
        client.send(leave_game=pb.RequestLeaveGame())
        return course

    first, again, other = battle(5), battle(5), battle(6)
    assert first == again
    assert first != other
