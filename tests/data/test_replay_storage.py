"""Where a replay lies, what it says it takes, and when it is refused."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from rich.console import Console

from hetmarl.data import Replay, ReplayDataConfig
from hetmarl.data.replay import Priorities, free_memory, storage
from hetmarl.data.replay_data import ReplayBatch
from hetmarl.lightning import TeamProgressBar, quiet_lightning
from hetmarl_envs.errors import ConfigError
from tests.data.stories import NUM_ENVS, Story
from tests.resume.runs import MUJOCO, STEPS, difference, interrupt, train, visible
from tests.teams import UNEQUAL

FRAME = 4 * (5 + 2 * 3 + 4) + 3 + 4 * 5 + 4 + 1 + 4
FRAMES = NUM_ENVS * (20 + 12 + 1)


def build(**settings: Any) -> Replay:
    return Replay(Story().chunk(4), UNEQUAL, 20 * NUM_ENVS, spare=12, **settings)


# ---------------------------------------------------------------------- what is said
@pytest.mark.parametrize("disk", [False, True])
def test_says_what_it_takes_before_it_takes_it(disk: bool, tmp_path: Path) -> None:
    told = []

    def tell(line: str) -> None:
        told.append(line)
        assert not any(tmp_path.iterdir())

    replay = build(tell=tell, directory=tmp_path / "r" if disk else None)
    where = rf"on disk, in {tmp_path}/r" if disk else "in the memory of cpu"
    assert told == [
        f"Replay: {FRAMES * FRAME / 1e6:.2f} MB {where} ({FRAMES} frames of {FRAME} bytes, and 63 "
        "bytes for each end of an episode in it)."
    ]
    if not disk:
        rows = [array for array, _ in replay._named().values()] + [replay._final_at]
        assert sum(array.nbytes for array in rows) == FRAMES * FRAME


def test_priorities_are_counted() -> None:
    replay = build(priority_alpha=0.5)
    assert replay.need.frame_bytes == FRAME + 8
    assert replay._priorities is not None
    # a tree of many frames takes little more than its leaves
    assert Priorities(10**6, 0.5).nbytes < 1.05 * 8 * 10**6


# ---------------------------------------------------------------------- what is refused
def test_memory_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    size = FRAMES * FRAME
    monkeypatch.setattr(storage, "free_memory", lambda device: size)
    build()
    monkeypatch.setattr(storage, "free_memory", lambda device: size - 1)
    told: list[str] = []
    message = (
        rf"will take 0\.01 MB of memory \({FRAMES} frames of {FRAME} bytes\), and cpu has "
        r"0\.01 MB free\. Set a smaller data\.buffer_size, data\.storage=disk\.$"
    )
    with pytest.raises(ConfigError, match=message):
        build(tell=told.append)
    assert len(told) == 1
    build(total_steps=20)  # what is never written takes none
    with pytest.raises(ConfigError, match=rf"{FRAMES} frames .* in each of 2 processes"):
        build(local_processes=2)
    monkeypatch.setattr(storage, "free_memory", lambda device: None)
    build()


def test_a_gpu_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free, and reserved by torch but not used; there all of it is allocated at once."""
    need = storage.Need(1000, 100, 10, processes=4, local_processes=4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60_000, 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10_000)
    place = storage.Storage(torch.device("cuda:1"))
    assert free_memory(torch.device("cuda:1")) == 100_000
    need.check(place)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10_001)
    with pytest.raises(ConfigError, match=r"cuda:1 has 0\.10 MB free\. .*storage=disk or memory"):
        need.check(place)


def test_memory_of_this_machine() -> None:
    free = free_memory(torch.device("cpu"))
    assert free is not None
    assert 10**7 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free_memory(torch.device("meta")) is None


def test_memory_of_a_container(tmp_path: Path) -> None:
    """The least of the limits on the way up; files' pages count as free."""
    me = tmp_path / "cgroup"
    me.write_text("4:memory:/old\n0::/job/step\n")
    found = {
        "job": (1000, 700, "anon 400\nfile 200\nshmem 50\n"),  # 1000 − 700 + 200 − 50
        "job/step": ("max", 700, "anon 400\n"),
    }
    for name, (limit, used, kinds) in found.items():
        group = tmp_path / "root" / name
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(kinds)
    assert storage._control_group(tmp_path / "root", me) == 450
    (tmp_path / "root" / "job" / "step" / "memory.max").write_text("800\n")
    assert storage._control_group(tmp_path / "root", me) == 100
    me.write_text("4:memory:/old\n")
    assert storage._control_group(tmp_path / "root", me) is None


# ---------------------------------------------------------------------- where it lies
def test_on_another_device_than_the_environments() -> None:
    replay = build(device="meta", priority_alpha=0.5)
    arrays = [array for array, _ in replay._named().values()]
    assert {array.device.type for array in arrays} == {"meta"} == {replay.device.type}
    assert build().device.type == "cpu"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"storage": "gpu"}, r"storage='gpu': expected 'disk', 'memory' or 'device'"),
        ({"priority_alpha": -0.1}, r"priority_alpha=-0\.1, data\.priority_beta=0\.4: expected"),
        ({"priority_alpha": float("inf")}, r"priority_alpha=inf, .*: expected"),
        ({"priority_beta": 1.5}, r"priority_beta=1\.5: expected 0 or more, and 0 to 1"),
    ],
)
def test_settings_that_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReplayDataConfig(**setting)


@pytest.mark.parametrize("saved", ["memory", "disk"])
def test_another_storage_than_the_checkpoints(saved: str, tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {"memory": {}, "disk": {"directory": tmp_path / "r"}}
    state = build(**kinds[saved]).state_dict()
    other = "disk" if saved == "memory" else "memory"
    with pytest.raises(ConfigError, match=f"kept in {saved} and this run's .* in {other}. Resume"):
        build(**kinds[other]).load_state_dict(state)


# ---------------------------------------------------------------------- in a run
BY_PRIORITY = {"priority_alpha": 0.6}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["device", "disk"])
def test_a_run_says_it_once_and_resumes(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet_lightning()
    settings: dict[str, Any] = {"storage": kind, "data_config": BY_PRIORITY, "iterations": 6}
    _, module, data = train(tmp_path / "whole", MUJOCO, **settings)
    said = [row for row in capsys.readouterr().out.splitlines() if row.startswith("Replay: ")]
    assert len(said) == 1
    frame = data.replay.need.frame_bytes
    where = "in the memory of cpu" if kind == "device" else f"on disk, in {tmp_path}"
    assert where in said[0] and f"of {frame} bytes" in said[0]
    # observations come from the state: eleven numbers, three actions
    assert frame == 4 * (11 + 3 + 1) + 1 + 4 + (8 if kind == "device" else 0)
    interrupt(tmp_path / "part", MUJOCO, 5, **settings)
    _, again, more = train(tmp_path / "part", MUJOCO, resume=True, **settings)
    assert difference(module.state_dict(), again.state_dict()) == ""
    assert difference(visible(data), visible(more)) == ""
    states = [d.replay._priorities.state_dict() for d in (data, more)]
    assert difference(*states) == ""
    assert len(states[0]["sums"][0].unique()) > 5  # the algorithm gave its errors back


def test_memory_needs_no_room_to_go_back(tmp_path: Path) -> None:
    """A checkpoint has a copy; however long the run, there is one iteration more than is drawn."""
    quiet_lightning()
    options: dict[str, Any] = {"iterations": 4, "evaluate_every": 4, "storage": "memory"}
    _, _, data = train(tmp_path, MUJOCO, **options)
    assert data.replay.slots == data.replay.capacity + STEPS + 1


def test_said_where_the_progress_is_shown(tmp_path: Path) -> None:
    quiet_lightning()
    text = io.StringIO()
    bar = TeamProgressBar(console=Console(file=text))
    train(tmp_path, MUJOCO, iterations=1, callbacks=(bar,), enable_progress_bar=True)
    said = [row for row in text.getvalue().splitlines() if row.startswith("Replay: ")]
    assert len(said) == 1 and "bytes for each end of an episode in it)." in said[0]


class Look(Callback):
    """Looks at the batches of a run that follow its warm-up."""

    def __init__(self, look: Callable[[ReplayBatch], None]) -> None:
        self.look = look

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if batch.learning_steps:
            self.look(batch)


def test_what_a_batch_offers(tmp_path: Path) -> None:
    """By priority: weights that correct more and more, and somewhere to leave the errors."""
    quiet_lightning()
    betas = []

    def look(batch: ReplayBatch) -> None:
        assert batch.update_priority is not None
        drawn = batch.sample(8, n_step=2, gamma=0.9)
        batch.update_priority(drawn["index"], torch.arange(8.0)[:, None])
        weight = batch.sample(200)["priority_weight"].flatten()
        assert weight.max() <= 1 and len(weight.unique()) > 3
        betas.append(batch.sample.keywords["beta"])

    settings = BY_PRIORITY | {"priority_beta": 0.2}
    options: dict[str, Any] = {"iterations": 5, "data_config": settings}
    train(tmp_path / "a", MUJOCO, callbacks=(Look(look),), **options)
    assert betas == pytest.approx([0.6, 0.8, 1.0])  # two of five iterations are warm-up

    def look_at_plain(batch: ReplayBatch) -> None:
        assert batch.update_priority is None
        assert "priority_weight" not in batch.sample(4, n_step=2, gamma=0.9).keys()
        assert batch.sample_sequences(4, 3, 1, n_step=2, gamma=0.9).shape == (4, 4)

    train(tmp_path / "b", MUJOCO, iterations=3, callbacks=(Look(look_at_plain),))
