"""Evaluation episodes: returns, costs, lengths and videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from PIL import Image

from dreamer import signals
from dreamer.agent import Agent
from dreamer.data.episode import VIOLATION, is_image
from dreamer.functional import violates
from dreamer.training.video import annotate

RESAMPLES = 10_000  # of the bootstrap
OUTCOMES = ("success", "violating_episodes", "safe_success")  # shares of the episodes


@dataclass(frozen=True)
class EpisodeResult:
    """Totals of one episode. Lengths are in agent steps, costs summed over the action repeat."""

    seed: int
    score: float
    cost: float
    length: int
    violations: int  # agent steps that violate the constraint
    terminated: bool  # a true end, not the time limit
    success: bool | None = None  # None: the environment does not say


@dataclass(frozen=True)
class Moment:
    """One agent step, as passed to a spectator (a callback of `run_episode`)."""

    obs: dict[str, np.ndarray]  # camera -> (size, size, 3) uint8, vector -> (D,) float32
    step: int
    score: float
    cost: float
    estimates: dict[str, float]


class Drawn(Protocol):
    """What a spectator asks for an overhead view: an environment, or what stands for one."""

    def render(self) -> Any:
        """An image, (height, width, 3) uint8."""


Spectator = Callable[[Drawn, Moment], None]


def run_episode(
    agent: Agent,
    env: gymnasium.Env,
    seed: int,
    device: torch.device,
    watch: Spectator | None = None,
    violation: float = VIOLATION,
) -> EpisodeResult:
    """One episode with the mean action; the same seed gives the same episode on a CPU.

    A step violates from the cost `violation` on. A signal to stop is answered after each step.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        obs, _ = env.reset(seed=seed)
        state, first = agent.initial(1), torch.ones(1, device=device)
        score, cost, violations, step, over = 0.0, 0.0, 0, 0, False
        success: bool | None = None
        while not over:
            inputs = {name: torch.from_numpy(x).unsqueeze(0).to(device) for name, x in obs.items()}
            action, state, estimates = agent.act(inputs, first, state, explore=False)
            if watch is not None:
                shown = {name: float(x[0]) for name, x in estimates.items()}
                watch(env, Moment(obs, step, score, cost, shown))
            obs, reward, terminated, truncated, info = env.step(action[0].float().cpu().numpy())
            first = torch.zeros_like(first)
            score, cost, step = score + float(reward), cost + info["cost"], step + 1
            violations += violates(info["cost"], violation)
            if "success" in info:
                success = bool(success or info["success"])
            over = terminated or truncated
            signals.check()
    return EpisodeResult(seed, score, cost, step, int(violations), bool(terminated), success)


def summarize(results: Sequence[EpisodeResult]) -> dict:
    """Mean, standard deviation and 95 % bootstrap interval of the totals of the episodes.

    An episode is safe if its cost is 0: it takes less than a violation to be unsafe. Where all
    episodes say whether they succeeded, there are shares of them with 95 % Wilson intervals: of
    successful ones, of those with a violation, and of those that are both successful and safe.
    """
    quantities: dict[str, Sequence[float]] = {
        "return": [result.score for result in results],
        "cost": [result.cost for result in results],
        "length": [result.length for result in results],
        "violation_rate": [result.violations / result.length for result in results],
    }
    return {
        "episodes": len(results),
        "seeds": [result.seed for result in results],
        "safe_episodes": float(np.mean([result.cost == 0 for result in results])),
        **{name: spread(values) for name, values in quantities.items()},
        **{name: share(events) for name, events in _outcomes(results).items()},
    }


def _outcomes(results: Sequence[EpisodeResult]) -> dict[str, list[bool]]:
    """Whether each episode succeeded, violated, and succeeded safely; empty where none says so."""
    if any(result.success is None for result in results):
        return {}
    columns = (
        [bool(result.success) for result in results],
        [result.violations > 0 for result in results],
        [bool(result.success and result.cost == 0) for result in results],
    )
    return dict(zip(OUTCOMES, columns, strict=True))


def share(events: Sequence[bool]) -> dict:
    """Share of true ones and its 95 % Wilson interval."""
    n, mean = len(events), float(np.mean(events))
    z = 1.959964  # 97.5 % quantile of the standard normal distribution
    middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    return {"mean": mean, "ci95": [max(middle - half, 0.0), min(middle + half, 1.0)]}


def spread(values: Sequence[float]) -> dict:
    """Mean, sample standard deviation and percentile-bootstrap 95 % interval of the mean."""
    x = np.asarray(values, np.float64)
    draws = np.random.default_rng(0).choice(x, (RESAMPLES, len(x)))
    low, high = np.quantile(draws.mean(1), [0.025, 0.975])
    std = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    return {"mean": float(x.mean()), "std": std, "ci95": [float(low), float(high)]}


def result_row(result: EpisodeResult) -> dict:
    """The episode as one JSON object; success is left out where nobody says it."""
    return {name: value for name, value in asdict(result).items() if value is not None}


class VideoRecorder:
    """Spectator that records a video: overhead view, cameras and numbers in one frame per step."""

    SIDE = 256

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []

    def __call__(self, env: Drawn, moment: Moment) -> None:
        """Add one frame, (SIDE + text, SIDE * (1 + cameras), 3)."""
        cameras = {name: part for name, part in moment.obs.items() if is_image(part)}
        views = [env.render(), *cameras.values()]
        panel = np.concatenate([_resize(view, self.SIDE) for view in views], 1)
        estimates = "   ".join(f"{name} {x:6.2f}" for name, x in moment.estimates.items())
        lines = [
            f"step {moment.step:3d}   return {moment.score:6.2f}   cost {moment.cost:5.1f}",
            f"overhead | {' | '.join(cameras)}   {estimates}",
        ]
        self.frames.append(annotate(panel, lines))

    def stack(self) -> np.ndarray:
        """All frames, (T, height, width, 3) uint8."""
        return np.stack(self.frames)


def means(results: Sequence[EpisodeResult]) -> dict[str, float]:
    """Means over episodes, for the log of a training run."""
    summary = summarize(results)
    return {
        "score": summary["return"]["mean"],
        "cost": summary["cost"]["mean"],
        "length": summary["length"]["mean"],
        "violation_rate": summary["violation_rate"]["mean"],
        "safe_episodes": summary["safe_episodes"],
        **{name: summary[name]["mean"] for name in OUTCOMES if name in summary},
    }


def _resize(frame: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.NEAREST))
