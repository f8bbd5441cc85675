"""Environments in worker processes: equal to one in this process, and what if one dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from dreamer.envs import parallel
from dreamer.envs.counting import CountingEnv
from dreamer.envs.parallel import ParallelEnvs, StepResult
from dreamer.envs.worker import THREAD_VARIABLES, one_thread_each
from dreamer.errors import DatasetError, UserError
from fosp_ext.envs import make_env

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 30.0  # seconds until a test gives up waiting for processes to end
KILL_SEED = 666  # a reset with it kills the process

# An action is (deed, number). Deeds:
NOTHING, KILL, RAISE, SIGNAL, REFUSE, SLEEP, KILL_OTHER, END_CHILD, END = map(float, range(9))


class Fragile(gymnasium.Env):
    """Does to its process what the action says. The reward is the process id, the cost the seed.

    Its image, always the same array, counts the steps. Closing it leaves a file in `folder`.
    """

    def __init__(self, folder: Path, size: int = 2, close_seconds: float = 0.0) -> None:
        self.folder, self.close_seconds = folder, close_seconds
        self.image = np.zeros((size, size, 3), np.uint8)

    def reset(self, *, seed: int) -> tuple[dict[str, np.ndarray], dict]:
        self.seed = seed
        self.image[:] = 0
        if seed == KILL_SEED:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"eye": self.image}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        deed, number = action
        self.image += 1
        if deed in (KILL, SIGNAL):
            os.kill(os.getpid(), signal.SIGKILL if deed == KILL else signal.SIGUSR1)
        elif deed == RAISE:
            raise ArithmeticError("nothing\nadds up")
        elif deed == REFUSE:
            raise DatasetError("this world has no floor; give it one")
        elif deed == SLEEP:
            sys.stdout.write("asleep\n")
            sys.stdout.flush()
            time.sleep(number)
        elif deed == KILL_OTHER:
            time.sleep(0.3)
            os.kill(int(number), signal.SIGKILL)
        elif deed == END_CHILD:
            with subprocess.Popen(["sleep", "5"]) as child:
                child.terminate()
            assert child.returncode == -signal.SIGTERM
        return {"eye": self.image}, os.getpid(), deed == END, False, {"cost": self.seed}

    def close(self) -> None:
        time.sleep(self.close_seconds)
        (self.folder / f"closed_{os.getpid()}").touch()


def do(deed: float, number: float = 0.0) -> np.ndarray:
    return np.array([deed, number])


def steps(outcome: StepResult) -> int:
    """How many steps the image has counted."""
    assert (outcome.obs["eye"] == outcome.obs["eye"].flat[0]).all()
    return int(outcome.obs["eye"].flat[0])


def pids(envs: ParallelEnvs) -> dict[int, int]:
    """The process of each worker, at the cost of a step."""
    outcomes = envs.step(dict.fromkeys(range(len(envs)), do(NOTHING)))
    return {index: int(outcome.reward) for index, outcome in outcomes.items()}


def gone(pid: int) -> bool:
    """Has this process, or its parent waited for it to, ended?"""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def refuse(kind: type[Exception], message: str) -> gymnasium.Env:
    raise kind(message)


def make_once(folder: Path) -> gymnasium.Env:
    """The first process gets its environment, later ones an error."""
    (folder / "made").touch(exist_ok=False)
    return Fragile(folder)


def same(one: StepResult, other: StepResult) -> bool:
    assert one.obs.keys() == other.obs.keys()
    return one[1:] == other[1:] and all(np.array_equal(one.obs[k], other.obs[k]) for k in one.obs)


# --- what they return ---


def test_step_results_are_those_of_the_environments():
    still = np.zeros(2, np.float32)
    with ParallelEnvs(partial(CountingEnv, length=3, size=4), 2, pytest.fail) as envs:
        assert len(envs) == 2
        begun = envs.reset({1: 11, 0: 10})
        assert list(begun) == [1, 0]
        assert begun[0][1:5] == (0.0, 0.0, False, False)
        for count in (1, 2, 3):
            (outcome,) = envs.step({1: still}).values()
            assert outcome[1:5] == (float(count), float(count == 3), False, count == 3)
            assert type(outcome.reward) is float
            assert type(outcome.truncated) is bool
            for camera, name in enumerate(("vision", "vision_back")):
                assert outcome.obs[name].dtype == np.uint8
                assert outcome.obs[name].shape == (4, 4, 3)
                assert (outcome.obs[name] == CountingEnv.pixel(count, camera)).all()
        assert envs.step({0: still})[0].reward == 1.0  # it was not moved by the steps of the other


def test_a_replay_is_the_reset_and_the_steps(tmp_path):
    with ParallelEnvs(partial(Fragile, tmp_path), 2, pytest.fail) as envs:
        played = envs.replay({0: (5, np.zeros((3, 2))), 1: (6, np.zeros((0, 2)))})
        assert [steps(outcome) for outcome in played[0]] == [0, 1, 2, 3]
        assert [outcome.cost for outcome in played[0]] == [0, 5, 5, 5]  # a reset costs nothing
        assert [steps(outcome) for outcome in played[1]] == [0]
        assert steps(envs.step({0: do(NOTHING)})[0]) == 4  # the episode goes on
        over = np.stack([do(NOTHING), do(END), do(NOTHING)])
        assert [outcome.terminated for outcome in envs.replay({0: (5, over)})[0]] == [0, 0, 1]


# --- what happens when a process dies ---


def test_lost_workers_are_restarted_and_the_warning_says_why(tmp_path):
    warnings = []
    with ParallelEnvs(partial(Fragile, tmp_path), 4, warnings.append) as envs:
        envs.reset({index: index for index in range(4)})
        before = pids(envs)
        left = envs.step({0: do(KILL), 1: do(RAISE), 2: do(SIGNAL), 3: do(NOTHING)})
        assert {index: steps(outcome) for index, outcome in left.items()} == {3: 2}
        reasons = [
            "environment 0 failed: its process was killed, perhaps for lack of memory;",
            "environment 1 failed: ArithmeticError: nothing adds up (test_parallel.py, line",
            "environment 2 failed: its process was ended by SIGUSR1;",
        ]
        assert len(warnings) == len(reasons)
        for warning, reason in zip(warnings, reasons, strict=True):
            assert warning.startswith(reason)
            assert warning.endswith("; its episode is dropped and its process restarted")
        envs.reset({0: 100, 1: 101, 2: 102})
        outcomes = envs.step(dict.fromkeys(range(4), do(NOTHING)))
        assert [steps(outcome) for outcome in outcomes.values()] == [1, 1, 1, 3]
        assert [outcome.cost for outcome in outcomes.values()] == [100, 101, 102, 3]
        after = pids(envs)
        assert [after[index] == before[index] for index in range(4)] == [False] * 3 + [True]
        assert all(gone(before[index]) for index in range(3))
        message = r"environment 1 failed for the second time.*ArithmeticError: nothing adds up"
        with pytest.raises(UserError, match=message):
            envs.step({0: do(NOTHING), 1: do(RAISE)})
    assert len(warnings) == len(reasons)
    assert all(gone(pid) for pid in after.values())


def test_a_process_may_die_between_calls_in_a_reset_and_in_a_replay(tmp_path):
    warnings = []
    with ParallelEnvs(partial(Fragile, tmp_path), 3, warnings.append) as envs:
        envs.reset({0: 0, 1: 1, 2: 2})
        os.kill(pids(envs)[0], signal.SIGKILL)
        assert list(envs.reset({0: 3, 1: KILL_SEED, 2: 4})) == [2]
        deadly = np.stack([do(NOTHING), do(KILL)])
        assert list(envs.replay({2: (1, deadly), 1: (1, deadly[:1]), 0: (1, deadly[:1])})) == [1, 0]
        assert [warning.partition(":")[0] for warning in warnings] == [
            "environment 0 failed",
            "environment 1 failed",
            "environment 2 failed",
        ]
        assert [steps(outcome) for outcome in envs.reset({0: 5, 1: 6, 2: 7}).values()] == [0, 0, 0]
        os.kill(pids(envs)[0], signal.SIGKILL)
        with pytest.raises(UserError, match=r"environment 0 failed for the second time.*killed"):
            envs.replay({0: (1, deadly[:1])})


def test_a_reply_that_was_cut_off_is_a_death(tmp_path):
    """Worker 1 hangs in its reply, longer than a pipe holds, when worker 0 kills it."""
    warnings = []
    with ParallelEnvs(partial(Fragile, tmp_path, size=1000), 2, warnings.append) as envs:
        envs.reset({0: 0, 1: 1})
        victim = pids(envs)[1]
        assert list(envs.step({0: do(KILL_OTHER, victim), 1: do(NOTHING)})) == [0]
        assert len(warnings) == 1
        assert steps(envs.reset({1: 1})[1]) == 0


def test_an_error_of_the_user_is_raised_as_it_is(tmp_path):
    with ParallelEnvs(partial(Fragile, tmp_path), 2, pytest.fail) as envs:
        envs.reset({0: 0, 1: 1})
        before = pids(envs)
        with pytest.raises(DatasetError, match=r"^this world has no floor; give it one$") as error:
            envs.step({0: do(REFUSE), 1: do(NOTHING)})
        assert error.value.exit_code == 4
        assert steps(envs.step({1: do(NOTHING)})[1]) == 3  # nothing unread is left in a pipe
        assert pids(envs) == before


# --- beginning and end ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(refuse, UserError, "no such task; use another"), "^no such task; use another$"),
        (
            partial(refuse, OSError, "no display"),
            r"environment 0 cannot be made: OSError: no display \(test_parallel.py, line",
        ),
        (partial(os._exit, 3), "environment 0 cannot be made: its process ended with exit code 3"),
    ],
)
def test_an_environment_that_cannot_be_made_is_an_error(make, message):
    with pytest.raises(UserError, match=message):
        ParallelEnvs(make, 1, pytest.fail)
    assert not multiprocessing.active_children()


def test_a_restart_that_fails_is_an_error(tmp_path):
    warnings = []
    with ParallelEnvs(partial(make_once, tmp_path), 1, warnings.append) as envs:
        envs.reset({0: 0})
        with pytest.raises(UserError, match="environment 0 cannot be made: FileExistsError"):
            envs.step({0: do(KILL)})
    assert len(warnings) == 1
    assert not multiprocessing.active_children()


def test_closing_closes_the_environments_and_leaves_no_process(tmp_path):
    envs = ParallelEnvs(partial(Fragile, tmp_path), 2, pytest.fail)
    envs.reset({0: 0, 1: 1})
    workers = pids(envs)
    envs.close()
    assert all(gone(pid) and (tmp_path / f"closed_{pid}").exists() for pid in workers.values())
    envs.close()  # a second time does nothing


def test_a_process_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "GRACE_SECONDS", 0.1)
    make = partial(Fragile, tmp_path, close_seconds=2 * TIMEOUT)
    with ParallelEnvs(make, 1, lambda _: None) as envs:
        envs.reset({0: 0})
        failed = pids(envs)[0]
        envs.step({0: do(RAISE)})
        assert gone(failed)
        envs.reset({0: 0})
        closed = pids(envs)[0]
    assert gone(closed)


def test_stop_signals_are_left_to_the_parent(tmp_path):
    """Also those that come while a process starts."""

    def disturb() -> None:
        while not (young := multiprocessing.active_children()):
            time.sleep(0.001)
        stop(young[0].pid)

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)

    thread = threading.Thread(target=disturb)
    thread.start()
    with ParallelEnvs(partial(Fragile, tmp_path), 1, pytest.fail) as envs:
        thread.join()
        envs.reset({0: 0})
        before = pids(envs)
        stop(before[0])
        assert pids(envs) == before
        envs.step({0: do(END_CHILD)})  # a process of the environment's own is not deaf
        assert pids(envs) == before
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
from dreamer.envs.parallel import ParallelEnvs
from tests.dreamer.test_parallel import NOTHING, SLEEP, Fragile, do

def main():
    envs = ParallelEnvs(partial(Fragile, Path(sys.argv[1])), 2, sys.exit)
    envs.reset({0: 0, 1: 1})
    END

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def parent(tmp_path) -> Callable[[str], subprocess.Popen]:
    """Starts a process with two workers that ends in the given way."""

    def start(end: str) -> subprocess.Popen:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.replace("END", end))
        return subprocess.Popen(
            [sys.executable, script, tmp_path],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def test_workers_end_when_their_parent_is_killed(parent):
    """Both the one that waits for work and the one that is busy with it for a long time."""
    process = parent(f"envs.step({{0: do(SLEEP, {2 * TIMEOUT})}})")
    assert process.stdout.readline() == "asleep\n"
    process.kill()
    process.communicate(timeout=TIMEOUT)  # ends when no process holds the other end of stdout


def test_a_parent_that_does_not_close_can_end(parent, tmp_path):
    process = parent("raise ValueError('forgot to close')")
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert err.count("Traceback") == 1
    assert err.endswith("ValueError: forgot to close\n")
    assert len(list(tmp_path.glob("closed_*"))) == 2


def test_linear_algebra_of_workers_has_one_thread(monkeypatch):
    kept, free, *_ = THREAD_VARIABLES
    monkeypatch.setenv(kept, "5")
    monkeypatch.delenv(free, raising=False)
    with one_thread_each():
        assert [os.environ[name] for name in THREAD_VARIABLES] == ["1"] * len(THREAD_VARIABLES)
    assert os.environ[kept] == "5"
    assert free not in os.environ


# --- with the simulator ---


@pytest.mark.sim
def test_the_simulator_plays_the_same_in_a_worker():
    """Bit for bit what it plays in this process, in each worker, at the first time and again."""
    make = partial(make_env, "SafetyPointGoal1-v0", ("vision", "vision_back"), 64, 4, "fast")
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)
    expected = {}
    with contextlib.closing(make()) as env:
        for seed in (3, 4):
            expected[seed] = [StepResult(env.reset(seed=seed)[0], 0.0, 0.0, False, False)]
            for action in actions:
                obs, reward, terminated, truncated, info = env.step(action)
                expected[seed].append(StepResult(obs, reward, info["cost"], terminated, truncated))
    assert not same(expected[3][-1], expected[4][-1])
    with ParallelEnvs(make, 2, pytest.fail) as envs:
        rows = [envs.reset({0: 3, 1: 4})]
        rows += [envs.step({0: action, 1: action}) for action in actions]
        again = envs.replay({0: (4, actions), 1: (3, actions)})
    for t, row in enumerate(rows):
        assert same(row[0], expected[3][t])
        assert same(row[1], expected[4][t])
        assert same(again[0][t], expected[4][t])
        assert same(again[1][t], expected[3][t])
