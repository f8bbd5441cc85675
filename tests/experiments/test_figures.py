"""Figures of the documentation: of a run folder, of augmented images, of variants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamer.training.video import to_gif, write_mp4
from experiments import augmentation, figures, variants


def video(light: int) -> np.ndarray:
    """Frames (T, H, W, 3) of one grey."""
    return np.full((6, 32, 64, 3), light, np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What of a run folder is drawn."""
    folder = tmp_path / "run"
    (folder / "open_loop").mkdir(parents=True)
    lines = [{"step": 5 * k, "eval/score": k, "eval/cost": 2 * k} for k in range(1, 4)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "open_loop" / "openl_vision_000000015.gif").write_bytes(to_gif(video(90), 10))
    write_mp4(folder / "eval" / "15" / "videos" / "ep_000.mp4", video(200), 25)
    return folder


def light(path: Path) -> float:
    return float(np.asarray(Image.open(path).convert("L")).mean())


def test_curves_and_both_videos(run, tmp_path, capsys):
    assert figures.main([str(run), "--out", str(tmp_path / "images")]) == 0
    assert Image.open(tmp_path / "images" / "curves.png").width > 1000
    assert light(tmp_path / "images" / "open_loop.gif") == pytest.approx(90, abs=4)
    assert light(tmp_path / "images" / "policy.gif") == pytest.approx(200, abs=4)
    assert "figures: " in capsys.readouterr().out


def test_augmented_images(toy_dataset, tmp_path):
    out = tmp_path / "augmentation.png"
    assert augmentation.main([str(toy_dataset), "--row", "0", "--out", str(out)]) == 0
    with Image.open(out) as drawn:
        assert min(drawn.size) > 100


def test_variants(tmp_path):
    views = {
        name: dict.fromkeys(("front", "back"), np.zeros((8, 8, 3), np.uint8))
        for name in ("none", "night")
    }
    variants.draw(views, tmp_path / "variants.png")
    with Image.open(tmp_path / "variants.png") as drawn:
        assert min(drawn.size) > 100


def test_another_video(run, tmp_path, refuse):
    other, images = tmp_path / "other.mp4", tmp_path / "images"
    argv = [str(run), "--out", str(images), "--video", str(other)]
    assert "no video" in refuse(argv, figures.main)
    write_mp4(other, video(30), 25)
    assert figures.main(argv) == 0
    assert light(images / "policy.gif") == pytest.approx(30, abs=4)
