"""Images into files that people can watch: MP4 by PyAV, animated GIF by Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dreamer.files import atomic_path

FPS = 12.5  # agent steps per second of simulated time, where a step is 0.08 s
LINE_HEIGHT = 13
MARGIN = 3


def write_mp4(path: str | Path, frames: np.ndarray, fps: float) -> Path:
    """Write (T, height, width, 3) uint8 frames as H.264; returns the path written.

    Where PyAV is not installed, a GIF is written beside it, and the returned path ends in .gif.
    """
    path = Path(path)
    try:
        import av
    except ImportError:
        path = path.with_suffix(".gif")
        with atomic_path(path) as part:
            part.write_bytes(to_gif(frames, fps))
        return path
    from fractions import Fraction

    frames = _even(frames)
    with atomic_path(path) as part, av.open(str(part), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"}
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            file.mux(stream.encode(image))
        file.mux(stream.encode())
    return path


def to_gif(frames: np.ndarray, fps: float) -> bytes:
    """(T, height, width, 3) uint8 frames as an animated GIF that repeats."""
    images = [_paletted(frame) for frame in frames]
    file = io.BytesIO()
    images[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=max(20, round(100 / fps) * 10),  # a GIF counts in hundredths of a second
        loop=0,
    )
    return file.getvalue()


def annotate(frame: np.ndarray, lines: list[str]) -> np.ndarray:
    """The frame with a dark band of text under it, (height + band, width, 3) uint8."""
    height, width, _ = frame.shape
    band = LINE_HEIGHT * len(lines) + 2 * MARGIN
    image = Image.new("RGB", (width, height + band))
    image.paste(Image.fromarray(frame))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()
    for number, line in enumerate(lines):
        place = (MARGIN, height + MARGIN + LINE_HEIGHT * number)
        draw.text(place, line, fill=(255, 255, 255), font=font)
    return np.asarray(image)


def _paletted(frame: np.ndarray) -> Image.Image:
    return Image.fromarray(frame).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _even(frames: np.ndarray) -> np.ndarray:
    """H.264 in its common form wants even sizes: repeat the last row or column where one is odd."""
    _, height, width, _ = frames.shape
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
