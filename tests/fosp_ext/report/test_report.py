"""Runs on one page: statistics by hand, calibration by hand, groups, the page, bad input."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamer.data.store import RowStore
from dreamer.errors import UserError
from dreamer.training.video import write_mp4
from fosp_ext.config import load_config
from fosp_ext.report import figures
from fosp_ext.report import violation_probability as violation_probability
from fosp_ext.report.__main__ import main
from fosp_ext.report.calibration import auroc, brier, reliability
from fosp_ext.report.headline import headline
from fosp_ext.report.page import Page
from fosp_ext.report.published import published
from fosp_ext.report.runs import EPISODES, EVALUATIONS, group_runs, points, read_metrics, read_run
from fosp_ext.report.statistics import (
    band,
    cost_regret,
    interquartile_mean,
    iqm_interval,
    mean_interval,
    on_common_steps,
)
from fosp_ext.report.tables import Table, over_tasks, result_table, results
from fosp_ext.run.warnings import LOOKAHEAD, follows
from tests.support.agents import make_agent
from tests.support.commands import snapshot
from tests.support.reports import Reader, add_evaluation, make_run

CPU = torch.device("cpu")


# Statistics


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([100.0, 1, 2, -50])) == 1.5  # one of four at each end
    assert interquartile_mean(np.array([9.0, 1, 2])) == 4  # three: nothing is left out
    np.testing.assert_array_equal(interquartile_mean(np.arange(16.0).reshape(2, 8)), [3.5, 11.5])


def test_mean_interval_counts_seeds_equally_and_draws_them():
    one = np.array([0.0, 1.0] * 200)
    mean, low, high = mean_interval([one])
    assert (mean, low, high) == pytest.approx((0.5, 0.5 - 0.049, 0.5 + 0.049), abs=0.004)
    # two seeds without spread of their own: means 0, 5 or 10 with chances 1/4, 1/2, 1/4
    assert mean_interval([np.zeros(3), np.full(50, 10.0)]) == (5, 0, 10)
    # ten seeds of one number each: standard error of the mean is 1 / sqrt(10)
    seeds = [np.array([value]) for value in (-1.0, 1.0) * 5]
    _, low, high = mean_interval(seeds)
    assert (low, high) == pytest.approx((-0.6, 0.6))


def test_one_number_has_no_interval():
    mean, low, high = mean_interval([np.array([3.0])])
    assert mean == 3
    assert np.isnan([low, high]).all()


def test_iqm_draws_seeds_within_their_task():
    flat = [[np.zeros(2), np.zeros(2)], [np.full(2, 8.0), np.full(2, 8.0)]]
    assert iqm_interval(flat) == (4, 4, 4)  # a task never takes the place of another one


def test_cost_regret_by_hand():
    np.testing.assert_allclose(cost_regret(np.array([100.0, 0.0]), 1), [1.0, 0.99])
    one_by_one = cost_regret(np.full(5, 40.0), 1)[-1]
    np.testing.assert_allclose(cost_regret(np.array([40.0]), 5), [one_by_one])


def test_band_and_common_steps_by_hand():
    first = (np.array([0.0, 10, 20]), np.array([0.0, 10, 20]))
    second = (np.array([5.0, 15]), np.array([1.0, 1]))
    steps, values = on_common_steps([first, second])
    np.testing.assert_array_equal(steps, [5, 10, 15])
    np.testing.assert_array_equal(values, [[5, 10, 15], [1, 1, 1]])
    mean, low, high = band(values)
    np.testing.assert_array_equal(mean, [3, 5.5, 8])
    np.testing.assert_allclose(low, [1, 1, 1])
    np.testing.assert_allclose(high, [5, 10, 15])
    apart = on_common_steps([first, (np.array([30.0]), np.array([1.0]))])
    assert apart[0].shape == (0,)
    assert apart[1].shape == (2, 0)


# Calibration


def test_what_follows_by_hand():
    events = np.array([0, 0, 1, 0, 0, 0, 0], bool)
    following, known = follows(events, 2)
    assert following.tolist() == [True, True, False, False, False, False, False]
    assert known.tolist() == [True] * 5 + [False] * 2  # row 4 sees rows 5 and 6; rows 5, 6 do not
    following, known = follows(np.array([0, 0, 1], bool), 25)
    assert following.tolist() == [True, True, False]  # an event counts before its own row
    assert known.tolist() == [True, True, False]


def test_what_follows_equals_a_plain_search():
    rng = np.random.default_rng(0)
    for length in (1, 5, 40):
        events = rng.random(length) < 0.1
        following, known = follows(events, 7)
        plain = [bool(events[t + 1 : t + 8].any()) for t in range(length)]
        assert following.tolist() == plain
        assert known.tolist() == [p or t + 7 < length for t, p in enumerate(plain)]


def test_auroc_by_hand():
    outcome = np.array([0, 1, 0, 1], bool)
    # pairs (with, without): .4 > .1, .4 > .35, .8 > .1, .8 > .35
    assert auroc(np.array([0.1, 0.4, 0.35, 0.8]), outcome) == 1
    # .3 > .1, .3 < .5, .8 > .1, .8 > .5
    assert auroc(np.array([0.1, 0.3, 0.5, 0.8]), outcome) == 0.75
    # .5 > .1, .5 = .5 counts half, .8 > .1, .8 > .5
    assert auroc(np.array([0.1, 0.5, 0.5, 0.8]), outcome) == 3.5 / 4
    assert auroc(np.full(4, 0.2), outcome) == 0.5
    assert np.isnan(auroc(np.array([0.1, 0.2]), np.array([True, True])))


def test_auroc_equals_counting_pairs():
    rng = np.random.default_rng(0)
    estimate, outcome = rng.integers(0, 6, 80) / 5, rng.random(80) < 0.3
    pairs = [(a > b) + (a == b) / 2 for a in estimate[outcome] for b in estimate[~outcome]]
    assert auroc(estimate, outcome) == pytest.approx(np.mean(pairs))


def test_brier_and_bins_by_hand():
    estimate, outcome = np.array([0.0, 0.05, 0.95, 1.0]), np.array([0, 1, 0, 1], bool)
    assert brier(estimate, outcome) == pytest.approx((0.95**2 + 0.95**2) / 4)
    bins = reliability(estimate, outcome, bins=10)
    np.testing.assert_allclose(bins.estimate, [0.025, 0.975])  # 1.0 belongs to the last bin
    np.testing.assert_allclose(bins.share, [0.5, 0.5])
    assert bins.rows.tolist() == [2, 2]


def test_violation_probability_is_estimated_row_by_row_of_whole_episodes(toy_dataset):
    agent = make_agent()
    _, heldout = RowStore.open(toy_dataset, "disk", 0.3)  # two episodes of 41 rows
    seen = violation_probability.forecast_episodes(agent, heldout, 7, 0.5, CPU, io.StringIO())
    assert (seen.updates, seen.episodes) == (7, 2)
    expected, outcomes = [], []
    for begin in (0, 41):
        following, known = follows(heldout.small("cost")[begin : begin + 41] >= 0.5, LOOKAHEAD)
        alone = np.array([[begin, begin + 41]])
        (p,) = violation_probability.violation_probabilities(agent, heldout, alone, CPU)
        expected.append(p[known])
        outcomes.append(following[known])
    np.testing.assert_allclose(seen.estimate, np.concatenate(expected), atol=0.02)
    np.testing.assert_array_equal(seen.outcome, np.concatenate(outcomes))
    assert 0 < len(seen.outcome) < 82
    assert ((seen.estimate > 0) & (seen.estimate < 1)).all()


def test_episodes_of_several_lengths_share_a_batch(toy_dataset, monkeypatch):
    """Each keeps its own rows, also the last one, whose window begins before it."""
    _, heldout = RowStore.open(toy_dataset, "disk", 0.3)
    agent = make_agent(precision="float32")
    bounds = np.array([[0, 41], [60, 82], [41, 60]])
    found = violation_probability.violation_probabilities(agent, heldout, bounds, CPU)
    assert [len(p) for p in found] == [41, 22, 19]
    assert all(((p > 0) & (p < 1)).all() for p in found)
    monkeypatch.setattr(violation_probability, "MOST_EPISODES", 1)
    seen = violation_probability.forecast_episodes(agent, heldout, 7, 0.5, CPU, io.StringIO())
    assert seen.episodes == 1


def test_an_agent_without_violation_probability_has_no_calibration(toy_dataset):
    _, heldout = RowStore.open(toy_dataset, "disk", 0.3)
    agent = make_agent("dreamerv3", "debug")
    assert "no reachability" in violation_probability.forecast_episodes(
        agent, heldout, 0, 0.5, CPU, io.StringIO()
    )


# Reading


def test_a_group_is_one_setting_and_its_seeds(tmp_path):
    paths = [
        make_run(tmp_path / "a", seed="0"),
        make_run(
            tmp_path / "b",
            seed="1",
            device="cpu",
            run__log_every="7",
            init_from="model/seed1",
            task="safetygym_SafetyPointGoal1-v0",
        ),
        make_run(tmp_path / "c", critic__expectile="0.9"),
        make_run(tmp_path / "d", "dreamerv3", "debug"),
        make_run(tmp_path / "e", task="SafetyPointPush1-v0"),
        make_run(tmp_path / "f", env__variant="night"),
    ]
    groups = group_runs([read_run(path) for path in paths])
    assert [[run.path.name for run in group.runs] for group in groups] == [
        ["a", "b"], ["c"], ["d"], ["e"], ["f"],
    ]  # fmt: skip
    assert [group.label for group in groups] == [
        "fosp_offline-debug-paper, critic.expectile=0.8",
        "fosp_offline-debug-paper, critic.expectile=0.9",
        "dreamerv3_offline-debug-paper",
        "fosp_offline-debug-paper",
        "fosp_offline-debug-paper, night",
    ]


def test_a_group_is_named_after_its_presets(tmp_path):
    run = make_run(tmp_path / "a", "fosp_offline", "debug")
    words = ["train.py", "--configs", "fosp_offline", "mine", "--seed", "3"]
    (run / "meta.json").write_text(json.dumps([{"command": words}]))
    assert group_runs([read_run(run)])[0].label == "fosp_offline-mine-debug-paper"
    (run / "meta.json").write_text("[]")
    assert group_runs([read_run(run)])[0].label == "fosp_offline-debug-paper"


def test_curves_come_from_metrics(tmp_path):
    path = make_run(tmp_path / "a", run__eval_episodes="5")
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "eval/sc')  # a crash cut this line off
    run = read_run(path)
    curve = run.curve(EVALUATIONS)
    assert curve.updates.tolist() == [10, 20, 30]
    assert curve.score.tolist() == [1, 2, 3]
    np.testing.assert_allclose(curve.regret, cost_regret(np.array([2.0, 4, 6]), 5))
    assert run.curve(EPISODES) is None
    assert points(run.rows, "train/x")[1].tolist() == [1, 1, 1]


def test_the_newest_evaluation_of_each_variant_counts(tmp_path):
    path = make_run(tmp_path / "a")
    assert read_run(path).newest()[0].scores.tolist() == [3]  # the last one of the training
    add_evaluation(path, [9], [0], updates=20, name="20")
    add_evaluation(path, [5, 7], [0, 4], updates=30, name="30", variant="none")
    add_evaluation(path, [1], [1], updates=30, name="30-night", variant="night")
    newest = {e.variant: e for e in read_run(path).newest()}
    assert newest.keys() == {"none", "night"}
    assert newest["none"].scores.tolist() == [5, 7]
    assert newest["none"].safe.tolist() == [1, 0]


def test_tables_by_hand(tmp_path):
    paths = [make_run(tmp_path / str(seed), seed=str(seed)) for seed in range(3)]
    other = make_run(tmp_path / "push", task="SafetyPointPush1-v0")
    for path, score in zip([*paths, other], (1.0, 2.0, 6.0, 100.0), strict=True):
        add_evaluation(path, [score, score], [0.0, score])
    found = results(group_runs([read_run(path) for path in [*paths, other]]))
    goal, push = result_table(found).rows
    assert goal[:5] == ("SafetyPointGoal1-v0", "fosp_offline-debug-paper", "30", 3, 6)
    assert [goal[k][0] for k in (5, 6, 7)] == pytest.approx([3, 1.5, 0.5])
    assert push[5][0] == 100
    (row,) = over_tasks(found).rows  # seeds 1, 2, 6, 100: the middle half is 2 and 6
    assert row[1:3] == (2, 4)
    assert row[3][0] == 4
    heading, *lines = result_table(found).plain()
    assert heading[5:8] == ["return", "return low", "return high"]
    assert all(len(line) == len(heading) for line in lines)


def test_an_interquartile_mean_that_is_a_mean_is_left_out(tmp_path):
    paths = [make_run(tmp_path / str(seed), seed=str(seed)) for seed in range(4)]
    for path in paths:
        add_evaluation(path, [1.0, 2.0], [0.0, 1.0])
    runs = [read_run(path) for path in paths]
    assert over_tasks(results(group_runs(runs[:3]))).rows == []
    assert len(over_tasks(results(group_runs(runs))).rows) == 1


def test_the_headline_names_the_safest_and_the_best(tmp_path):
    safe, fast = make_run(tmp_path / "a"), make_run(tmp_path / "b", "bc", "debug")
    told = {"time": "2026-11-26T10:00:00+0000", "machine": "Linux", "commit": "abc"}
    add_evaluation(safe, [4.0, 6.0], [0.0, 1.0], **told, processor="EPYC")
    add_evaluation(fast, [8.0], [30.0], **told)
    found = results(group_runs([read_run(path) for path in (safe, fast)]))
    task = "SafetyPointGoal1-v0"
    one = "fosp_offline-debug-paper, return 5.00, cost 0.50 (1 seed, 2 episodes)."
    assert headline(found) == [
        f"{task}: lowest cost: {one}",
        f"{task}: highest return: bc_offline-debug-paper, return 8.00, cost 30.00 "
        "(1 seed, 1 episodes).",
        "Evaluated 2026-11-26 on EPYC, Linux; commit abc.",
    ]
    assert headline(found[:1])[0] == f"{task}: {one}"
    assert headline([]) == []


def test_shares_are_percentages_on_the_page():
    rows = [("a", 0.256, (0.5, 0.25, 0.75), float("nan"), 0.256)]
    columns = ("runs", "share", "interval", "unknown", "number")
    page = Page("x")
    page.table(Table("t", "T", columns, rows, frozenset(columns[1:4])))
    said = Reader(page.text()).words
    assert {"25.6 %", "[25, 75]", "not defined", "0.256"} <= set(said)
    assert "50 % " in said, "its interval follows"


def test_published_values_are_those_of_the_plots():
    goal = {(p.method, p.phase): (p.score, p.cost) for p in published("SafetyPointGoal1-v0")}
    assert len(goal) == 6
    assert goal["FOSP", "offline"] == (18.5, 2)
    assert goal["DreamerV3", "online"] == (26.2, 54)
    assert published("SafetyCarButton1-v0") == []


def test_training_episodes_have_curves_too(tmp_path):
    path = make_run(tmp_path / "a", rows=0)
    lines = [{"step": k, "episode/score": 1.0, "episode/cost": 1.0} for k in (1, 2)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups = group_runs([read_run(path)])
    assert figures.draw_curves(groups, EVALUATIONS) is None
    light, dark = figures.draw_curves(groups, EPISODES)
    assert Image.open(io.BytesIO(light)).size == Image.open(io.BytesIO(dark)).size
    assert light != dark


# The page


@pytest.fixture(scope="module")
def reported(toy_run, tmp_path_factory) -> Path:
    """The report of a trained run with a video, a second seed, and a blind run in another task."""
    folder = tmp_path_factory.mktemp("reported")
    trained = Path(shutil.copytree(toy_run, folder / "trained <1>"))
    video = add_evaluation(trained, [4.0, 6.0], [0.0, 3.0]) / "videos" / "ep_000.mp4"
    write_mp4(video, np.zeros((4, 64, 96, 3), np.uint8), 5)
    config = load_config(trained / "config.yaml")
    second = make_run(folder / "second", seed="1")
    text = (trained / "config.yaml").read_text().replace("\nseed: 0\n", "\nseed: 1\n")
    assert text != (trained / "config.yaml").read_text()
    (second / "config.yaml").write_text(text)
    blind = make_run(folder / "blind", "dreamerv3", "debug", task="SafetyPointPush1-v0")
    before = snapshot(folder)
    words = [str(path) for path in (trained, second, blind, trained)]
    assert config.dataset.path
    assert main([*words, "--out", str(folder / "page"), "--csv", "--device", "cpu"]) == 0
    after = snapshot(folder)
    assert {key: after[key] for key in before} == before, "run folders are only read"
    return folder / "page"


def test_the_page_is_whole_and_stands_alone(reported):
    text = (reported / "index.html").read_text()
    page = Reader(text)
    assert page.open == []
    assert page.sources
    videos = [source for source in page.sources if source.endswith(".mp4")]
    assert videos == ["../trained%20%3C1%3E/eval/30/videos/ep_000.mp4"]
    assert "autoplay muted loop" in text
    inside = [source for source in page.sources if source not in videos]
    assert all(source.startswith("data:image/") for source in inside)
    assert "<script" not in text
    for needed in ("prefers-color-scheme: dark", 'name="viewport"', "max-width: 100%"):
        assert needed in text
    outside = [link for link in page.links if link.startswith("http")]
    assert outside == ["https://openreview.net/forum?id=dbuFJg7eaw"]


def test_links_lead_to_runs_and_videos(reported):
    links = Reader((reported / "index.html").read_text()).links
    local = [link.replace("%20", " ").replace("%3C", "<").replace("%3E", ">") for link in links]
    local = [link for link in local if not link.startswith("http")]
    assert all((reported / link).exists() for link in local)
    assert [link for link in local if link.endswith(".mp4")] == [
        "../trained <1>/eval/30/videos/ep_000.mp4"
    ]


def test_the_page_says_what_is_there_and_what_is_missing(reported):
    said = " ".join(Reader((reported / "index.html").read_text()).words)
    for words in (
        "gradient updates",
        "read by eye from the authors' plots",
        "Reliability of the estimated violation probability",
        "second: no calibration, it has no checkpoint.",
        "blind: no calibration, it has no checkpoint.",
        "Brier score",
    ):
        assert words in said, words


def test_figures_and_tables_lie_beside_the_page(reported):
    assert {path.name for path in reported.iterdir()} == {
        "index.html", "calibration.png", "results.csv", "calibration.csv",
        "published.csv", "curves-evaluations-SafetyPointGoal1-v0.png",
        "curves-evaluations-SafetyPointPush1-v0.png", "scatter-SafetyPointGoal1-v0.png",
        "scatter-SafetyPointPush1-v0.png",
    }  # fmt: skip
    for path in reported.glob("*.png"):
        assert np.asarray(Image.open(path).convert("L")).std() > 5
    with (reported / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["seeds"]) for row in rows] == [
        ("SafetyPointGoal1-v0", "2"),
        ("SafetyPointPush1-v0", "1"),
    ]
    assert float(rows[0]["return"]) == 4.5  # seeds 5 and 4


def test_nothing_is_overwritten(tmp_path, capsys):
    run = make_run(tmp_path / "a", rows=0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out-2").mkdir()
    assert main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"page: {tmp_path / 'out-3' / 'index.html'}\n"
    assert not any((tmp_path / "out").iterdir())
    assert not any((tmp_path / "out-2").iterdir())


def test_a_run_without_evaluations_is_named(tmp_path):
    run = make_run(tmp_path / "a", rows=0)
    assert main([str(run), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "index.html").read_text()
    assert "there are no learning curves" in text
    assert "a: no evaluation, so it is in no table" in text
    assert "gone.h5 is not there" in text


def test_only_a_checkpoint_and_its_own_data_are_calibrated(toy_run, tmp_path):
    run = Path(shutil.copytree(toy_run, tmp_path / "run"))
    checkpoint = next((run / "checkpoints").glob("*6.pt"))
    assert violation_probability.forecast(read_run(run), CPU, io.StringIO()).updates == 6
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "dataset": "another"}, checkpoint)
    reason = violation_probability.forecast(read_run(run), CPU, io.StringIO())
    assert "is not the file it was trained on" in reason
    checkpoint.write_bytes(b"torn")
    assert "cannot be read" in violation_probability.forecast(read_run(run), CPU, io.StringIO())
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("holdout: 0.1", "holdout: 0.0"))
    assert "no episode is held out" in violation_probability.forecast(
        read_run(run), CPU, io.StringIO()
    )


# Bad input


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "no run folder"),
        (lambda run: shutil.rmtree(run), "there is no such folder"),
        (
            lambda run: (run / "config.yaml").write_text("a: 1\n"),
            "mode must be one of collect, offline, online, not None",
        ),
        (lambda run: (run / "metrics.jsonl").write_text("{\n{}\n"), "line 1 is damaged"),
        (lambda run: (run / "metrics.jsonl").write_text("3\n{}\n"), "line 1 is damaged"),
        (lambda run: (run / "eval/30/summary.json").write_text("{"), "no whole evaluation"),
        (lambda run: (run / "eval/30/summary.json").write_text("{}"), "'updates' is missing"),
        (lambda run: (run / "eval/30/episodes.jsonl").unlink(), "no whole evaluation"),
        (lambda run: (run / "eval/30/episodes.jsonl").write_text(""), "it has no episodes"),
    ],
)
def test_a_damaged_run_is_one_line(tmp_path, capsys, spoil, message):
    run = make_run(tmp_path / "a")
    add_evaluation(run, [1.0], [1.0])
    spoil(run)
    assert main([str(run), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: .*\n", error)
    assert message in error
    assert not (tmp_path / "out").exists()


def test_the_folder_above_runs_names_them(tmp_path):
    make_run(tmp_path / "preset" / "seed0")
    with pytest.raises(UserError, match=r"did you mean .*preset/seed0"):
        read_run(tmp_path / "preset")


def test_twins_are_refused(tmp_path, capsys):
    runs = [str(make_run(tmp_path / name)) for name in ("a", "b")]
    assert main([*runs, "--out", str(tmp_path / "out")]) == 2
    assert "the same seed 0" in capsys.readouterr().err


def test_metrics_of_no_run(tmp_path):
    with pytest.raises(UserError, match=r"no .*metrics\.jsonl"):
        read_metrics(tmp_path)


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "example:" in capsys.readouterr().out
