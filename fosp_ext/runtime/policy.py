"""A policy acting on camera images, with checks of what it sees, says and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.errors import UserError
from fosp_ext.runtime.file import DIGEST, PolicyFacts, check_seal, read_facts

STALE_PERIODS = 1.0  # age of an image, in periods of the rate, from which on it is stale
FROZEN_AFTER = 10  # equal images of a camera in a row from which on it counts as frozen
STALE, FROZEN, DEADLINE, NOT_FINITE = "stale", "frozen", "deadline", "not finite"


class ObservationError(ValueError):
    """Images that are not what the policy was trained on: cameras, shapes, types."""


@dataclass(frozen=True)
class Decision:
    """What to do now."""

    action: np.ndarray  # (A,) float32 in [-1, 1]; zeros where it is held
    fault: str | None  # why it is held: stale, frozen, deadline or not finite; None: it is not
    violation_probability: float | None  # None where the policy does not estimate it, or held
    warning: bool  # the probability is above the file's threshold
    who: str  # online or offline, which policy of a set acts; policy: there is one; hold
    estimates: dict[str, float]  # empty where it is held
    latency_ms: float


class Policy:
    """An exported policy and the state it carries through an episode."""

    def __init__(self, session: Any, facts: PolicyFacts):
        """Use `Policy.load`."""
        self.facts = facts
        self._session = session
        self._inputs = {each.name for each in session.get_inputs()}
        self._outputs = [each.name for each in session.get_outputs()]
        self._period = None if facts.rate is None else 1 / facts.rate
        self.reset()

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> Policy:
        """Read a file of `fosp_ext.export`; one that is not, or was altered, is a `UserError`."""
        import onnxruntime

        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what is wrong with a file, we say
        try:
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # each of the library's errors is a type of its own
            raise UserError(f"{path} is no ONNX file that can be run") from error
        metadata = session.get_modelmeta().custom_metadata_map
        facts = read_facts(metadata, path)
        check_seal(content, metadata[DIGEST], path)
        return cls(session, facts)

    def reset(self, seed: int = 0) -> None:
        """Begin an episode. The seed decides samples of the state, where the policy draws any."""
        self._rng = np.random.default_rng(seed)
        self._first = True
        self._state = tuple(np.zeros((1, *shape), np.float32) for shape in self.facts.latent)
        self._action = np.zeros((1, self.facts.action_size), np.float32)
        self._last: dict[str, bytes] = {}
        self._repeats = dict.fromkeys(self.facts.cameras, 0)

    def act(self, images: Mapping[str, np.ndarray], age: float = 0.0) -> Decision:
        """The action for images of all cameras, (size, size, 3) uint8, taken `age` seconds ago.

        Images of another kind are an `ObservationError`, and nothing has happened then. Stale and
        frozen ones, a result that is not finite and one that comes later than the next action is
        due give a decision to hold, with the fault's name.
        """
        begin = time.perf_counter()
        self._check(images)
        fault = self._fault_of(images, age)
        estimates: dict[str, float] = {}
        action = np.zeros(self.facts.action_size, np.float32)
        if fault is None:
            proposed, judged = self._step(images)
            seconds = time.perf_counter() - begin
            if not (np.isfinite(proposed).all() and np.isfinite(list(judged.values())).all()):
                fault = NOT_FINITE
                self._begin_anew()
            elif self._period is not None and age + seconds > self._period:
                fault = DEADLINE
            else:
                action, estimates = proposed, judged
        self._action[0] = action
        probability = estimates.get("violation_probability")
        return Decision(
            action=action.copy(),
            fault=fault,
            violation_probability=probability,
            warning=probability is not None and probability > self.facts.warning,
            who=self._who(fault, estimates),
            estimates=estimates,
            latency_ms=1e3 * (time.perf_counter() - begin),
        )

    def executed(self, action: np.ndarray) -> None:
        """Say what was really sent, (A,): it becomes the action before the next images."""
        sent = np.asarray(action, np.float32)
        if sent.shape != (self.facts.action_size,) or not np.isfinite(sent).all():
            raise ValueError(f"an action is {self.facts.action_size} finite numbers, got {action}")
        self._action[0] = sent.clip(-1, 1)

    def _check(self, images: Mapping[str, np.ndarray]) -> None:
        wanted = (self.facts.size, self.facts.size, 3)
        for camera in self.facts.cameras:
            if camera not in images:
                raise ObservationError(f"no image of camera '{camera}'; there are {list(images)}")
            image = images[camera]
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
                kind = getattr(image, "dtype", type(image).__name__)
                raise ObservationError(f"camera '{camera}' gives {kind}, not uint8 numbers")
            if image.shape != wanted:
                raise ObservationError(f"camera '{camera}' gives {image.shape}, not {wanted}")

    def _fault_of(self, images: Mapping[str, np.ndarray], age: float) -> str | None:
        for camera in self.facts.cameras:
            now = images[camera].tobytes()
            self._repeats[camera] = (
                self._repeats[camera] + 1 if now == self._last.get(camera) else 0
            )
            self._last[camera] = now
        if self._period is not None and age > STALE_PERIODS * self._period:
            return STALE
        return FROZEN if max(self._repeats.values()) >= FROZEN_AFTER else None

    def _step(self, images: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
        """Run the graph: the action (A,) and the estimates; the state moves on."""
        deter, stoch = self._state
        given = {
            "is_first": np.array([float(self._first)], np.float32),
            "deter": deter,
            "stoch": stoch,
            "action_before": self._action,
            "noise": self._rng.gumbel(size=stoch.shape).astype(np.float32),
            **{camera: images[camera][None] for camera in self.facts.cameras},
        }
        results = self._session.run(None, {k: x for k, x in given.items() if k in self._inputs})
        found = dict(zip(self._outputs, results, strict=True))
        self._first = False
        self._state = found["deter_after"], found["stoch_after"]
        return found["action"][0], {k: float(found[k][0]) for k in self.facts.estimates}

    def _begin_anew(self) -> None:
        """Forget a state that is not finite; the next images are the first ones."""
        self._state = tuple(np.zeros_like(part) for part in self._state)
        self._first = True

    def _who(self, fault: str | None, estimates: dict[str, float]) -> str:
        if fault is not None:
            return "hold"
        if "online" not in estimates:
            return "policy"
        return "online" if estimates["online"] > 0.5 else "offline"
