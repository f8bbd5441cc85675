"""train.py whose online runs act in toy environments, as a program that torchrun can start.

SIGNAL="1:7:SIGKILL" sends the signal to process 1 after the 7th update since the start. Workers
import this module: keep its imports light.
"""

from __future__ import annotations

import os
import signal
import sys


def main(argv: list[str]) -> int:
    import pytest
    import torch

    import train
    from dreamer import distributed
    from dreamer.training.online import OnlineRun
    from tests.support.commands import act_in, after_update
    from tests.support.envs import SeededEnv

    torch.set_num_threads(1)
    patch, save = pytest.MonkeyPatch(), OnlineRun.save

    def save_weights(run: OnlineRun, step: int) -> None:
        """A checkpoint has those of the first process alone."""
        save(run, step)
        file = run.folder.path / f"weights_{step}_{distributed.rank()}.pt"
        torch.save(run.agent.state_dict(), file)

    act_in(patch, SeededEnv)
    patch.setattr(OnlineRun, "save", save_weights)
    process, updates, name = os.environ["SIGNAL"].split(":")
    if process == os.environ["RANK"]:
        number = signal.Signals[name]
        after_update(patch, int(updates), lambda _: os.kill(os.getpid(), number))
    return train.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
