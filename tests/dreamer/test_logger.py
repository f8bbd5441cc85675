from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dreamer.errors import NonFiniteError, UserError
from dreamer.training.logger import Logger
from dreamer.training.sinks import check_loggers
from dreamer.training.video import annotate, to_gif, write_mp4


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder: Path) -> EventAccumulator:
    reader = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0}
    )
    return reader.Reload()


def moving_square(count: int = 6, height: int = 32, width: int = 48) -> np.ndarray:
    frames = np.full((count, height, width, 3), (30, 60, 90), np.uint8)
    for t in range(count):
        frames[t, 8:20, 4 + 4 * t : 16 + 4 * t] = (220, 180, 40)
    return frames


def without_timing(row: dict) -> dict:
    return {tag: value for tag, value in row.items() if not tag.startswith(("fps/", "time/"))}


def test_averages_reach_both_files(tmp_path):
    logger = Logger(tmp_path, quiet=True)
    logger.add({"loss": torch.tensor(1.0), "rate": 0.5}, prefix="train")
    logger.add({"loss": torch.tensor(3.0, dtype=torch.bfloat16), "rate": 1.5}, prefix="train")
    logger.add({"loss": torch.tensor(8.0), "extra": torch.tensor(2)}, prefix="train")
    logger.write(10)
    logger.add({"eval/score": 7.0})
    logger.write(20)
    logger.close()
    assert [without_timing(row) for row in rows(tmp_path)] == [
        {"step": 10, "train/loss": 4.0, "train/rate": 1.0, "train/extra": 2.0},
        {"step": 20, "eval/score": 7.0},
    ]
    reader = events(tmp_path)
    assert [(e.step, e.value) for e in reader.Scalars("train/loss")] == [(10, 4.0)]
    assert [(e.step, e.value) for e in reader.Scalars("eval/score")] == [(20, 7.0)]


def test_adding_does_not_wait_for_the_device(tmp_path):
    """Reading a tensor's value is what waits; on the meta device it is impossible."""
    logger = Logger(tmp_path, quiet=True)
    logger.add({"loss": torch.zeros((), device="meta", requires_grad=True)})
    logger.add({"loss": torch.zeros((), device="meta")})
    logger.close()


def test_rates_and_timers(tmp_path):
    logger = Logger(tmp_path, quiet=True, resume_step=5)
    with logger.timer("update"):
        time.sleep(0.02)
    logger.write(15, env_steps=100)
    time.sleep(0.01)
    logger.write(25, env_steps=300)
    logger.write(25)
    logger.close()
    first, second, third = rows(tmp_path)
    assert 0.02 <= first["time/update_s"] < 0.2
    assert 0 < first["fps/updates"] <= 10 / 0.02
    assert "fps/env" not in first
    assert second["step/env"] == 300
    assert second["fps/env"] == pytest.approx(20 * second["fps/updates"])
    assert third == {"step": 25}


def test_non_finite_metrics_stop_the_run_after_the_rest_is_written(tmp_path):
    logger = Logger(tmp_path, quiet=True)
    logger.add(
        {"good": torch.tensor(1.0), "bad": torch.tensor(float("nan")), "worse": float("inf")}
    )
    with pytest.raises(NonFiniteError, match=r"not finite: bad, worse"):
        logger.check_finite()
    with pytest.raises(NonFiniteError, match=r"not finite at step 3: bad, worse"):
        logger.write(3)
    logger.add({"bad": 1.0})
    logger.check_finite()
    logger.write(4)
    logger.close()
    assert [without_timing(row) for row in rows(tmp_path)] == [
        {"step": 3, "good": 1.0},
        {"step": 4, "bad": 1.0},
    ]


def write_with_rows(folder: Path, monkeypatch, every: int) -> list[dict]:
    """Lines of `write`, one per 10 s and 20 updates, with a row of its own each `every` s."""
    now = [0.0]
    monkeypatch.setattr("dreamer.training.logger.time.perf_counter", lambda: now[0])
    logger = Logger(folder, quiet=True)
    for second in range(31):
        now[0] = float(second)
        step, env_steps = 2 * second, 4 * second
        logger.add({"loss": float(second)})
        if every and second % every == 0:
            logger.row({"episode/score": float(second)}, step, env_steps)
        if second % 10 == 0:
            logger.write(step, env_steps)
    logger.close()
    return [row for row in rows(folder) if "episode/score" not in row]


def test_rows_disturb_neither_averages_nor_rates(tmp_path, monkeypatch):
    plain = write_with_rows(tmp_path / "plain", monkeypatch, 0)
    assert write_with_rows(tmp_path / "rows", monkeypatch, 3) == plain
    assert plain[-1] == {
        "step": 60, "loss": 25.5, "fps/updates": 2.0, "fps/env": 4.0, "step/env": 120.0,
    }  # fmt: skip


def test_a_row_is_written_at_once_in_both_files(tmp_path, capsys):
    logger = Logger(tmp_path)
    logger.row({"episode/score": 3.0, "episode/cost": 1.0}, step=5, env_steps=40)
    logger.row({"episode/score": 4.0}, step=5, env_steps=40)
    assert rows(tmp_path) == [
        {"step": 5, "episode/score": 3.0, "episode/cost": 1.0, "step/env": 40.0},
        {"step": 5, "episode/score": 4.0, "step/env": 40.0},
    ]
    shown = events(tmp_path).Scalars("episode/score")
    assert [(e.step, e.value) for e in shown] == [(5, 3.0), (5, 4.0)]
    logger.close()
    assert capsys.readouterr().out == ""


def test_a_row_that_is_not_finite(tmp_path):
    logger = Logger(tmp_path, quiet=True)
    with pytest.raises(NonFiniteError, match="not finite at step 3: bad"):
        logger.row({"good": 1.0, "bad": float("nan")}, step=3, env_steps=6)
    logger.close()
    assert rows(tmp_path) == [{"step": 3, "good": 1.0, "step/env": 6.0}]


def test_checking_keeps_the_averages(tmp_path):
    logger = Logger(tmp_path, quiet=True)
    logger.add({"loss": 1.0})
    logger.check_finite()
    logger.add({"loss": 3.0})
    logger.write(1)
    logger.close()
    assert rows(tmp_path)[0]["loss"] == 2.0


def test_resuming_drops_what_comes_again(tmp_path):
    logger = Logger(tmp_path, quiet=True)
    for step in (10, 20, 30):
        logger.add({"loss": float(step)})
        logger.write(step)
    logger.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # killed while writing
    time.sleep(1.1)  # event files are named by the second
    logger = Logger(tmp_path, quiet=True, resume_step=20)
    logger.add({"loss": 31.0})
    logger.write(30)
    logger.close()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(10, 10), (20, 20), (30, 31)]
    assert [(e.step, e.value) for e in events(tmp_path).Scalars("loss")] == [
        (10, 10),
        (20, 20),
        (30, 31),
    ]


def test_resuming_drops_episodes_after_the_checkpoint(tmp_path):
    """They end between two updates, so the number of updates does not tell."""
    logger = Logger(tmp_path, quiet=True)
    for step, env_steps in ((10, 20), (20, 40), (20, 41), (21, 40)):
        logger.row({"episode/score": 1.0}, step, env_steps)
    logger.add({"loss": 1.0})
    logger.write(20)  # a line without agent steps
    logger.close()
    everything = [(10, 20), (20, 40), (20, 41), (20, None)]
    for env_steps, kept in ((None, everything), (40, everything[:2] + everything[3:])):
        Logger(tmp_path, quiet=True, resume_step=20, resume_env_steps=env_steps).close()
        assert [(row["step"], row.get("step/env")) for row in rows(tmp_path)] == kept


def test_histograms_and_videos(tmp_path):
    logger = Logger(tmp_path, quiet=True)
    frames = moving_square()
    logger.histogram("value", torch.arange(100.0, requires_grad=True), 5)
    logger.video("openl", frames, 5, fps=10)
    logger.close()
    reader = events(tmp_path)
    assert reader.Histograms("value")[0].histogram_value.num == 100
    clip = Image.open(io.BytesIO(reader.Images("openl")[0].encoded_image_string))
    assert (clip.format, clip.n_frames, clip.info["duration"]) == ("GIF", 6, 100)
    clip.seek(3)
    np.testing.assert_allclose(np.asarray(clip.convert("RGB")), frames[3], atol=4)


def test_lines_without_a_terminal(tmp_path, capsys):
    logger = Logger(tmp_path, total_steps=100, headline=("train/loss",), resume_step=0)
    logger.add({"train/loss": 0.12345, "train/other": 1.0})
    logger.write(50)
    logger.message("saved")
    logger.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("update 50/100  train/loss 0.1235  ")
    assert first.endswith("0:00:00 left")
    assert second == "saved"


def test_a_bar_on_a_terminal(tmp_path, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    logger = Logger(tmp_path, total_steps=100, headline=("train/loss",), resume_step=0)
    logger.tick(3)
    logger.add({"train/loss": 0.5})
    logger.write(50)
    logger.close()
    assert "50/100" in screen.getvalue()
    assert "loss=0.5" in screen.getvalue()


def test_quiet_shows_nothing(tmp_path, capsys):
    logger = Logger(tmp_path, quiet=True)
    logger.add({"train/wm/loss": 1.0})
    logger.write(1)
    logger.message("text")
    logger.close()
    assert capsys.readouterr() == ("", "")


def test_mp4_is_read_back(tmp_path):
    av = pytest.importorskip("av")
    frames = moving_square(height=33, width=47)  # odd on purpose
    path = write_mp4(tmp_path / "clips" / "a.mp4", frames, fps=12.5)
    assert path == tmp_path / "clips" / "a.mp4"
    assert list(path.parent.iterdir()) == [path]
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 12.5
        back = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(stream)])
    assert back.shape == (6, 34, 48, 3)
    assert np.abs(back[:, :33, :47].astype(int) - frames).mean() < 6


def test_without_av_a_gif_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = write_mp4(tmp_path / "a.mp4", moving_square(), fps=20)
    assert path == tmp_path / "a.gif"
    assert Image.open(path).n_frames == 6


def test_gif_colours_and_speed():
    clip = Image.open(io.BytesIO(to_gif(moving_square(3), fps=25)))
    assert (clip.n_frames, clip.info["duration"], clip.info["loop"]) == (3, 40, 0)


def test_annotation_is_a_band_below():
    frame = moving_square(1)[0]
    out = annotate(frame, ["step 1", "cost 0"])
    assert out.dtype == np.uint8
    assert out.shape == (32 + 32, 48, 3)
    np.testing.assert_array_equal(out[:32], frame)
    assert (out[32:] > 128).any()


def test_weights_and_biases_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    for start in (None, 10):  # begun and continued: one run
        logger = Logger(tmp_path, quiet=True, resume_step=start, shown_in=("tensorboard", "wandb"))
        logger.add({"train/loss": torch.tensor(2.5)})
        logger.write(10 if start is None else 20)
        logger.histogram("values", torch.arange(5.0), 10)
        logger.video("open_loop", moving_square(), 10, fps=5)
        logger.close()
    assert [row["train/loss"] for row in rows(tmp_path)] == [2.5, 2.5]
    assert len(events(tmp_path).Scalars("train/loss")) == 2
    records = sorted((tmp_path / "wandb").rglob("*.wandb"))
    number = (tmp_path / "wandb" / "run-id").read_text()
    assert {path.name for path in records} == {f"run-{number}.wandb"}
    content = b"".join(path.read_bytes() for path in records)
    for part in (b"train/loss", b"update", b"values", b"open_loop", b"seed"):
        assert part in content
    assert list((tmp_path / "wandb").rglob("media/videos/*.gif"))


def test_no_program_has_to_show_a_run(tmp_path):
    logger = Logger(tmp_path, quiet=True, shown_in=())
    logger.add({"loss": 1.0})
    logger.write(1)
    logger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_program_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_loggers(("tensorboard",))
    with pytest.raises(UserError, match="pip install wandb"):
        check_loggers(("tensorboard", "wandb"))
