"""Whether a robot hand runs into itself, by the collision shapes of its URDF (pinocchio with coal)."""

from __future__ import annotations

import logging

import numpy as np
import pinocchio as pin

from egoworld_ops.operators.mapping._kinematics import HandModel

log = logging.getLogger(__name__)

ALLOWED_M = 1e-3
"""Shapes that overlap by less only touch."""


class Collisions:
    """The pairs of links of one hand that must not overlap.

    Neighbours overlap by design, and so may any pair in the middle of the joints' limits, where no hand is in its own way: those are left out.
    """

    def __init__(self, model: HandModel) -> None:
        self._model = model
        self._geometry = _shapes(model)
        if self._geometry is None:
            return
        self._data = model.pin_model.createData()
        self._found = self._geometry.createData()
        self._ask_for_overlap()
        self._collide(model.qpos_of(model.driven_limits.mean(1)))
        resting = [pair for pair, r in zip(self._geometry.collisionPairs, self._found.collisionResults, strict=True) if r.isCollision()]
        for pair in list(resting):
            self._geometry.removeCollisionPair(pin.CollisionPair(pair.first, pair.second))
        self._found = self._geometry.createData()
        self._ask_for_overlap()

    def at(self, qpos: np.ndarray) -> bool | None:
        """Whether links overlap by more than 1 mm at (n_joints,) joint values; None where the shapes are not known."""
        if self._geometry is None or not len(self._geometry.collisionPairs):
            return None
        return self._collide(qpos)

    def _collide(self, qpos: np.ndarray) -> bool:
        full = np.zeros(self._model.pin_model.nq)
        full[self._model.joint_indices] = qpos
        return bool(pin.computeCollisions(self._model.pin_model, self._data, self._geometry, self._found, full, False))

    def _ask_for_overlap(self) -> None:
        for request in self._found.collisionRequests:
            request.security_margin = -ALLOWED_M


def _shapes(model: HandModel) -> pin.GeometryModel | None:
    """The collision shapes of the hand's own links, with all pairs of links that are no neighbours; None where one cannot be read.

    A hand without the shapes of some links would seem to run into nothing with them.
    """
    pin_model = model.pin_model
    try:
        shapes = pin.buildGeomFromUrdf(
            pin_model, str(model.path), pin.GeometryType.COLLISION, package_dirs=[str(p) for p in model.path.parents]
        )
    except ValueError as error:
        log.warning("%s: self_collision stays unknown: %s Put the meshes where the URDF says, beside it", model.path, error)
        return None
    own = {pin_model.getJointId(name) for name in model.joint_names}
    base = int(pin_model.frames[pin_model.getFrameId(model.hand.base_link, pin.FrameType.BODY)].parentJoint)
    joints = [g.parentJoint for g in shapes.geometryObjects]
    for a in range(len(joints)):
        for b in range(a + 1, len(joints)):
            one, other = joints[a], joints[b]
            neighbours = one == other or pin_model.parents[one] == other or pin_model.parents[other] == one
            if not neighbours and {one, other} <= own | {base}:
                shapes.addCollisionPair(pin.CollisionPair(a, b))
    return shapes
