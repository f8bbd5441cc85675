"""Analytic motion model of the Point robot and the box of the Push tasks, many at once.

The box weighs a fortieth of the robot and stops within centimetres when nothing pushes it. So it
has no momentum here: it gives way to what enters it, by the least motion that ends the overlap.
Places and directions are complex numbers, x + iy, so that turning one is a product.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fosp_ext.envs.scripted.point_model import PointModel
from fosp_ext.envs.world_state import WorldState

# The robot's outline in its own frame: the ball, and the two front corners of its arrow. (3, 1)
OUTLINE = np.array([[0.0], [0.13 + 0.03j], [0.13 - 0.03j]])
RADIUS = np.array([[0.1], [0.02], [0.02]])
BALL = 0.1
# Seen from above, the box is a square with a smaller square on each corner, which leaves a notch
# in the middle of each side.
COLUMN = 0.5  # half side of the small squares in half sides of the large one
CORNER = 2.13  # from the middle to the outermost corner in the same unit
# Fitted to the simulator: friction between robot and box; the ratio of the torque that turns the
# box against the floor to the force that moves it, in half sides; and what pushing takes from the
# robot's speed, m/s^2.
GRIP, LEVER, BURDEN = 0.5, 1.55, 0.24
JAM = 0.11  # seconds in which a robot that holds the box against a pillar loses its speed
MOMENT = 0.04  # seconds, about, between two moments that are imagined
CONTACTS = 3  # of robot and box that are resolved at each moment, the deepest first
LEAST_GIVE = 0.05  # share of its own give that a contact keeps when an earlier one opposes it


class PushRollout(NamedTuple):
    """Imagined motion of P candidates at S moments, `substeps` of each agent step."""

    robot: np.ndarray  # (S, P) complex
    box: np.ndarray  # (S, P) complex
    box_heading: np.ndarray  # (P,) at the last moment


class Contact(NamedTuple):
    """The deepest point at which something enters a box, for P boxes."""

    depth: np.ndarray  # (P,) metres, not above zero where nothing does
    normal: np.ndarray  # (P,) complex, unit, out of the box
    place: np.ndarray  # (P,) complex, the deepest point of what enters


def dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Scalar products of complex numbers taken as vectors."""
    return left.real * right.real + left.imag * right.imag


def cross(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cross products: the torque of a force `right` on an arm `left`."""
    return left.real * right.imag - left.imag * right.real


class Push(NamedTuple):
    """The force of a contact on P boxes, per unit of its size."""

    ahead: np.ndarray  # (P,) complex, unit, into the box
    torque: np.ndarray  # (P,)
    give: np.ndarray  # (P,) way that the touching point moves when the box is pushed by one metre


class Robots:
    """P robots of one kind at their own places."""

    def __init__(self, place: complex, speed: complex, count: int):
        self.place = np.full(count, place)  # (P,) complex
        self.speed = np.full(count, speed)  # (P,) complex
        self.outline = np.zeros((len(OUTLINE), count), complex)  # discs around `place`

    @property
    def discs(self) -> np.ndarray:
        """The middles of the discs that a robot consists of: (3, P) complex."""
        return self.place + self.outline

    def stop(self, depth: np.ndarray, normal: np.ndarray, seconds: float) -> None:
        """Step out of something fixed that was entered by `depth` (P,), and lose that much way."""
        depth = np.maximum(depth, 0)
        lost = np.minimum(depth / seconds, np.maximum(-dot(self.speed, normal), 0))
        self.place = self.place + depth * normal
        self.speed = self.speed + lost * normal


class Box:
    """The poses of P boxes, and how they give way."""

    def __init__(self, place: np.ndarray, heading: np.ndarray, half: float):
        self.place, self.heading = place, heading  # (P,) complex, (P,)
        self.half = half
        self.lever = (LEVER * half) ** 2

    def copy(self) -> Box:
        """Boxes at the same poses, which stay as they are."""
        return Box(self.place.copy(), self.heading.copy(), self.half)

    def way_since(self, before: Box, point: np.ndarray) -> np.ndarray:
        """Motion of the spots at `point` (P,) with the boxes since these were at `before`."""
        turned = self.heading - before.heading
        return self.place - before.place + 1j * turned * (point - self.place)

    def deepest(self, discs: np.ndarray, radius: np.ndarray) -> Contact:
        """The deepest of the overlaps with `discs` (D, P) of `radius` (D, 1)."""
        look = np.exp(1j * self.heading)
        own = (discs - self.place) * look.conj()  # (D, P) in the box's frame
        x, y = np.abs(own.real), np.abs(own.imag)
        # By symmetry only three of the five squares matter, as seen from the nearest side: the
        # large one, the nearest small one, and the one across the notch. (3, D, P)
        beside, along = np.maximum(x, y) - self.half, np.minimum(x, y) - self.half
        column = COLUMN * self.half
        over = np.empty((2, 3, *x.shape))  # beyond their sides; negative within
        over[0, 0], over[1, 0] = beside, along
        np.abs(beside, out=over[0, 1])
        np.abs(along, out=over[1, 1])
        over[0, 1:] = over[0, 1] - column
        over[1, 1] -= column
        over[1, 2] = along + (2 * self.half - column)
        out = np.maximum(over, 0)
        apart = np.sqrt(out[0] * out[0] + out[1] * out[1])
        depth = radius - apart - np.minimum(np.maximum(over[0], over[1]), 0)

        count = np.arange(x.shape[1])
        pick = depth.reshape(-1, x.shape[1]).argmax(0)
        part, disc = np.divmod(pick, len(x))
        over, out = over[:, part, disc, count], out[:, part, disc, count]  # (2, P)
        gap, own = apart[part, disc, count], own[disc, count]
        inside = gap <= 0
        first = over[0] >= over[1]
        length = np.maximum(gap, 1e-12)
        n_long = np.where(inside, first, out[0] / length)
        n_short = np.where(inside, ~first, out[1] / length)
        n_long = np.where((part > 0) & (beside[disc, count] < 0), -n_long, n_long)
        n_short = np.where((part == 1) & (along[disc, count] < 0), -n_short, n_short)
        swap = np.abs(own.imag) > np.abs(own.real)
        normal = np.empty_like(own)
        normal.real = np.where(swap, n_short, n_long) * np.where(own.real < 0, -1, 1)
        normal.imag = np.where(swap, n_long, n_short) * np.where(own.imag < 0, -1, 1)
        normal *= look
        place = discs[disc, count] - radius[disc, 0] * normal
        return Contact(depth[part, disc, count], normal, place)

    def give_way(self, contact: Contact, came: np.ndarray, earlier: Push | None) -> Push:
        """Move out of what enters, whose touching point `came` (P,) by so much against the box.

        Where that would press the box back into what entered it `earlier`, both push together:
        this is what makes a box turn with a robot that is wedged in its notch.
        """
        arm = contact.place - self.place
        ahead, aside = -contact.normal, -1j * contact.normal
        torque, side_torque = cross(arm, ahead), cross(arm, aside)
        give, depth = 1 + torque * torque / self.lever, np.maximum(contact.depth, 0)
        if earlier is None:
            force = depth / give
            shift, turn = force * ahead, force * torque / self.lever
        else:
            shared = dot(earlier.ahead, ahead) + earlier.torque * torque / self.lever
            against = np.maximum(-shared, 0)
            force = depth / np.maximum(give - against * against / earlier.give, LEAST_GIVE * give)
            again = force * against / earlier.give
            shift = force * ahead + again * earlier.ahead
            turn = (force * torque + again * earlier.torque) / self.lever
        slip = dot(came - shift, aside) - turn * side_torque
        drag = slip / (1 + side_torque * side_torque / self.lever)
        drag = np.minimum(np.maximum(drag, -GRIP * force), GRIP * force)
        self.place = self.place + shift + drag * aside
        self.heading = self.heading + turn + drag * side_torque / self.lever
        return Push(ahead, torque, give)


class PushModel:
    """The Point robot's motion with a box and pillars in its way."""

    def __init__(self, action_repeat: int):
        agent_step = action_repeat * PointModel.ENV_STEP
        self.substeps = max(1, round(agent_step / MOMENT))
        self.seconds = agent_step / self.substeps
        self.fade = np.exp(-PointModel.DRAG * self.seconds)
        self.gained = (1 - self.fade) / PointModel.DRAG  # speed per unit of thrust
        self.way = (self.seconds - self.gained) / PointModel.DRAG  # metres per unit of thrust

    def rollout(self, state: WorldState, actions: np.ndarray) -> PushRollout:
        """Motion from `state` under `actions` (P, H, 2)."""
        count = len(actions)
        turns = self.seconds * PointModel.yaw_rate(actions[..., 1]).T  # (H, P)
        turns = np.repeat(turns, self.substeps, 0)  # (S, P)
        headings = state.agent_heading + np.cumsum(turns, 0)
        thrusts = PointModel.THRUST * np.clip(actions[..., 0], -1, 1)
        thrusts = np.repeat(thrusts.T, self.substeps, 0) * np.exp(1j * (headings - turns / 2))
        outlines = np.exp(1j * headings)[:, None] * OUTLINE  # (S, 3, P)
        robots = Robots(complex(*state.agent_pos), complex(*state.agent_vel), count)
        box = Box(
            np.full(count, complex(*state.push_box[0])),
            np.full(count, state.push_box_heading),
            state.push_box_half_size,
        )
        robot_places, box_places = np.empty_like(thrusts), np.empty_like(thrusts)
        for moment, (thrust, turn) in enumerate(zip(thrusts, turns, strict=True)):
            moved = robots.speed * self.gained + thrust * self.way
            robots.place = robots.place + moved
            robots.speed = robots.speed * self.fade + thrust * self.gained
            robots.outline = outlines[moment]
            before = box.copy()
            self._push(robots, box, moved, turn)
            for pillar in state.pillars:
                hold(robots, box, before, complex(*pillar), state.pillar_radius, self.seconds)
            robot_places[moment], box_places[moment] = robots.place, box.place
        return PushRollout(robot_places, box_places, box.heading)

    def _push(self, robots: Robots, box: Box, moved: np.ndarray, turn: np.ndarray) -> None:
        """Let the boxes give way to robots that `moved` and turned (P,) into them."""
        contact = box.deepest(robots.discs, RADIUS)
        hit = np.flatnonzero(contact.depth > 0)
        if not len(hit):
            return
        discs, robot, moved, turn = robots.discs[:, hit], robots.place[hit], moved[hit], turn[hit]
        before = Box(box.place[hit], box.heading[hit], box.half)
        pushed = before.copy()
        contact, push = Contact(*(part[hit] for part in contact)), None
        for left in reversed(range(CONTACTS)):
            came = moved + 1j * turn * (contact.place - robot)
            came -= pushed.way_since(before, contact.place)
            push = pushed.give_way(contact, came, push)
            if left:
                contact = pushed.deepest(discs, RADIUS)
                if contact.depth.max() <= 0:
                    break
        shift = pushed.place - before.place
        burden = BURDEN * self.seconds * shift / np.maximum(np.abs(shift), 1e-9)
        robots.speed[hit] -= burden
        box.place[hit], box.heading[hit] = pushed.place, pushed.heading


def hold(
    robots: Robots, box: Box, before: Box, pillar: complex, radius: float, seconds: float
) -> None:
    """Let a pillar stop robots, and boxes with the robots that push them against it.

    before: the boxes `seconds` ago.
    """
    away = robots.place - pillar
    gap = np.abs(away)
    robots.stop(radius + BALL - gap, away / gap, seconds)
    if np.abs(box.place - pillar).min() < radius + CORNER * box.half:
        count = len(gap)
        pinned = box.deepest(np.full((1, count), pillar), np.full((1, 1), radius))
        box.give_way(pinned, -box.way_since(before, pinned.place), None)
        contact = box.deepest(robots.discs, RADIUS)
        jammed = (pinned.depth > 0) & (contact.depth > 0)
        robots.stop(np.where(jammed, contact.depth, 0), contact.normal, seconds)
        robots.speed = np.where(jammed, np.exp(-seconds / JAM) * robots.speed, robots.speed)
