"""Which joint is where, and which joints are neighbours: the scenarios' bodies as graphs.

Joint tables, labels, edges and defaults are those of ``gymnasium_robotics.mamujoco_v1`` 1.4.2
(``obsk.py``), including what looks like oversights there, so that observations are equal;
``repair=True`` corrects those that point an agent to another's joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from hetmarl_envs.mamujoco.features import (
    COS,
    QPOS,
    QVEL,
    QVEL_CLIPPED,
    SIN,
    Block,
    Feature,
    clip_1,
    span,
)
from hetmarl_envs.mamujoco.simulator import Array


@dataclass(frozen=True, eq=False)
class Joint:
    """A joint, or a part of the body that belongs to nobody.

    Args:
        name: for partitions and for the order of observations.
        qpos, qvel: its place in mjData's arrays, None where it has none.
        actuator: its place among the controls, None for what no agent moves.
        bodies: ids of the bodies whose ``cinert``, ``cvel``, ``cfrc_ext`` count as its own.
        clip_bodies: those are clipped to [-1, 1].
        special: category to features that replace the plain ones.
        label: what the reference sorts by, where it differs from the name.
    """

    name: str
    qpos: int | None = None
    qvel: int | None = None
    actuator: int | None = None
    bodies: tuple[int, ...] = ()
    clip_bodies: bool = False
    special: Mapping[str, tuple[Feature, ...]] = field(default_factory=dict)
    label: str = ""

    @property
    def sort_key(self) -> tuple[str, int]:
        return (self.label or self.name, -1 if self.actuator is None else self.actuator)


@dataclass(frozen=True)
class Graph:
    """A scenario's joints in the reference's order, its hyperedges, and what all agents see."""

    joints: tuple[Joint, ...]
    edges: tuple[frozenset[Joint], ...]
    everyone: tuple[Joint, ...] = ()
    categories: tuple[tuple[str, ...], ...] = (("qpos", "qvel"), ("qpos",))
    partitions: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)

    def joint(self, name: str) -> Joint:
        return next(joint for joint in self.joints if joint.name == name)


def _row(names: str, first_actuator: int = 0) -> dict[str, Joint]:
    """Joints that are the last ones of qpos and qvel, with actuators in the same order."""
    split = names.split()
    return {
        name: Joint(name, i - len(split), i - len(split), first_actuator + i)
        for i, name in enumerate(split)
    }


def _edges(joints: Mapping[str, Joint], *edges: str) -> tuple[frozenset[Joint], ...]:
    return tuple(frozenset(joints[name] for name in edge.split()) for edge in edges)


def _unseen(name: str, index: int, **special: tuple[Feature, ...]) -> Joint:
    """A root joint whose position is not observed."""
    return Joint(name, index, index, special={"qpos": (), **special})


# What everyone sees of a body on a free joint: height, orientation and all velocities.
_FREE_ROOT = {"qpos": span(QPOS, 2, 7), "qvel": span(QVEL, 0, 6)}


def _half_cheetah() -> Graph:
    joints = _row("bthigh bshin bfoot fthigh fshin ffoot")
    return Graph(
        joints=tuple(joints.values()),
        edges=_edges(
            joints, "bfoot bshin", "bshin bthigh", "bthigh fthigh", "fthigh fshin", "fshin ffoot"
        ),
        everyone=(_unseen("root_x", 0), Joint("root_z", 1, 1), Joint("root_y", 2, 2)),
    )


def _ant() -> Graph:
    joints = {}
    # leg number: actuator of its hip, then its bodies: hip, auxiliary, ankle
    for leg, actuator, hip in ((1, 2, 2), (2, 4, 5), (3, 6, 8), (4, 0, 11)):
        at = 2 * leg - 10
        joints[f"hip{leg}"] = Joint(f"hip{leg}", at, at, actuator, (1, hip), True)
        bodies = (hip, hip + 1, hip + 2)
        joints[f"ankle{leg}"] = Joint(f"ankle{leg}", at + 1, at + 1, actuator + 1, bodies, True)
    order = "hip4 ankle4 hip1 ankle1 hip2 ankle2 hip3 ankle3".split()
    return Graph(
        joints=tuple(joints[name] for name in order),
        edges=_edges(
            joints,
            "ankle4 hip4",
            "ankle1 hip1",
            "ankle2 hip2",
            "ankle3 hip3",
            "hip4 hip1 hip2 hip3",
        ),
        everyone=(Joint("root", 0, 0, special=_FREE_ROOT),),
        categories=(("qpos", "qvel", "cfrc_ext"), ("qpos",)),
        partitions={
            "2x4": ["hip1 ankle1 hip2 ankle2".split(), "hip3 ankle3 hip4 ankle4".split()],
            "2x4d": ["hip1 ankle1 hip4 ankle4".split(), "hip2 ankle2 hip3 ankle3".split()],
            "4x2": [[f"hip{i}", f"ankle{i}"] for i in (1, 2, 3, 4)],
        },
    )


def _hopper() -> Graph:
    def clipped(joint: Joint) -> Joint:
        assert joint.qvel is not None
        return replace(joint, special={**joint.special, "qvel": ((QVEL_CLIPPED, joint.qvel),)})

    joints = {k: clipped(j) for k, j in _row("thigh_joint leg_joint foot_joint").items()}
    return Graph(
        joints=tuple(joints.values()),
        edges=_edges(joints, "foot_joint leg_joint", "leg_joint thigh_joint"),
        everyone=tuple(
            map(clipped, (_unseen("root_x", 0), Joint("root_z", 1, 1), Joint("root_y", 2, 2)))
        ),
    )


def _walker() -> Graph:
    right, left = "thigh_joint leg_joint foot_joint", "thigh_left_joint leg_left_joint"
    joints = _row(f"{right} {left} foot_left_joint")
    order = "foot_joint leg_joint thigh_joint foot_left_joint leg_left_joint thigh_left_joint"
    return Graph(
        joints=tuple(joints[name] for name in order.split()),
        edges=_edges(
            joints,
            "foot_joint leg_joint",
            "leg_joint thigh_joint",
            "foot_left_joint leg_left_joint",
            "leg_left_joint thigh_left_joint",
            "thigh_joint thigh_left_joint",
        ),
        everyone=(_unseen("root_x", 0), Joint("root_z", 1, 1), Joint("root_y", 2, 2)),
    )


def _humanoid() -> Graph:
    torso, waist, pelvis = 1, 2, 3
    legs = {"right": (4, 5, 6), "left": (7, 8, 9)}  # thigh, shin, foot
    arms = {"right": (10, 11), "left": (12, 13)}  # upper, lower
    bodies: dict[str, tuple[int, ...]] = {
        "abdomen_y": (torso, waist, pelvis),
        "abdomen_z": (torso, waist, pelvis),
        "abdomen_x": (pelvis, legs["right"][0], legs["left"][0]),
    }
    for side, (thigh, shin, foot) in legs.items():
        bodies |= {f"{side}_hip_{axis}": (thigh, shin) for axis in "xzy"}
        bodies[f"{side}_knee"] = (shin, foot)
    for side, (upper, lower) in arms.items():
        bodies |= {f"{side}_shoulder{i}": (torso, upper, lower) for i in (1, 2)}
        bodies[f"{side}_elbow"] = (lower,)
    joints = {k: replace(j, bodies=bodies[k]) for k, j in _row(" ".join(bodies)).items()}
    abdomen = "abdomen_x abdomen_y abdomen_z"
    edges = [abdomen]
    for side in ("right", "left"):
        hips = f"{side}_hip_x {side}_hip_y {side}_hip_z"
        shoulders = f"{side}_shoulder1 {side}_shoulder2"
        edges += [hips, f"{side}_elbow {shoulders}", f"{side}_knee {hips}"]
        edges += [f"{shoulders} {abdomen}", f"{abdomen} {hips}"]
    legs_order = [f"{s}_{j}" for s in legs for j in ("hip_x", "hip_y", "hip_z", "knee")]
    order = [*abdomen.split(), *legs_order, *list(bodies)[11:]]
    upper_body = [*order[:3], *order[11:]]
    return Graph(
        joints=tuple(joints[name] for name in order),
        edges=_edges(joints, *edges),
        everyone=(Joint("root", special=_FREE_ROOT),),
        categories=(
            ("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"),
            ("qpos",),
        ),
        partitions={"9|8": [upper_body, order[3:11]]},
    )


def tip_to_target(xpos: Array) -> Array:
    """Reacher: from the target (body 4) to the fingertip (body 3)."""
    return xpos[:, 3] - xpos[:, 4]


def _reacher() -> Graph:
    def joint(name: str, at: int, **special: tuple[Feature, ...]) -> Joint:
        angle = ((SIN, at), (COS, at))
        return Joint(name, at, at, at + 4, (at + 5, at + 6), special={"qpos": angle, **special})

    distance = span(Block("xpos", tip_to_target), 0, 3)
    joints = {"joint0": joint("joint0", -4), "joint1": joint("joint1", -3, fingertip_dist=distance)}
    return Graph(
        joints=tuple(joints.values()),
        edges=_edges(joints, "joint0 joint1"),
        everyone=(
            Joint("target_x", -2, -2, special={"qvel": ()}),
            Joint("target_y", -1, -1, special={"qvel": ()}),
        ),
        categories=(("qpos", "qvel", "fingertip_dist"), ("qpos",)),
    )


PUSHER_BODIES = {"tips_arm": 10, "object": 11, "goal": 12}
XPOS = Block("xpos")  # three numbers per body


def _pusher() -> Graph:
    names = (
        "r_shoulder_pan_joint r_shoulder_lift_joint r_upper_arm_roll_joint r_elbow_flex_joint "
        "r_forearm_roll_joint r_wrist_flex_joint r_wrist_roll_joint"
    ).split()
    joints = {name: Joint(name, i, i, i) for i, name in enumerate(names)}
    # The reference labels the two shoulder joints as the wrist and leaves their order to chance
    # (that of a set); here the pan comes first.
    for name in names[:2]:
        joints[name] = replace(joints[name], label="r_wrist_roll_joint")
    return Graph(
        joints=tuple(joints.values()),
        edges=_edges(joints, *(f"{a} {b}" for a, b in pairwise(names))),
        everyone=tuple(
            Joint(name, special={"qpos": span(XPOS, 3 * body, 3 * body + 3), "qvel": ()})
            for name, body in PUSHER_BODIES.items()
        ),
        partitions={"3p": [names[:3], names[3:4], names[4:]]},
    )


def _swimmer() -> Graph:
    def joint(name: str, at: int) -> Joint:
        return Joint(name, at, at, at + 2, special={"qvel": ((QVEL, at + 2), (QVEL, at + 5))})

    joints = {"rot2": joint("rot2", -2), "rot3": joint("rot3", -1)}
    return Graph(
        joints=tuple(joints.values()),
        edges=_edges(joints, "rot2 rot3"),
        everyone=(Joint("free_body_rot", 2, 2),),
    )


TENDON: Mapping[str, tuple[Feature, ...]] = {
    # columns 0, 1, 9, 10 of the Jacobian, of which MuJoCo 4 keeps 0, 1, 2, 9, 10, 11 only
    "ten_J": tuple((Block("ten_J"), i) for i in (0, 1, 3, 4)),
    "ten_length": ((Block("ten_length"), 0),),
    "ten_velocity": ((Block("ten_velocity"), 0),),
}


def _coupled_half_cheetah(repair: bool) -> Graph:
    joints: dict[str, Joint] = {}
    for cheetah in (0, 1):
        row = _row(" ".join(f"{j.name}{cheetah}" for j in _half_cheetah().joints), 6 * cheetah)
        # In the reference the first cheetah's joints stand at the second one's places.
        shift = -9 if repair and cheetah == 0 else 0
        for name, j in row.items():
            assert j.qpos is not None and j.qvel is not None
            special = TENDON if name.startswith("bthigh") else {}
            joints[name] = replace(j, qpos=j.qpos + shift, qvel=j.qvel + shift, special=special)
    names = list(joints)
    pairs = ("bfoot bshin", "bshin bthigh", "bthigh fthigh", "fthigh fshin", "fshin ffoot")
    edges = [" ".join(f"{j}{c}" for j in pair.split()) for c in (0, 1) for pair in pairs]
    return Graph(
        joints=tuple(joints.values()),
        edges=_edges(joints, *edges),
        everyone=(
            *(_unseen("root_x0", 0), Joint("root_y0", 2, 2), Joint("root_z0", 1, 1)),
            *(_unseen("root_x1", 9), Joint("root_y1", 11, 11), Joint("root_z1", 10, 10)),
        ),
        categories=(("qpos", "qvel", "ten_J", "ten_length", "ten_velocity"), ("qpos",)),
        partitions={"1p1": [names[:6], names[6:]]},
    )


def _many_segment_swimmer(segments: int) -> Graph:
    joints = _row(" ".join(f"rot{i}" for i in range(segments)))
    names = list(joints)
    return Graph(
        joints=tuple(joints.values()),
        edges=_edges(joints, *(f"{a} {b}" for a, b in pairwise(names))),
    )


def _many_segment_ant(segments: int, repair: bool) -> Graph:
    joints: list[Joint] = []
    edges: list[frozenset[Joint]] = []
    for segment in range(segments):
        body, actuator = 1 + 7 * segment, 4 * segment
        # Counted from the end, the last segment's joints are at -4: the reference adds where it
        # should subtract, and has the segments in reverse order (and the first one's at the root).
        behind = segments - 1 - segment
        at = -4 - 4 * behind if repair else -4 + 4 * behind
        # The reference gives the right leg the back leg's motors and the other way round.
        motors = (0, 1, 2, 3) if repair else (2, 3, 0, 1)
        rows = (
            ("hip1", (body, body + 1)),
            ("ankle1", (body + 1, body + 2, body + 3)),
            ("hip2", (body, body + 4)),
            ("ankle2", (body + 4, body + 5, body + 6)),
        )
        hip1, ankle1, hip2, ankle2 = (
            Joint(f"{name}_{segment}", at + i, at + i, actuator + motors[i], bodies, True)
            for i, (name, bodies) in enumerate(rows)
        )
        edges += [frozenset(pair) for pair in ((ankle1, hip1), (ankle2, hip2), (hip1, hip2))]
        if segment:
            front = joints[-4], joints[-2]
            if not repair:  # the reference links to copies: seen from behind, not seeing back
                front = replace(front[0]), replace(front[1])
            edges.append(frozenset((*front, hip1, hip2)))
        joints += [hip1, ankle1, hip2, ankle2]
    root = {**_FREE_ROOT, "cfrc_ext": span(Block("cfrc_ext", clip_1), 0, 6)}
    return Graph(
        joints=tuple(joints),
        edges=tuple(edges),
        everyone=(Joint("free", 0, 0, special=root),),
        categories=(("qpos", "qvel", "cfrc_ext"), ("qpos",)),
    )


def make_graph(scenario: str, segments: int | None, repair: bool) -> Graph | None:
    """The scenario's graph, None where the reference has none and only one agent is possible.

    Args:
        scenario: one of ``tasks.SCENARIOS``.
        segments: of a many-segment body.
        repair: let every joint of ManySegmentAnt and CoupledHalfCheetah stand where it is.
    """
    if scenario == "CoupledHalfCheetah":
        return _coupled_half_cheetah(repair)
    if scenario == "ManySegmentAnt":
        assert segments is not None
        return _many_segment_ant(segments, repair)
    if scenario == "ManySegmentSwimmer":
        assert segments is not None
        return _many_segment_swimmer(segments)
    makers = {
        "Ant": _ant,
        "HalfCheetah": _half_cheetah,
        "Hopper": _hopper,
        "Humanoid": _humanoid,
        "HumanoidStandup": _humanoid,
        "Pusher": _pusher,
        "Reacher": _reacher,
        "Swimmer": _swimmer,
        "Walker2d": _walker,
    }
    return makers[scenario]() if scenario in makers else None
