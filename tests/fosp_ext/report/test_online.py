"""The report of online runs: their episodes, the training cost, before and after."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamer.data.episode import Episode
from dreamer.training.collector import CollectedEpisode
from dreamer.training.episode_log import EpisodeLog
from fosp_ext.report.__main__ import main
from fosp_ext.report.learning import evenly
from fosp_ext.report.runs import ALONE, EPISODES, EVALUATIONS, Run, group_runs, read_run
from fosp_ext.report.strips import draw_episodes
from fosp_ext.report.tables import results
from fosp_ext.report.training_cost import before_and_after, training_cost_table, while_learning
from fosp_ext.run.episode_log import describe
from tests.support.reports import Reader, add_evaluation, make_run

CALM = "0" * 60
LATE = "0" * 40 + "11" + "0" * 18  # one violation of two steps, at 40


def make_online(folder: Path, *names: str, **overrides: str) -> Path:
    """The folder of an online run that has not finished any episode."""
    return make_run(folder, *(names or ("fosp_online", "debug")), rows=0, **overrides)


def play(
    run: Path, *violations: str, violation_probability: list | None = None, online: str = ""
) -> None:
    """Episodes of the given violations, two cost each, as the training writes them."""
    log = EpisodeLog(run / "episodes.jsonl", resume_steps=10**9)
    for word in violations:
        T, number = len(word), len(log)
        estimates = (
            {"violation_probability": np.array(violation_probability, np.float32)}
            if violation_probability
            else {}
        )
        if online:
            estimates["online"] = np.array([float(bit) for bit in online], np.float32)
        episode = Episode(
            images={"vision": np.zeros((T + 1, 8, 8, 3), np.uint8)},
            action=np.zeros((T, 2), np.float32),
            reward=np.full(T, 0.5, np.float32),
            cost=np.array([2.0 * int(bit) for bit in word], np.float32),
            terminated=False,
        )
        ended = {"updates": number + 1, "agent_steps": T * (number + 1)}
        log.add(
            describe(
                CollectedEpisode(0, episode, estimates), env=0, **ended, warning=0.5, violation=0.5
            )
        )


def warned_at(*steps: int) -> list[float]:
    """Violation probability of an episode of 60 steps, high at these."""
    return [0.9 if step in steps else 0.1 for step in range(60)]


def read(*paths: Path) -> list[Run]:
    return [read_run(path) for path in paths]


# Reading


def test_training_episodes_are_read_as_they_were_written(tmp_path):
    run = make_online(tmp_path / "a")
    play(run, "0110", "0000", violation_probability=[0.1234, 0.5, 1.0, 0.0], online="0101")
    with (run / "episodes.jsonl").open("a") as file:
        file.write('{"episode": 2, "upd')  # a crash cut this line off
    first, second = read_run(run).episodes
    assert (first.number, first.updates, first.agent_steps) == (0, 1, 4)
    assert (first.score, first.cost, second.cost) == (2, 4, 0)
    assert first.violation.tolist() == [False, True, True, False]
    assert first.onsets.tolist() == [False, True, False, False]
    assert first.violation_probability.tolist() == [0.123, 0.5, 1.0, 0.0]
    assert first.online.tolist() == [False, True, False, True]
    bare = make_online(tmp_path / "b")
    assert read_run(bare).episodes == ()
    play(bare, "01")
    assert read_run(bare).episodes[0].violation_probability is None
    assert read_run(bare).episodes[0].online is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"cost"', '"price"', "'cost' is missing"),
        ('"violation": "01"', '"violation": "0x"', "invalid literal"),
        ('"violation": "01"', '"violation": "011"', "differ in length"),
        ('"violation": "01"', '"violation": 7', "not iterable"),
    ],
)
def test_a_damaged_episode_is_one_line(tmp_path, capsys, old, new, message):
    run = make_online(tmp_path / "a")
    play(run, "01", violation_probability=[0.1, 0.2])
    text = (run / "episodes.jsonl").read_text()
    assert old in text
    (run / "episodes.jsonl").write_text(text.replace(old, new))
    assert main([str(run), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: .*episodes\.jsonl is no list of training episodes: .*\n", error)
    assert message in error


def test_seeds_go_on_from_seeds(tmp_path):
    runs = read(
        *(make_online(tmp_path / f"a{k}", seed=k, init_from=f"off{k}") for k in "01"),
        make_online(tmp_path / "b", policy_set__kappa="1.0", init_from="off0"),
        make_run(tmp_path / "c", run__log_every="7"),
        make_run(tmp_path / "d", seed="1"),
    )
    groups = group_runs(runs)
    assert [[run.path.name for run in group.runs] for group in groups] == [
        ["a0", "a1"], ["b"], ["c", "d"],
    ]  # fmt: skip
    assert [group.label for group in groups] == [
        "fosp_online-debug-paper, policy_set.kappa=0.1",
        "fosp_online-debug-paper, policy_set.kappa=1.0",
        "fosp_offline-debug-paper",
    ]


def test_one_seed_from_two_offline_runs_is_two_groups(tmp_path):
    runs = read(
        *(
            make_online(tmp_path / f"{length}{k}", seed=k, init_from=f"{length}/seed{k}")
            for length in ("short", "long")
            for k in "01"
        )
    )
    groups = group_runs(runs)
    assert [[run.path.name for run in group.runs] for group in groups] == [
        ["short0", "short1"],
        ["long0", "long1"],
    ]
    assert groups[1].label == "fosp_online-debug-paper, init_from=long/seed*"


def test_evaluations_of_a_set_and_of_its_policies(tmp_path):
    path = make_online(tmp_path / "a")
    tags = {"eval": 1.0, "eval/online_only": 2.0, "eval/offline_only": 3.0}
    row = {"step": 5}
    for tag, value in tags.items():
        row |= {f"{tag}/score": value, f"{tag}/cost": 0.0, f"{tag}/safe_episodes": 1.0}
    (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (run,) = read(path)
    assert [run.curve(source).score[0] for source in (EVALUATIONS, *ALONE)] == [1, 2, 3]
    assert run.curve(EPISODES) is None
    found = results(group_runs([run]))
    assert {result.name: result.scores[0][0] for result in found} == {
        "fosp_online-debug-paper, policy set": 1,
        "fosp_online-debug-paper, online policy alone": 2,
        "fosp_online-debug-paper, offline policy alone": 3,
    }
    add_evaluation(path, [9.0], [0.0], policy="online")
    (result,) = results(group_runs(read(path)))
    assert (result.name, result.scores[0][0]) == ("fosp_online-debug-paper, online policy alone", 9)


# The training cost


def test_the_training_cost_by_hand(tmp_path):
    paths = [make_online(tmp_path / seed, seed=seed) for seed in "01"]
    # warnings 20 to 40 steps and 0 steps before the violation at 40: only the second one is in time
    play(paths[0], *[LATE] * 5, violation_probability=warned_at(0, 40), online="01" * 30)
    play(paths[1], LATE, *[CALM] * 4, violation_probability=warned_at(), online="0" * 60)
    table = training_cost_table(group_runs(read(*paths)))
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["seeds"], row["episodes"], row["agent steps"]) == (2, 5, 300)
    assert row["summed cost"][0] == (20 + 4) / 2
    assert row["cost, first fifth"][0] == 4
    assert row["cost, last fifth"][0] == (4 + 0) / 2
    assert row["with a violation"] == pytest.approx((1 + 0.2) / 2)
    assert row["recall"] == (1 + 0) / 2
    assert row["false warnings"] == 0.5  # of the first seed; the second one had no warning
    assert row["online policy"] == (0.5 + 0) / 2


def test_what_cannot_be_counted_is_not_defined(tmp_path):
    run = make_online(tmp_path / "a", "safedreamer_online", "debug")
    play(run, LATE)
    (row,) = training_cost_table(group_runs(read(run))).rows
    assert np.isnan(row[-3:]).all()
    (waiting,) = read(make_online(tmp_path / "b"))
    assert training_cost_table(group_runs([waiting])).rows == []


def test_forecasts_made_while_learning(tmp_path):
    run = make_online(tmp_path / "a")
    play(run, LATE, CALM, violation_probability=warned_at(40))
    seen = while_learning(read_run(run))
    # the violation at steps 40 and 41 is announced by steps 17 ... 41, of which 40 was the warning;
    # of later steps, and of the last 24 of the calm episode, the next 25 are not recorded
    assert (seen.updates, seen.episodes) == (2, 2)
    expected = np.concatenate([np.zeros(16, bool), np.ones(26, bool), np.zeros(36, bool)])
    np.testing.assert_array_equal(seen.outcome, expected)
    assert seen.estimate[40] == 0.9
    bare = make_online(tmp_path / "b")
    play(bare, LATE)
    assert while_learning(read_run(bare)) is None


def test_before_and_after(tmp_path):
    offline = [make_run(tmp_path / f"off{k}", seed=k) for k in "01"]
    online = [
        make_online(
            tmp_path / f"on{k}",
            seed=k,
            env__variant="night",
            init_from=str(offline[int(k)]) + ("/checkpoints/step_6.pt" if k == "1" else ""),
        )
        for k in "01"
    ]
    for k in range(2):
        add_evaluation(offline[k], [1.0 + k], [50.0], name="30-night", variant="night")
        add_evaluation(offline[k], [77.0], [0.0])
        add_evaluation(online[k], [5.0 + k], [10.0], name="9-night", variant="night", policy="set")
    runs = read(*offline, *online)
    (row,) = before_and_after(results(group_runs(runs)), runs).rows
    assert row[1:3] == ("fosp_online-debug-paper, night, policy set", 2)
    assert [cell[0] for cell in row[3:]] == [1.5, 5.5, 50, 10]
    runs = read(offline[0], *online)  # the second seed's beginning is not in the report
    (row,) = before_and_after(results(group_runs(runs)), runs).rows
    assert row[2] == 1
    assert [cell[0] for cell in row[3:]] == [1, 5, 50, 10]
    runs = read(*online)
    assert before_and_after(results(group_runs(runs)), runs).rows == []


# Figures and the page


def test_many_episodes_are_thinned_out_evenly(tmp_path):
    run = make_online(tmp_path / "a")
    play(run, *["0"] * 121)
    episodes = read_run(run).episodes
    assert [episode.number for episode in evenly(episodes, 60)][::59] == [0, 120]
    gaps = np.diff([episode.number for episode in evenly(episodes, 60)])
    assert set(gaps) == {2, 3}
    assert evenly(episodes[:3], 60) == list(episodes[:3])


def test_strips_show_violation_probability_and_violations(tmp_path):
    def reds(*violations: str, **estimates) -> int:
        """Red pixels of the strips, left of the bars, above the legend."""
        run = make_online(tmp_path / str(len(list(tmp_path.iterdir()))))
        play(run, *violations, **estimates)
        light, dark = draw_episodes("a", read_run(run).episodes, warning=0.5)
        assert Image.open(io.BytesIO(dark)).size == Image.open(io.BytesIO(light)).size
        pixels = np.asarray(Image.open(io.BytesIO(light)).convert("RGB")).astype(int)
        part = pixels[: -pixels.shape[0] // 4, : pixels.shape[1] * 2 // 3]
        return int((part[..., 0] - part[..., 1:].max(-1) > 90).sum())

    assert reds(CALM, CALM) == 0
    begins = reds(CALM, "0" * 30 + "1" + "0" * 29)
    assert begins > 10
    assert begins < reds(CALM, LATE) < 2 * begins  # where it goes on the tick is smaller
    assert reds(CALM, LATE, violation_probability=warned_at(40), online="01" * 30) > begins


def test_the_page_of_an_online_run(tmp_path):
    run = make_online(tmp_path / "on", init_from="gone")
    play(run, *[LATE, CALM] * 3, violation_probability=warned_at(30, 40), online="01" * 30)
    rows = [{"step": k, "episode/score": 1.0, "episode/cost": 4.0} for k in range(1, 7)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    waiting = make_online(tmp_path / "waiting", seed="1")
    out = tmp_path / "page"
    assert main([str(run), str(waiting), "--out", str(out), "--csv", "--device", "cpu"]) == 0
    assert {path.name for path in out.iterdir()} == {
        "index.html", "training_cost.csv", "published.csv", "calibration_while_learning.csv",
        "calibration-while-learning.png", "online-episodes-SafetyPointGoal1-v0-1.png",
        "curves-training-episodes-online-phase-SafetyPointGoal1-v0.png",
    }  # fmt: skip
    page = Reader((out / "index.html").read_text())
    assert page.open == []
    said = " ".join(page.words)
    for words in (
        "seed 0: 6 training episodes in 360 agent steps, 6 gradient updates",
        "waiting: no training episode has ended yet.",
        "Training cost",
        "Online episodes in SafetyPointGoal1-v0: fosp_online-debug-paper, seed 0",
        "Reliability of the violation probability while learning",
    ):
        assert words in said, words
    with (out / "training_cost.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["episodes"], row["recall"], row["seeds"]) == ("6", "1.0", "1")
