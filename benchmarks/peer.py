"""An update of another program beside ours: the checkout of NM512/dreamerv3-torch.

It runs in a process of its own, for its modules have names such as `models` and `tools`, and does
an update whenever it is asked. This file is both ends: imported, it starts that process; run with
the folder of the checkout and a shape, it is that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

from dreamer.errors import UserError

PEER_FILES = ("models.py", "networks.py", "tools.py", "configs.yaml")
IMAGE, ACTIONS = 64, 2


class Peer:
    """The other program, for `with`; on the CPU, in float32, on `threads` threads."""

    def __init__(self, checkout: Path, shape: dict[str, int], threads: int) -> None:
        """Start it; a folder without its files is a `UserError`.

        `shape` has cameras, B, T, deter, hidden, stoch, classes, units and depth.
        """
        for name in PEER_FILES:
            if not (checkout / name).is_file():
                raise UserError(f"no {name} in {checkout}, is it the peer's checkout?")
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(checkout), json.dumps(shape)],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def update(self) -> float:
        """Have it do an update; returns the seconds. A `UserError` if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("update\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise UserError(f"the peer ended with exit code {code}, its error stands above")
        return float(line)


def serve(checkout: Path, shape: dict[str, int]) -> None:
    """Do an update for each line of the input; print its seconds."""
    answers, sys.stdout = sys.stdout, sys.stderr  # it prints the sizes of its networks
    update = peer_update(checkout, shape)
    for _ in sys.stdin:
        begin = time.perf_counter()
        update()
        answers.write(f"{time.perf_counter() - begin}\n")
        answers.flush()


def peer_update(checkout: Path, shape: dict[str, int]) -> Any:
    """Its update on a batch of noise, as its own `dreamer.py` does it: a function."""
    import numpy as np
    import torch
    from ruamel.yaml import YAML

    sys.path.insert(0, str(checkout))
    import models  # type: ignore[import-not-found]

    values = YAML(typ="safe").load((checkout / "configs.yaml").read_text())["defaults"]
    for part in ("encoder", "decoder"):
        values[part]["cnn_depth"] = shape["depth"]
    config = SimpleNamespace(**values)
    config.device, config.num_actions = "cpu", ACTIONS
    config.dyn_deter, config.dyn_hidden = shape["deter"], shape["hidden"]
    config.dyn_stoch, config.dyn_discrete = shape["stoch"], shape["classes"]
    config.units = shape["units"]
    B, T, rng = shape["B"], shape["T"], np.random.default_rng(0)
    pixels = (IMAGE, IMAGE, 3 * shape["cameras"])
    data = {
        "image": rng.integers(0, 256, (B, T, *pixels), dtype=np.uint8),
        "action": rng.uniform(-1, 1, (B, T, ACTIONS)).astype(np.float32),
        "reward": rng.standard_normal((B, T)).astype(np.float32),
        "is_first": np.eye(1, T, dtype=np.float32).repeat(B, 0),
        "is_terminal": np.zeros((B, T), np.float32),
        "discount": np.ones((B, T), np.float32),
    }
    torch.manual_seed(0)
    space = SimpleNamespace(spaces={"image": SimpleNamespace(shape=pixels)})
    model = models.WorldModel(space, None, 0, config)
    behaviour = models.ImagBehavior(config, model)

    def reward(feat: Any, state: Any, action: Any) -> Any:
        return model.heads["reward"](model.dynamics.get_feat(state)).mode()

    def update() -> None:
        start, _, _ = model._train(data)
        behaviour._train(start, reward)

    return update


if __name__ == "__main__":
    serve(Path(sys.argv[1]), json.loads(sys.argv[2]))
