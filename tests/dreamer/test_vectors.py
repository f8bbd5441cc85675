"""Low-dimensional observations: recorded, encoded, decoded, and part of what a policy acts on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dreamer.agent import Agent
from dreamer.data.augment import augmentation
from dreamer.data.episode import DatasetInfo, Episode
from dreamer.data.hdf5 import fingerprint, read_episodes, validate_dataset, write_dataset
from dreamer.data.replay import EpisodeStore
from dreamer.data.store import RowStore
from dreamer.data.validation import first_difference
from dreamer.envs.adapter import ImageEnv
from dreamer.envs.contract import entries_of, unused_of, vectors_of
from dreamer.errors import DatasetError, UserError
from dreamer.types import Batch
from fosp_ext.build import build_agent
from tests.support import robot
from tests.support.agents import make_agent, make_batch, make_config
from tests.support.toy_data import TOY_INFO

ROBOT = "tests.support.robot:Robot"
INFO = DatasetInfo("robot", ("front",), 1, 16, 2, vectors={"joints": 3, "force": 1})


def episode(seed: int = 0, T: int = 6) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        images={"front": rng.integers(0, 256, (T + 1, 16, 16, 3), np.uint8)},
        action=rng.uniform(-1, 1, (T, 2)).astype(np.float32),
        reward=np.zeros(T, np.float32),
        cost=np.zeros(T, np.float32),
        terminated=False,
        vectors={
            "joints": rng.normal(size=(T + 1, 3)).astype(np.float32),
            "force": seed + np.arange(T + 1, dtype=np.float32)[:, None],
        },
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "robot.h5"
    write_dataset(path, (episode(seed) for seed in range(4)), INFO)
    return path


# data


def test_vectors_are_written_and_read(dataset):
    assert validate_dataset(dataset) == INFO
    for seed, read in enumerate(read_episodes(dataset)):
        for name, values in episode(seed).vectors.items():
            np.testing.assert_array_equal(read.vectors[name], values)


@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_a_row_has_the_vector_that_came_with_its_image(dataset, storage):
    store = RowStore.open(dataset, storage, holdout=0)[0]
    batch = store.windows([3, 9], 8)
    images = np.concatenate([episode(seed).images["front"] for seed in range(4)])
    forces = np.concatenate([episode(seed).vectors["force"] for seed in range(4)])
    for window, first in enumerate((3, 9)):
        rows = slice(first, first + 8)
        np.testing.assert_array_equal(batch.obs["front"][window].numpy(), images[rows])
        np.testing.assert_array_equal(batch.obs["force"][window].numpy(), forces[rows])
    assert batch.obs["joints"].dtype == torch.float32
    held = RowStore.open(dataset, storage, holdout=0.25)[1]
    np.testing.assert_array_equal(held.windows([0], 7).obs["force"][0].numpy(), forces[21:])
    chosen = RowStore.open(dataset, storage, holdout=0, vectors=("force",))[0]
    assert set(chosen.windows([0], 2).obs) == {"front", "force"}


def test_own_episodes_keep_their_vectors():
    store = EpisodeStore(100)
    store.add(0, episode(0))
    store.add(0, episode(1))
    obs = store.windows([5], 6).obs
    forces = np.concatenate([episode(0).vectors["force"], episode(1).vectors["force"]])
    np.testing.assert_array_equal(obs["force"][0].numpy(), forces[5:11])


@pytest.mark.parametrize("name", ["shift", "colour", "light"])
def test_augmentation_leaves_vectors_alone(dataset, name):
    batch = RowStore.open(dataset, "ram", holdout=0)[0].windows([0, 3], 8)
    after = augmentation(name)(batch, np.random.default_rng(0))
    assert list(after.obs) == list(batch.obs)
    assert not torch.equal(after.obs["front"], batch.obs["front"])
    for each in ("joints", "force"):
        assert torch.equal(after.obs[each], batch.obs[each])


def test_episodes_with_wrong_vectors_are_refused():
    for values, message in (
        (np.zeros((6, 3), np.float32), r"vectors/a must have shape \(7, 3\)"),
        (np.zeros((7, 3)), "vectors/a must be float32"),
        (np.full((7, 3), np.nan, np.float32), "not finite"),
        (np.zeros(7, np.float32), "vectors/a must have shape"),
    ):
        with pytest.raises(UserError, match=message):
            replace(episode(), vectors={"a": values})
    with pytest.raises(UserError, match="'front' names a camera and a vector"):
        replace(episode(), vectors={"front": np.zeros((7, 3), np.float32)})


def test_files_with_wrong_vectors_are_refused(dataset):
    original = fingerprint(dataset)
    with h5py.File(dataset, "a") as file:
        file["vectors/force"][2] = 7
    assert fingerprint(dataset) != original
    with h5py.File(dataset, "a") as file:
        file["vectors/force"][2] = np.nan
    with pytest.raises(DatasetError, match="'vectors/force' holds numbers that are not finite"):
        validate_dataset(dataset)
    with h5py.File(dataset, "a") as file:
        del file["vectors/force"]
        file["vectors/force"] = np.zeros((5, 1), np.float32)
    with pytest.raises(DatasetError, match=r"'vectors/force' must be float32 with shape \(28, D\)"):
        validate_dataset(dataset)
    with h5py.File(dataset, "a") as file:
        del file["vectors/force"]
    with pytest.raises(DatasetError, match="'vectors/force' is missing"):
        validate_dataset(dataset)


def test_what_differs_is_told(dataset):
    assert first_difference(INFO, replace(INFO, vectors={"joints": 3})) == (
        ("vectors", INFO.vectors, {"joints": 3})
    )
    with pytest.raises(UserError, match="episode has vectors"):
        write_dataset(dataset.with_name("b.h5"), [episode()], replace(INFO, vectors={"joints": 3}))


# the model


def agent_with(vectors: dict[str, int], *names: str, **settings: str) -> Agent:
    torch.manual_seed(0)
    config = make_config(*(names or ("fosp_offline", "debug")), **settings)
    return build_agent(config, replace(TOY_INFO, vectors=vectors), torch.device("cpu"))


def batch_with(scale: float = 1.0) -> Batch:
    batch = make_batch()
    joints = scale * torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(1))
    return batch._replace(obs=batch.obs | {"joints": joints})


@pytest.mark.parametrize("method", ["fosp_offline", "dreamerv3", "bc"])
def test_vectors_are_learned(method):
    agent = agent_with({"joints": 3}, method, "debug", world_model__optimizer__lr="3e-3")
    losses = [agent.update(batch_with())["wm/vector_loss/joints"] for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]


def test_their_loss_is_the_squared_error_in_symlog():
    model, batch = agent_with({"joints": 3}).world_model, batch_with(1e6)
    posterior, losses, _ = model.losses(batch)
    decoded = model.vector_decoder(posterior.latent.feat())["joints"]
    target = batch.obs["joints"].sign() * batch.obs["joints"].abs().log1p()
    wanted = ((decoded - target) ** 2).sum(-1)
    torch.testing.assert_close(losses["vector_loss/joints"], wanted)
    assert wanted.isfinite().all()


def test_states_and_actions_depend_on_them():
    agent, batch = agent_with({"joints": 3}), batch_with()
    torch.nn.init.normal_(agent.policy.actor.mlp[-1].weight)
    first = torch.ones(4)

    def act(joints: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        obs = {name: values[:, 0] for name, values in batch.obs.items()} | {"joints": joints}
        return agent.act(obs, first, agent.initial(4), explore=False)[0]

    joints = batch.obs["joints"][:, 0]
    assert torch.equal(act(joints), act(joints.clone()))
    assert not torch.equal(act(joints), act(joints + 1))


def test_open_loop_predictions_are_of_images_alone():
    predicted = agent_with({"joints": 3}).world_model.open_loop(batch_with(), 3)
    assert set(predicted) == set(TOY_INFO.cameras)


def test_an_agent_of_images_alone_has_nothing_of_it():
    plain, same = make_agent(), agent_with({})
    assert plain.state_dict().keys() == same.state_dict().keys()
    assert not [name for name in plain.state_dict() if "vector" in name]
    assert plain.world_model.encoder.size == agent_with({"j": 1}).world_model.encoder.size - 16


# environments


def test_an_environment_shows_the_vectors_that_are_asked_for():
    env = ImageEnv(ROBOT, ("front",), 16, vectors=("joints",))
    obs, _ = env.reset(seed=3)
    assert env.observation_space.contains(obs)
    assert env.vectors == {"joints": 3}
    np.testing.assert_allclose(obs["joints"][1:], env._inner.place, atol=1e-6)
    then = env.step(np.ones(2))[0]
    assert (then["joints"][1:] > obs["joints"][1:]).all()
    assert env.render().shape == (16, 16, 3)
    plain = ImageEnv(ROBOT, ("front",), 16)
    assert set(plain.reset(seed=3)[0]) == {"front"}
    assert plain.unused == {"joints": "float32 (3,)"}
    with pytest.raises(UserError, match="no vector 'arms' in the observation; the vectors are joi"):
        ImageEnv(ROBOT, ("front",), 16, vectors=("arms",))


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (np.zeros(4), "'joints' must be 3 finite numbers, it is float64"),
        (np.array([0, np.nan, 0]), "'joints' must be 3 finite numbers"),
        ("left", "'joints' must be numbers"),
        (None, "the observation lacks 'joints'; it has front"),
    ],
)
def test_a_wrong_vector_stops_with_its_name(joints, message):
    env = ImageEnv(ROBOT, ("front",), 16, vectors=("joints",))
    whole = env._inner.observe

    def observe() -> dict:
        obs = whole() | {"joints": joints}
        return {name: part for name, part in obs.items() if part is not None}

    env._inner.observe = observe
    with pytest.raises(UserError, match=message):
        env.reset(seed=0)


def test_nested_observations_are_named_by_their_path():
    from gymnasium.spaces import Box, Dict, Discrete

    image = Box(0, 255, (16, 16, 3), np.uint8)
    space = Dict(
        {"arm": Dict({"eye": image, "angles": Box(-1, 1, (4,))}), "speed": Box(0, 1, ()),
         "mode": Discrete(3)}
    )  # fmt: skip
    assert vectors_of(space) == {"arm.angles": 4, "speed": 1}
    assert set(entries_of(space.sample())) == {"arm.eye", "arm.angles", "speed", "mode"}
    assert unused_of(space, ("arm.eye", "arm.angles")) == {
        "mode": "int64 ()",
        "speed": "float32 ()",
    }


def test_the_data_and_the_environment_must_have_the_same():
    env = ImageEnv(ROBOT, ("front",), 16, vectors=("joints",))
    info = DatasetInfo(ROBOT, ("front",), 1, 16, 2, vectors={"joints": 3})
    env.require(info)
    for changes, message in (
        ({"vectors": {"joints": 4}}, "has vectors {'joints': 3}, the data {'joints': 4}"),
        ({"action_size": 3}, "has 2 numbers, not 3"),
        ({"environment": {"action_low": "-1 -1", "action_high": "1 1"}}, "from -2 to 2, the rec"),
    ):
        with pytest.raises(UserError, match=message):
            env.require(replace(info, **changes))
    assert robot.LIMIT == 2
