"""Wrapper of custom environments: images, rewards and costs in the form of this project.

Use `fosp_ext.envs.make_env` with a task `MODULE:NAME`. The rules are in
docs/reference/custom_environments.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dreamer.envs.adapter import ImageEnv


class CustomEnv(ImageEnv):
    """A custom environment, which returns a cost with every step, unless it need not."""

    def __init__(
        self,
        task: str,
        cameras: tuple[str, ...],
        size: int,
        action_repeat: int,
        render: str,
        vectors: Sequence[str] = (),
        needs_cost: bool = True,
    ) -> None:
        super().__init__(task, cameras, size, action_repeat, needs_cost, vectors)
        self.render_quality = render  # changes nothing here

    def privileged(self) -> Any:
        """None: a custom environment has no privileged state, so only `random` acts in it."""
