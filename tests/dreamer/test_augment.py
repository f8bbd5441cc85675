"""Changed training images: one change per sequence, a function of seed and index alone."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

import train
from dreamer.data.augment import SHIFT, augmentation
from dreamer.data.store import RowStore
from dreamer.data.stream import WindowStream
from dreamer.types import Batch
from fosp_ext.config import TrainConfig
from tests.support.agents import make_batch, same_batch
from tests.support.commands import metrics, offline

NAMES = TrainConfig.__dataclass_fields__["augment"].metadata["choices"]
CHANGING = ("shift", "colour", "light")


def changed(name: str, images: Tensor, seed: int = 0) -> Tensor:
    """The changed (B, T, size, size, 3) images of one camera."""
    batch = make_batch()._replace(obs={"vision": images}, action=torch.zeros(len(images), 1, 2))
    return augmentation(name)(batch, np.random.default_rng(seed)).obs["vision"]


@pytest.mark.parametrize("name", NAMES)
def test_images_keep_their_form_and_all_else_is_kept(name):
    batch = make_batch()
    before = make_batch()
    after = augmentation(name)(batch, np.random.default_rng(0))
    assert same_batch(batch, before), "the images that came in are not written to"
    for camera, images in after.obs.items():
        assert (images.shape, images.dtype) == ((4, 8, 64, 64, 3), torch.uint8)
        assert images.is_contiguous()
        assert torch.equal(images, batch.obs[camera]) == (name == "none")
    assert all(torch.equal(a, b) for a, b in zip(after[1:], batch[1:], strict=True))


@pytest.mark.parametrize("name", CHANGING)
def test_one_change_for_all_steps_and_another_for_the_next_sequence(name):
    image = make_batch().obs["vision"][0, 0]
    images = changed(name, image.expand(4, 5, 64, 64, 3))
    assert torch.equal(images, images[:, :1].expand_as(images))
    assert len({tuple(sequence[0].flatten().tolist()) for sequence in images}) == 4


@pytest.mark.parametrize("name", CHANGING)
def test_batches_depend_on_seed_and_index_only(toy_dataset, name):
    """Also of the random numbers of torch, which the training draws from at the same time."""
    store = RowStore.open(toy_dataset, "ram")[0]
    one, other, plain = (
        WindowStream(store, 2, 6, seed=3, augmentation=augmentation(x))
        for x in (name, name, "none")
    )
    state = torch.get_rng_state()
    batch = one.batch(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    other.batch(4)
    assert same_batch(batch, other.batch(5))
    prefetched = other.iterate(5, torch.device("cpu"))
    assert same_batch(batch, next(prefetched))
    prefetched.close()
    assert not same_batch(batch, plain.batch(5))
    assert all(torch.equal(a, b) for a, b in zip(batch[1:], plain.batch(5)[1:], strict=True))


def test_shift_moves_by_up_to_four_pixels_and_repeats_edges():
    images = torch.zeros(300, 1, 64, 64, 3, dtype=torch.uint8)
    images[:, :, 32, 32] = 255
    images[:, :, 0, :] = 7
    moved = changed("shift", images)
    places = (moved[..., 0] == 255).nonzero()  # (300, 4): sequence, step, row, column
    assert len(places) == 300
    down, across = places[:, 2] - 32, places[:, 3] - 32
    reach = set(range(-4, 5))
    assert round(SHIFT * 64) == 4
    assert set(down.tolist()) == set(across.tolist()) == reach
    edges = (moved[:, 0, :, 0, 0] == 7).sum(1)  # rows that show the upper edge
    assert torch.equal(edges, torch.clamp(1 + down, min=0))


def test_each_camera_shifts_on_its_own_and_light_falls_on_both():
    batch = make_batch(B=8)
    batch = batch._replace(obs=dict.fromkeys(batch.obs, batch.obs["vision"]))
    for name, together in {"shift": False, "colour": True, "light": True}.items():
        front, back = augmentation(name)(batch, np.random.default_rng(0)).obs.values()
        assert torch.equal(front, back) == together


def test_colour_changes_light_within_its_limits():
    grey = torch.full((200, 1, 64, 64, 3), 100, dtype=torch.uint8)
    lit = changed("colour", grey).float()
    assert torch.equal(lit.amin((1, 2, 3, 4)), lit.amax((1, 2, 3, 4))), "grey stays grey and even"
    levels = lit[:, 0, 0, 0, 0]
    assert 57 <= levels.min() < 70  # 60 to 140, and what rounding adds
    assert 130 < levels.max() <= 141


def test_light_dims_all_pixels_by_one_factor_and_reaches_the_night():
    image = torch.tensor([200, 100, 40], dtype=torch.uint8).expand(300, 1, 64, 64, 3)
    dimmed = changed("light", image)
    assert torch.equal(dimmed.amin((2, 3)), dimmed.amax((2, 3)))
    red, green, blue = dimmed[:, 0, 0, 0].float().unbind(-1)
    assert red.min() < 0.27 * 200
    assert red.max() > 1.22 * 200
    assert 0.2 < (red < 0.4 * 200).float().mean() < 0.4, "a fifth to two fifths below night's 0.4"
    torch.testing.assert_close(red / 2, green, atol=1, rtol=0)
    torch.testing.assert_close(red / 5, blue, atol=1, rtol=0)


def test_colour_keeps_what_is_green_green():
    """The goal is green, hazards are blue: no change may turn one into the other."""
    for channel in range(3):
        images = torch.full((100, 1, 64, 64, 3), 40, dtype=torch.uint8)
        images[..., channel] = 200
        lit = changed("colour", images)[:, 0, 0, 0]  # (100, 3)
        assert lit.argmax(-1).eq(channel).all()
        assert lit.unique(dim=0).shape[0] > 50


def test_a_run_with_changed_images_goes_on_exactly(toy_dataset, toy_run, tmp_path):
    words = ("--run.save_every", "1", "--augment", "shift", "--run.heldout_every", "0")
    for name, updates in (("straight", "3"), ("stopped", "2"), ("stopped", "3")):
        argv = offline(toy_dataset, tmp_path / name, *words, "--run.updates", updates)
        assert train.main(argv) == 0
    straight = metrics(tmp_path / "straight")
    assert straight == metrics(tmp_path / "stopped")
    assert straight[0] != metrics(toy_run)[0]


def test_held_out_metrics_see_true_images(toy_dataset, tmp_path, monkeypatch):
    """Only the thread that prepares training batches changes any."""
    threads = []

    def note(batch: Batch, rng: np.random.Generator) -> Batch:
        threads.append(threading.current_thread().name)
        return batch

    monkeypatch.setattr("fosp_ext.run.offline.augmentation", lambda name: note)
    assert train.main(offline(toy_dataset, tmp_path, "--run.updates", "3")) == 0
    assert "heldout/reward_loss" in metrics(tmp_path)[-1]
    assert threads
    assert {name.split("_")[0] for name in threads} == {"batches"}


def test_another_augmentation_is_refused(toy_dataset, toy_run, capsys):
    assert train.main(offline(toy_dataset, toy_run, "--augment", "colour")) == 2
    assert "augment 'none', this command says 'colour'" in capsys.readouterr().err
    assert train.main(offline(toy_dataset, toy_run, "--augment", "color")) == 2
    assert "did you mean 'colour'" in capsys.readouterr().err
