"""The log of training episodes: warnings by hand, the file, its sums."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dreamer.data.episode import Episode
from dreamer.errors import NonFiniteError, UserError
from dreamer.training.collector import CollectedEpisode
from dreamer.training.episode_log import EpisodeLog, EpisodeRecord, onsets
from fosp_ext.report.statistics import cost_regret
from fosp_ext.run.episode_log import describe
from fosp_ext.run.warnings import LOOKAHEAD, Warnings, count_warnings
from tests.support.pages import ROOT, documented

WARNING = 0.5


def at(T: int, *steps: int) -> np.ndarray:
    """(T,) bool, true at these steps."""
    return np.isin(np.arange(T), steps)


def played(
    cost: list[float], env: int = 0, steps: int = 100, updates: int = 1, **estimates
) -> EpisodeRecord:
    """The record of an episode with these costs and a reward of 0.5 per step."""
    T = len(cost)
    episode = Episode(
        images={"vision": np.zeros((T + 1, 2, 2, 3), np.uint8)},
        action=np.zeros((T, 2), np.float32),
        reward=np.full(T, 0.5, np.float32),
        cost=np.array(cost, np.float32),
        terminated=False,
        seed=7 + env,
    )
    columns = {name: np.array(column, np.float32) for name, column in estimates.items()}
    return describe(CollectedEpisode(0, episode, columns), env, updates, steps, WARNING, 0.5)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Warnings


def test_the_horizon_is_the_one_that_the_pages_name():
    assert LOOKAHEAD == 25


def test_a_violation_begins_where_the_step_before_had_none():
    assert onsets(at(8, 0, 1, 3, 6, 7)).tolist() == at(8, 0, 3, 6).tolist()
    assert not onsets(at(3)).any()


@pytest.mark.parametrize(
    ("warning_at", "warned"),
    [
        (40, 1),  # the state in which the action that violates is chosen: the last that counts
        (41, 0),  # the state that the violation led to: too late
        (40 - LOOKAHEAD + 1, 1),  # the first of 25 states
        (40 - LOOKAHEAD, 0),  # the 26th: too early
        (0, 0),
    ],
)
def test_which_warnings_come_before_a_violation_at_step_40(warning_at, warned):
    warnings = count_warnings(at(90, warning_at).astype(float), at(90, 40), WARNING)
    assert warnings == Warnings(raised=1, judged=1, false=1 - warned, warned=warned)


@pytest.mark.parametrize(("step", "warning_at"), [(0, 0), (3, 0), (LOOKAHEAD - 1, 0), (3, 3)])
def test_at_the_beginning_of_an_episode_there_are_fewer_states(step, warning_at):
    assert count_warnings(at(60, warning_at).astype(float), at(60, step), WARNING).warned == 1


def test_the_violation_probability_must_be_above_the_threshold():
    assert count_warnings(np.full(30, WARNING), at(30, 10), WARNING) == Warnings(0, 0, 0, 0)
    assert count_warnings(np.full(30, WARNING + 0.001), at(30, 10), WARNING).warned == 1


def test_warnings_near_the_end_are_judged_only_where_their_steps_were_recorded():
    T = 60
    for warning_at, judged in ((T - LOOKAHEAD, 1), (T - LOOKAHEAD + 1, 0), (T - 1, 0)):
        warnings = count_warnings(at(T, warning_at).astype(float), at(T), WARNING)
        assert warnings == Warnings(raised=1, judged=judged, false=judged, warned=0)
    seen = count_warnings(at(T, T - 2).astype(float), at(T, T - 1), WARNING)
    assert seen == Warnings(raised=1, judged=1, false=0, warned=1)  # a violation is enough


def test_warnings_equal_a_plain_search():
    rng = np.random.default_rng(0)
    counts = np.zeros(4, int)
    for T in (1, 2, 24, 25, 26, 51, 200, 200, 200):
        violation_probability, violations = rng.random(T), rng.random(T) < 0.05
        raised = violation_probability > 0.9
        steps = range(T)
        hit = [violations[t : t + LOOKAHEAD].any() for t in steps]
        known = [hit[t] or t + LOOKAHEAD <= T for t in steps]
        begins = [t for t in steps if violations[t] and (t == 0 or not violations[t - 1])]
        plain = Warnings(
            raised=sum(raised[t] for t in steps),
            judged=sum(raised[t] and known[t] for t in steps),
            false=sum(raised[t] and known[t] and not hit[t] for t in steps),
            warned=sum(raised[max(0, t - LOOKAHEAD + 1) : t + 1].any() for t in begins),
        )
        assert count_warnings(violation_probability, violations, 0.9) == plain
        counts += plain
    assert (counts > 0).all()
    assert counts[0] > counts[1] > counts[2]


# The line and its metrics


def test_one_episode_by_hand(tmp_path):
    log = EpisodeLog(tmp_path / "episodes.jsonl", resume_steps=0)
    cost = [0, 0.25, 0, 2, 1, 0]
    episode = played(
        cost, 1, 48, 12, violation_probability=[0.1, 0.1, 0.6004, 0.9, 0.1, 0.2], online=[0, 1, 1,
        0, 1, 0], value=[3.0] * 6,
    )  # fmt: skip
    metrics = log.add(episode)
    assert lines(tmp_path / "episodes.jsonl") == [
        {
            "episode": 0, "env": 1, "seed": 8, "updates": 12, "agent_steps": 48, "score": 3.0,
            "cost": 3.25, "length": 6, "terminated": False, "violations": 2, "onsets": 1,
            "violation": "000110", "online_share": 0.5, "online": "011010",
            "violation_probability_mean": pytest.approx(2.0 / 6), "violation_probability_max": 0.9,
            "warnings": 2,
            "judged_warnings": 2, "false_warnings": 0, "warned": 1,
            "violation_probability": [0.1, 0.1, 0.6, 0.9, 0.1, 0.2],
        }
    ]  # fmt: skip
    assert metrics == pytest.approx(
        {
            "episode/score": 3, "episode/cost": 3.25, "episode/length": 6,
            "episode/violation_rate": 2 / 6, "episode/onsets": 1, "episode/online_share": 0.5,
            "episode/violation_probability_mean": 2 / 6, "episode/violation_probability_max": 0.9,
            "episode/warning_share": 2 / 6,
            "episode/warning_recall": 1, "episode/false_warning_share": 0,
            "training_cost/total": 3.25, "training_cost/violating_episodes": 1,
            "training_cost/rate": 3.25 / 6,
            "training_cost/ema": 0.0325,
        }
    )  # fmt: skip
    assert all(type(value) is float for value in metrics.values())


def test_a_policy_without_estimates(tmp_path):
    log = EpisodeLog(tmp_path / "episodes.jsonl", 0)
    metrics = log.add(played([0, 1, 0]))
    assert {tag for tag in metrics if tag.startswith("episode/")} == {
        f"episode/{name}" for name in ("score", "cost", "length", "violation_rate", "onsets")
    }
    (line,) = lines(tmp_path / "episodes.jsonl")
    assert not {"violation_probability", "online", "warned", "warnings"} & line.keys()


def test_a_share_of_nothing_is_left_out(tmp_path):
    log = EpisodeLog(tmp_path / "episodes.jsonl", 0)
    metrics = log.add(played([0] * 3, violation_probability=[0.9] * 3))  # too short to judge
    assert metrics["episode/warning_share"] == 1
    assert not {"episode/warning_recall", "episode/false_warning_share"} & metrics.keys()


def test_warnings_are_counted_as_they_are_written(tmp_path):
    """0.5004 is written as 0.5, which is not above 0.5."""
    log = EpisodeLog(tmp_path / "episodes.jsonl", 0)
    log.add(played([0, 0], violation_probability=[0.5004, 0.5006]))
    (line,) = lines(tmp_path / "episodes.jsonl")
    assert (line["warnings"], line["violation_probability"]) == (1, [0.5, 0.501])


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_estimate_that_is_not_finite_stops_the_run(tmp_path, broken):
    log = EpisodeLog(tmp_path / "episodes.jsonl", 0)
    first = log.add(played([1.0, 0.0]))
    with pytest.raises(NonFiniteError, match="an episode of environment 2: the estimate 'value'"):
        log.add(played([1.0, 0.0], 2, violation_probability=[0.1, 0.2], value=[1, broken]))
    assert len(lines(tmp_path / "episodes.jsonl")) == len(log) == 1
    second = log.add(played([1.0, 0.0]))
    assert (
        second["training_cost/total"] == 2 * first["training_cost/total"]
    )  # the broken one was not counted


def test_every_tag_is_documented_and_exists(tmp_path):
    log = EpisodeLog(tmp_path / "episodes.jsonl", 0)
    metrics = log.add(played([0] * 30 + [1], violation_probability=[0.9] * 31, online=[1] * 31))
    said = {tag for tag in documented() if tag.startswith(("episode/", "training_cost/"))}
    assert said == metrics.keys()


def test_every_field_is_documented(tmp_path):
    log = EpisodeLog(tmp_path / "episodes.jsonl", 0)
    log.add(played([0] * 30 + [1], violation_probability=[0.9] * 31, online=[1] * 31))
    (line,) = lines(tmp_path / "episodes.jsonl")
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    _, _, section = text.partition("## episodes.jsonl")
    said = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^- (`.*?): ", section, re.M))))
    assert said == line.keys()


# The training cost, and going on


def play(log: EpisodeLog, episodes: range) -> list[dict[str, float]]:
    """Episode k ends after 10 (k + 1) agent steps; every third one is without a violation."""
    rng = [np.random.default_rng(k) for k in episodes]
    return [
        log.add(
            played(
                (k % 3 > 0) * g.random(10) * 3,
                k % 2,
                10 * (k + 1),
                k,
                violation_probability=g.random(10),
            )
        )
        for k, g in zip(episodes, rng, strict=True)
    ]


def test_the_training_cost_is_summed_over_episodes(tmp_path):
    log = EpisodeLog(tmp_path / "episodes.jsonl", 0)
    last = play(log, range(7))[-1]
    costs = np.array([line["cost"] for line in lines(tmp_path / "episodes.jsonl")])
    assert (costs > 0).tolist() == [False, True, True] * 2 + [False]
    assert last["training_cost/total"] == pytest.approx(costs.sum())
    assert last["training_cost/violating_episodes"] == 4
    assert last["training_cost/rate"] == pytest.approx(costs.sum() / 70)
    assert last["training_cost/ema"] == cost_regret(costs, 1)[-1]


@pytest.mark.parametrize("tail", ["", '{"episode": 7, "le', '{"episode": 7}\n', "17"])
def test_going_on_equals_never_having_stopped(tmp_path, tail):
    whole = EpisodeLog(tmp_path / "whole.jsonl", 0)
    expected = play(whole, range(9))
    path = tmp_path / "episodes.jsonl"
    play(EpisodeLog(path, 0), range(7))
    with path.open("a") as file:
        file.write(tail)  # killed while writing
    log = EpisodeLog(path, resume_steps=45)  # between the 4th and the 5th
    assert len(log) == 4
    assert path.read_bytes() == b"".join(
        (tmp_path / "whole.jsonl").read_bytes().splitlines(True)[:4]
    )
    assert play(log, range(4, 9)) == expected[4:]
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "whole.jsonl"]


def test_an_episode_that_ended_at_the_checkpoint_stays(tmp_path):
    path = tmp_path / "episodes.jsonl"
    play(EpisodeLog(path, 0), range(5))
    assert len(EpisodeLog(path, resume_steps=40)) == 4
    assert len(EpisodeLog(path, resume_steps=39)) == 3
    assert len(EpisodeLog(path, resume_steps=0)) == 0
    assert path.read_bytes() == b""


def test_a_whole_last_line_without_its_end_is_completed(tmp_path):
    path = tmp_path / "episodes.jsonl"
    play(EpisodeLog(path, 0), range(2))
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    play(EpisodeLog(path, resume_steps=20), range(2, 3))
    assert [line["episode"] for line in lines(path)] == [0, 1, 2]


@pytest.mark.parametrize("words", ["{", "[1]", '{"agent_steps": 10}', ""])
def test_damage_elsewhere_is_told(tmp_path, words):
    path = tmp_path / "episodes.jsonl"
    play(EpisodeLog(path, 0), range(3))
    kept = path.read_text().splitlines()
    kept[1] = words
    before = "\n".join(kept) + "\n"
    path.write_text(before)
    with pytest.raises(UserError, match=r"episodes\.jsonl: line 2 is damaged"):
        EpisodeLog(path, resume_steps=30)
    assert path.read_text() == before
