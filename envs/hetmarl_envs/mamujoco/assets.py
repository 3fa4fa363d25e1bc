"""MuJoCo models of the scenarios: gymnasium's own files, and the generated many-segment bodies."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mujoco

from hetmarl_envs.errors import MissingExtraError
from hetmarl_envs.mamujoco.library import quiet

_GYMNASIUM_FILES = {
    "Ant": "ant.xml",
    "HalfCheetah": "half_cheetah.xml",
    "Hopper": "hopper.xml",
    "Humanoid": "humanoid.xml",
    "HumanoidStandup": "humanoidstandup.xml",
    "InvertedDoublePendulum": "inverted_double_pendulum.xml",
    "InvertedPendulum": "inverted_pendulum.xml",
    "Pusher": "pusher_v5.xml",
    "Reacher": "reacher.xml",
    "Swimmer": "swimmer.xml",
    "Walker2d": "walker2d_v5.xml",
}
_MULTIAGENT_ASSETS = Path("envs", "multiagent_mujoco", "assets")


def load_model(scenario: str, segments: int | None = None) -> mujoco.MjModel:
    """Compiles the scenario's model, silently and without writing a file.

    Args:
        scenario: one of ``tasks.SCENARIOS``.
        segments: body segments of a many-segment scenario.
    """
    if scenario in _GYMNASIUM_FILES:
        path = _package("gymnasium") / "envs" / "mujoco" / "assets" / _GYMNASIUM_FILES[scenario]
        return _compile(path=path)
    assets = _package("gymnasium_robotics") / _MULTIAGENT_ASSETS
    if scenario == "CoupledHalfCheetah":
        return _compile(path=assets / "coupled_half_cheetah.xml")
    assert segments is not None
    if scenario == "ManySegmentAnt":
        body, actuators = _ant_segments(segments)
        template = assets / "many_segment_ant.xml.template"
    else:
        body, actuators = _swimmer_segments(segments)
        template = assets / "many_segment_swimmer.xml.template"
    xml = template.read_text().replace("{{ body }}", body).replace("{{ actuators }}", actuators)
    return _compile(xml=xml)


def _package(name: str) -> Path:
    """The folder of an installed package, found without importing it (which prints and is slow)."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"MAMuJoCo's models are in the package '{name}', not installed here: "
            "pip install gymnasium-robotics mujoco"
        )
    return Path(spec.origin).parent


def _compile(path: Path | None = None, xml: str = "") -> mujoco.MjModel:
    with quiet():  # half cheetahs use a compiler attribute that MuJoCo 4 warns of
        if path is not None:
            return mujoco.MjModel.from_xml_path(str(path))
        return mujoco.MjModel.from_xml_string(xml)


def _capsule(start: str, end: str, size: float, density: int | None = None) -> str:
    dense = "" if density is None else f'density="{density}" '
    return f'<geom {dense}type="capsule" fromto="{start} {end}" size="{size}"/>'


def _motor(joint: str) -> str:
    return f'<motor joint="{joint}" ctrllimited="true" ctrlrange="-1 1" gear="150"/>'


def _ant_segments(segments: int) -> tuple[str, str]:
    """Torsos 1, 2, ... one behind the other, each with a leg to either side; and all motors."""

    def leg(name: str, side: float, hip: str, ankle: str, axis: str) -> str:
        hinge = '<joint type="hinge" pos="0 0 0"'
        return (
            f'<body name="{name}" pos="0 0 0">{_capsule("0 0 0", f"0 {side} 0", 0.08)}'
            f'<body pos="0 {side} 0">{hinge} name="{hip}" axis="0 0 1" range="-30 30"/>'
            f"{_capsule('0 0 0', f'-0.2 {side} 0', 0.08)}"
            f'<body pos="-0.2 {side} 0">{hinge} name="{ankle}" axis="{axis}" range="-70 -30"/>'
            f"{_capsule('0 0 0', f'-0.4 {2 * side} 0', 0.08)}</body></body></body>"
        )

    body = ""
    for i in range(1, segments):
        body += (
            f'<body name="torso_{i}" pos="-1 0 0">'
            + _capsule("1 0 0", "0 0 0", 0.1, density=100)
            + leg(f"front_right_leg_{i}", 0.2, f"hip1_{i}", f"ankle1_{i}", "1 1 0")
            + leg(f"back_leg_{i}", -0.2, f"hip2_{i}", f"ankle2_{i}", "-1 1 0")
        )
    joints = [f"{j}_{i}" for i in range(segments) for j in ("hip1", "ankle1", "hip2", "ankle2")]
    return body + "</body>" * (segments - 1), "".join(map(_motor, joints))


def _swimmer_segments(segments: int) -> tuple[str, str]:
    """Links behind the first, the axis of every second one turned around but the last one's."""
    body = ""
    for i in range(1, segments):
        last = i == segments - 1
        name, axis = "back" if last else f"mid{i}", 1 if last or i % 2 else -1
        body += (
            f'<body name="{name}" pos="-1 0 0">'
            + _capsule("0 0 0", "-1 0 0", 0.1, density=1000)
            + f'<joint name="rot{i}" type="hinge" pos="0 0 0" axis="0 0 {axis}" limited="true" '
            'range="-100 100"/>'
        )
    motors = "".join(_motor(f"rot{i}") for i in range(segments))
    return body + "</body>" * (segments - 1), motors
