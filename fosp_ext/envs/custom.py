"""Any environment that reports costs, behind the interface of this project's own.

Use `fosp_ext.envs.make_env` with a task `MODULE:NAME`. docs/custom_environments.md has the rules.
"""

from __future__ import annotations

from typing import Any

from dreamer.envs.adapter import ImageEnv


class CustomEnv(ImageEnv):
    """An environment of the user, whose every step says what it costs."""

    def __init__(
        self, task: str, cameras: tuple[str, ...], size: int, action_repeat: int, render: str
    ) -> None:
        super().__init__(task, cameras, size, action_repeat, needs_cost=True)
        self.render_quality = render  # changes nothing here

    def privileged(self) -> Any:
        """None: of this world only images are known; the policy `random` needs no more."""
