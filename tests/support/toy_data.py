"""Episodes of a moving disc: a small dataset with something to learn."""

from __future__ import annotations

import numpy as np

from dreamer.data.episode import DatasetInfo, Episode

TOY_INFO = DatasetInfo(
    task="SafetyPointGoal1-v0",
    cameras=("vision", "vision_back"),
    action_repeat=4,
    size=64,
    action_size=2,
    environment={"render": "fast", "variant": "none"},
)


def toy_episode(length: int = 40, seed: int = 0, terminated: bool = False) -> Episode:
    """A disc moves with the action over a coloured ground; right of the middle it costs.

    The first camera sees the ground from the left, the second one mirrored. The reward is progress
    to the upper edge.
    """
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    place = np.empty((length + 1, 2), np.float32)
    place[0] = rng.uniform(0.2, 0.8, 2)
    for t in range(length):
        place[t + 1] = np.clip(place[t] + 0.1 * action[t], 0.05, 0.95)
    front = np.stack([toy_image(x, y) for x, y in place])  # (T+1, 64, 64, 3)
    return Episode(
        images={"vision": front, "vision_back": np.ascontiguousarray(front[:, :, ::-1])},
        action=action,
        reward=place[1:, 1] - place[:-1, 1],
        cost=(place[1:, 0] > 0.5).astype(np.float32),
        terminated=terminated,
        policy=("safe", "unsafe")[seed % 2],
        seed=seed,
    )


def toy_image(x: float, y: float) -> np.ndarray:
    """The ground is red where it costs; the disc is white."""
    across, down = np.meshgrid(np.linspace(0, 1, 64), np.linspace(1, 0, 64))
    image = np.full((64, 64, 3), (40, 90, 160), np.uint8)
    image[across > 0.5] = (170, 60, 50)
    image[(across - x) ** 2 + (down - y) ** 2 < 0.1**2] = 255
    return image
