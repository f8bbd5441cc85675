from __future__ import annotations

import copy
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dreamer.errors import UserError
from dreamer.training.checkpoint import Checkpoint, check_sound, rng_state, set_rng_state
from dreamer.utils import choose_device, seed_everything


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def draw() -> list[float]:
    legacy = [np.random.random(), np.random.standard_normal()]  # noqa: NPY002
    return [
        random.random(),
        random.gauss(0, 1),
        *legacy,
        float(torch.rand(())),
        float(torch.randn(())),
    ]


def flip_byte(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 255]))


def test_save_and_load(tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoints", keep_last=2)
    assert checkpoint.latest() is None
    state = {"weights": {"a": torch.arange(3.0)}, "counters": [1, 2.5, True, None, "x"]}
    path = checkpoint.save(7, state)
    assert path.name == "step_000000007.pt"
    assert checkpoint.latest() == path
    loaded = checkpoint.load(path)
    assert loaded["step"] == 7
    assert loaded["counters"] == state["counters"]
    torch.testing.assert_close(loaded["weights"]["a"], state["weights"]["a"], rtol=0, atol=0)
    assert "format_version" not in state, "the caller's dict is not written to"


def test_the_newest_are_kept(tmp_path):
    checkpoint = Checkpoint(tmp_path, keep_last=2)
    for step in (10, 20, 30, 1_000_000_000):
        checkpoint.save(step, {})
    assert names(tmp_path) == ["latest", "step_000000030.pt", "step_1000000000.pt"]
    assert checkpoint.latest().name == "step_1000000000.pt"


def test_what_another_process_writes_stays(tmp_path):
    other = tmp_path / "step_000000001.pt.123.part"
    other.write_text("half of it")
    Checkpoint(tmp_path, keep_last=1).save(10, {})
    assert other.read_text() == "half of it"


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, number):
    checkpoint = Checkpoint(tmp_path, keep_last=3)
    weights = {"a": torch.ones(2), "b": torch.tensor([1.0, number])}
    for step, agent in ((1, {"a": torch.ones(2)}), (2, weights), (3, weights)):
        checkpoint.save(step, {"agent": agent})
    path = checkpoint.latest()
    message = (
        r"step_000000003\.pt has weights that are not finite, b; step_000000001\.pt beside it is "
        "intact"
    )
    with pytest.raises(UserError, match=message):
        check_sound(path, Checkpoint.load(path))
    check_sound(path, Checkpoint.load(tmp_path / "step_000000001.pt"))


@pytest.mark.parametrize("step", [-5, True, 1.5, "3"])
def test_impossible_steps_are_refused(tmp_path, step):
    Checkpoint.write(tmp_path / "step_000000001.pt", step, {"agent": {}})
    state = Checkpoint.load(tmp_path / "step_000000001.pt")
    with pytest.raises(UserError, match=r"has the impossible step .*there is no intact one"):
        check_sound(tmp_path / "step_000000001.pt", state)


def test_going_back_does_not_lose_the_file_just_saved(tmp_path):
    checkpoint = Checkpoint(tmp_path, keep_last=1)
    checkpoint.save(50, {})
    path = checkpoint.save(20, {})
    assert path.is_file()
    assert checkpoint.latest() == path


def test_without_the_pointer_the_newest_file_counts(tmp_path):
    checkpoint = Checkpoint(tmp_path, keep_last=3)
    for step in (1, 2, 3):
        checkpoint.save(step, {})
    (tmp_path / "step_000000003.pt").unlink()
    assert checkpoint.latest().name == "step_000000002.pt"
    (tmp_path / "latest").unlink()
    assert checkpoint.latest().name == "step_000000002.pt"


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path, keep_last=1)
    checkpoint.save(1, {"value": 1})

    def full(payload: dict, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(2, {"value": 2})
    assert names(tmp_path) == ["latest", "step_000000001.pt"]
    assert checkpoint.load(checkpoint.latest())["value"] == 1


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(2), {1, 2}, Path("x")])
def test_only_plain_values_are_saved(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a"):
        Checkpoint(tmp_path, keep_last=1).save(1, {"a": [0, value]})
    assert names(tmp_path) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped"])
def test_a_damaged_file_names_the_intact_one(tmp_path, damage):
    checkpoint = Checkpoint(tmp_path, keep_last=3)
    for step in (1, 2, 3):
        checkpoint.save(step, {"weights": torch.randn(1000)})
    for name in ("step_000000002.pt", "step_000000003.pt"):
        path, content = tmp_path / name, (tmp_path / name).read_bytes()
        if damage == "flipped":
            flip_byte(path, len(content) // 2)
        else:
            path.write_bytes({"truncated": content[:2000], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(UserError) as error:
        checkpoint.load(checkpoint.latest())
    assert "step_000000003.pt cannot be read; step_000000001.pt beside it is intact" in str(
        error.value
    )
    (tmp_path / "step_000000001.pt").unlink()
    with pytest.raises(UserError, match="no intact one"):
        checkpoint.load(checkpoint.latest())


def test_absent_foreign_and_newer_files(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        Checkpoint.load(tmp_path / "step_000000001.pt")
    torch.save({"weights": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="format_version None, this program reads 1"):
        Checkpoint.load(tmp_path / "other.pt")
    torch.save({"format_version": 9}, tmp_path / "newer.pt")
    with pytest.raises(UserError, match="format_version 9"):
        Checkpoint.load(tmp_path / "newer.pt")


def test_files_that_would_run_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"format_version": 1, "x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="cannot be read"):
        Checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "pwned").exists()


def test_seeding_repeats():
    seed_everything(5)
    first = draw()
    seed_everything(5)
    assert draw() == first


def test_training_continues_bit_for_bit(tmp_path):
    seed_everything(0)
    net = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(net.parameters())

    def update() -> None:
        optimizer.zero_grad()
        net(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        update()
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "rng": rng_state()}
    path = Checkpoint(tmp_path, keep_last=1).save(3, state)
    for _ in range(3):
        update()
    wanted = copy.deepcopy(net.state_dict())
    loaded = Checkpoint.load(path)
    net.load_state_dict(loaded["net"])
    optimizer.load_state_dict(loaded["optimizer"])
    set_rng_state(loaded["rng"])
    for _ in range(3):
        update()
    assert all(torch.equal(value, wanted[key]) for key, value in net.state_dict().items())


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(
            UserError, match=f"device '{name}' cannot be used here; auto or cpu can"
        ):
            choose_device(name)
