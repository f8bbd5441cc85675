"""One step counter followed through every hop: environment, episode, file, rows, window, pair.

After step n of an episode the environment shows pixel n and pays reward n; the recorded action that
answers pixel n says n too. So at every hop all numbers of one row must name the same n.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamer.data.episode import DatasetInfo
from dreamer.data.hdf5 import read_episodes, write_dataset
from dreamer.data.store import RowStore
from dreamer.data.stream import WindowStream
from dreamer.envs.counting import CountingEnv
from dreamer.types import Batch, Latent
from fosp_ext.dataset.recording import play_episode
from fosp_ext.transitions import real_transitions

SIZE, T = 8, 9
INFO = DatasetInfo("counting", ("vision", "vision_back"), 1, SIZE, 2)
LENGTHS = ((10, None), (20, 7), (12, None))  # (time limit, true end)
TRUE_END = 7


class RecordedEnv(CountingEnv):
    """The parts of an environment that a recording needs beyond gymnasium."""

    def privileged(self) -> int:
        return self.count


class ActionOfImage:
    """A policy whose action encodes the image it is taken at."""

    def reset(self) -> None:
        """Nothing to forget."""

    def act(self, count: int) -> np.ndarray:
        return action_for(np.array(count))


def action_for(count: np.ndarray) -> np.ndarray:
    return np.stack([count / 100, -count / 50], -1).astype(np.float32)


def cost_for(count: np.ndarray) -> np.ndarray:
    """The reset is no step: its image comes without cost."""
    return ((count % 3 == 0) & (count > 0)).astype(np.float32)


@pytest.fixture(scope="module")
def episodes():
    return [
        play_episode(RecordedEnv(length, end, INFO.cameras, SIZE), ActionOfImage(), "count", seed)
        for seed, (length, end) in enumerate(LENGTHS)
    ]


@pytest.fixture(scope="module")
def path(episodes, tmp_path_factory):
    path = tmp_path_factory.mktemp("alignment") / "counting.h5"
    write_dataset(path, episodes, INFO)
    return path


@pytest.fixture(params=["ram", "disk"])
def store(path, request) -> RowStore:
    return RowStore.open(path, request.param, holdout=0)[0]


def counters(images: np.ndarray) -> np.ndarray:
    """The step counter in each image (..., SIZE, SIZE, 3) -> (...)."""
    flat = images.reshape(*images.shape[:-3], -1)
    assert np.all(flat == flat[..., :1])
    return flat[..., 0].astype(np.int64)


def check_rows(count, cost, reward, action, is_last) -> None:
    """Convention 1, for rows of any leading shape."""
    np.testing.assert_array_equal(reward, count)
    np.testing.assert_array_equal(cost, cost_for(count))
    np.testing.assert_array_equal(action, action_for(count) * (1 - is_last)[..., None])


def test_an_episode_pairs_each_action_with_what_it_caused(episodes, path):
    for recorded, read in zip(episodes, read_episodes(path), strict=True):
        for episode in (recorded, read):
            count = counters(episode.images["vision"])  # (T+1,)
            np.testing.assert_array_equal(count, np.arange(episode.length + 1))
            np.testing.assert_array_equal(counters(episode.images["vision_back"]), count + 100)
            np.testing.assert_array_equal(episode.action, action_for(count[:-1]))
            np.testing.assert_array_equal(episode.reward, count[1:])
            np.testing.assert_array_equal(episode.cost, cost_for(count[1:]))
    assert [episode.length for episode in episodes] == [10, TRUE_END, 12]
    assert [episode.terminated for episode in episodes] == [False, True, False]


def test_rows_name_one_step_each(store):
    window = store.windows([0], len(store))
    small = zip(window._fields[1:], window[1:], strict=True)
    rows = {name: value[0].numpy() for name, value in small}
    count = counters(window.obs["vision"][0].numpy())
    wanted = np.concatenate([np.arange(n + 1) for n in (10, TRUE_END, 12)])
    np.testing.assert_array_equal(count, wanted)
    np.testing.assert_array_equal(counters(window.obs["vision_back"][0].numpy()), count + 100)
    check_rows(count, rows["cost"], rows["reward"], rows["action"], rows["is_last"])
    np.testing.assert_array_equal(rows["is_first"], count == 0)
    np.testing.assert_array_equal(np.flatnonzero(rows["is_last"]), [10, 18, 31])
    np.testing.assert_array_equal(np.flatnonzero(rows["is_terminal"]), [18])


def batch_of(store: RowStore) -> tuple[Batch, np.ndarray]:
    """Many windows and the counters in their images, (B, T)."""
    batch = WindowStream(store, batch_size=64, length=T, seed=0).batch(3)
    return batch, counters(batch.obs["vision"].numpy())


@pytest.mark.invariant(36)
def test_windows_keep_the_rows_together(store):
    batch, count = batch_of(store)
    assert count.shape == (64, T)
    np.testing.assert_array_equal(counters(batch.obs["vision_back"].numpy()), count + 100)
    last = batch.is_last.numpy()
    check_rows(count, batch.cost.numpy(), batch.reward.numpy(), batch.action.numpy(), last)
    np.testing.assert_array_equal(last[:, :-1], count[:, 1:] == 0)
    np.testing.assert_array_equal(batch.is_first[:, 0].numpy(), 1)
    np.testing.assert_array_equal(batch.is_first[:, 1:].numpy(), count[:, 1:] == 0)
    np.testing.assert_array_equal(batch.is_terminal.numpy(), last * (count == TRUE_END))
    assert 0 < batch.is_terminal.sum() < batch.is_last.sum()


@pytest.mark.invariant(14)
def test_transitions_pair_a_row_with_its_successor(store):
    batch, count = batch_of(store)
    deter = torch.from_numpy(count).float().unsqueeze(-1)  # (B, T, 1): the state is the counter
    real = real_transitions(Latent(deter, torch.zeros(*count.shape, 0, 1)), batch)
    inside = real.mask.numpy().astype(bool)
    assert 0 < inside.sum() < inside.size
    np.testing.assert_array_equal(inside, count[:, 1:] > 0)
    before, after = (x.squeeze(-1).numpy()[inside] for x in (real.feat, real.feat_next))
    np.testing.assert_array_equal(after, before + 1)
    np.testing.assert_array_equal(real.action.numpy()[inside], action_for(before))
    np.testing.assert_array_equal(real.reward.numpy()[inside], after)
    np.testing.assert_array_equal(real.cost.numpy()[inside], cost_for(after))
    np.testing.assert_array_equal(real.start_cost.numpy()[inside], cost_for(before))
    ends = real.last_next.numpy()[inside].astype(bool)
    np.testing.assert_array_equal(real.cont.numpy()[inside], ~(ends & (after == TRUE_END)))
