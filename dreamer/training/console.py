"""The line by which a running training says where it is and how it does."""

from __future__ import annotations

from collections.abc import Mapping

OFFLINE = {  # tag -> word, in the order in which they are shown
    "eval/score": "return",
    "eval/cost": "cost",
    "eval/violation_rate": "violations",
    "train/wm/loss": "model loss",
}
ONLINE = {
    "episode/score": "return",
    "episode/cost": "cost",
    "episode/violation_rate": "violations",
    "training_cost/total": "training cost",
    "eval/score": "eval return",
    "eval/cost": "eval cost",
}
SMOOTHING = 0.3  # share of the newest interval in the expected duration of an update


class Console:
    """Remembers the last value of what is shown, and how long updates take."""

    def __init__(self, headline: Mapping[str, str], total: int | None) -> None:
        """`headline` maps tags to words; `total` updates make a whole run, if that is known."""
        self._headline, self._total = headline, total
        self._latest: dict[str, float] = {}
        self._seconds: list[float] = []  # of an update: in the first interval, then smoothed

    def note(self, metrics: Mapping[str, float]) -> None:
        """Take in numbers, of which those of the headline stay until they come again."""
        self._latest |= {tag: x for tag, x in metrics.items() if tag in self._headline}

    def numbers(self) -> dict[str, str]:
        """Word -> last value, of all that is known so far; shares are percentages."""
        return {
            word: f"{100 * self._latest[tag]:.1f} %" if tag.endswith("_rate")
            else f"{self._latest[tag]:.4g}"
            for tag, word in self._headline.items()
            if tag in self._latest
        }  # fmt: skip

    def line(self, step: int, rate: float) -> str:
        """Where the run is after `step` updates, of which there were `rate` a second lately."""
        words = [f"update {step}" if self._total is None else f"update {step}/{self._total}"]
        if rate > 0:
            words.append(f"{rate:.3g} updates/s")
            self._expect(1 / rate)
            if self._total is not None:
                left = max(self._total - step, 0) * self._seconds[-1]
                words.append(f"{duration(left)} left")
        return "  ".join([*words, *(f"{word} {x}" for word, x in self.numbers().items())])

    def _expect(self, seconds: float) -> None:
        """The first interval holds the warm-up: the second one replaces it."""
        if len(self._seconds) < 2:
            self._seconds.append(seconds)
        else:
            self._seconds[1] += SMOOTHING * (seconds - self._seconds[1])


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
