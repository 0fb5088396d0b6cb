"""Sets from a data directory: the real MNIST, and small generated ones in the same layout."""

from __future__ import annotations

import hashlib
import pickle
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import CIFAR10, SVHN

from vae.data import (
    Cifar10,
    DataError,
    Emnist,
    FashionMnist,
    Kmnist,
    Mnist,
    Svhn,
    data_directory,
    load_test,
    load_training,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.vae.data.conftest import DataDirectory


def test_mnist_is_fifty_ten_ten(mnist_dir: Path) -> None:
    """MNIST's usual protocol: 50,000 to train, 10,000 to select, 10,000 to test."""
    data, test = load_training(Mnist(), mnist_dir), load_test(Mnist(), mnist_dir)
    assert data.validation is not None
    assert [len(s.images) for s in (data.train, data.validation, test)] == [50_000, 10_000, 10_000]
    assert (data.shape, data.levels, data.num_classes) == ((1, 28, 28), 255, 10)
    assert data.train.images.is_contiguous()
    assert torch.cat([data.train.labels, data.validation.labels]).bincount()[:2].tolist() == [5923, 6742]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.data_hash == "7260a7355c338e8392209e125b7d63c7ff7749e3d215d14dee1e731393040450"
    assert data.split_hash == "ccf5629e843e7123705e4a780fd2bebc7fe8feaa72d5a269ec792bc5e037741b"


def test_mnist_published_protocol(mnist_dir: Path) -> None:
    """With ``validation: 0`` all 60,000 images train, in the file's order."""
    data = load_training(Mnist(validation=0), mnist_dir)
    assert data.validation is None
    assert len(data.train.images) == 60_000
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.train.digest == data.data_hash


def test_mnist_from_the_environment(mnist_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESEARCH_DATA_DIR is where data are looked for when nothing else is said."""
    monkeypatch.setenv("RESEARCH_DATA_DIR", str(mnist_dir))
    assert len(load_test(Mnist(), None).images) == 10_000


def test_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument comes before RESEARCH_DATA_DIR, and that before ./data; always an absolute path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESEARCH_DATA_DIR", raising=False)
    assert data_directory(None) == tmp_path.resolve() / "data"
    monkeypatch.setenv("RESEARCH_DATA_DIR", "elsewhere")
    assert data_directory(None) == tmp_path.resolve() / "elsewhere"
    assert data_directory(tmp_path / "here") == tmp_path.resolve() / "here"


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize(
    ("config", "folder", "train", "test"),
    [
        (Mnist(), "MNIST", "train", "t10k"),
        (FashionMnist(), "FashionMNIST", "train", "t10k"),
        (Kmnist(), "KMNIST", "train", "t10k"),
    ],
    ids=["mnist", "fashion_mnist", "kmnist"],
)
def test_own_files_in_the_same_layout(
    data: DataDirectory, config: Mnist, folder: str, train: str, test: str, *, compressed: bool
) -> None:
    """Any size and number of images is accepted, raw or compressed, and a sixth is held out."""
    images = data.write_noise(500, 32, 20, folder=folder, prefix=train, compressed=compressed)
    data.write_noise(70, 32, 20, folder=folder, prefix=test, compressed=compressed)
    before = data.listing()
    loaded = load_training(config, data.path)
    assert loaded.validation is not None
    assert (len(loaded.train.images), len(loaded.validation.images)) == (417, 83)
    assert loaded.shape == (1, 32, 20)
    assert load_test(config, data.path).images.shape == (70, 1, 32, 20)
    everything = load_training(type(config)(validation=0), data.path).train
    assert np.array_equal(everything.images[:, 0].numpy(), images)
    assert data.listing() == before


def test_split_seed_and_digests(data: DataDirectory) -> None:
    """The split follows its seed, and one changed pixel or label changes what the data are called."""
    data.write_noise(60)
    first = load_training(Mnist(), data.path)
    assert load_training(Mnist(split_seed=1), data.path).split_hash != first.split_hash
    assert load_training(Mnist(split_seed=1), data.path).data_hash == first.data_hash
    raw = data.path / "MNIST" / "raw"
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        original = (raw / name).read_bytes()
        (raw / name).write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        elsewhere = data.path / f"{name}-changed"
        (elsewhere / "MNIST").mkdir(parents=True)
        (elsewhere / "MNIST" / "raw").symlink_to(raw)
        assert load_training(Mnist(), elsewhere.absolute()).data_hash != first.data_hash
        (raw / name).write_bytes(original)


def test_too_much_validation(data: DataDirectory) -> None:
    """Holding out everything is refused with both numbers."""
    data.write_noise(60)
    with pytest.raises(DataError, match=r"below 60.*got 60"):
        load_training(Mnist(validation=60), data.path)


def test_counts_must_agree(data: DataDirectory) -> None:
    """As many labels as images, or both files are named."""
    data.write(np.zeros((5, 4, 4)), np.zeros(6))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte has 6 labels but train-images\S+ 5 images"):
        load_training(Mnist(), data.path)


def test_labels_must_exist(data: DataDirectory) -> None:
    """A label that the set doesn't have is refused with the file's name and the label."""
    data.write(np.zeros((3, 4, 4)), np.array([0, 9, 10]))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is corrupt: .* 0 to 9, found 10"):
        load_training(Mnist(), data.path)


def test_emnist_is_upright(data: DataDirectory) -> None:
    """EMNIST's files hold columns first: images come out as people write them."""
    images = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    data.write(images, np.array([0, 46]), folder="EMNIST", prefix="emnist-balanced-train")
    loaded = load_training(Emnist(), data.path)
    assert loaded.shape == (1, 5, 3)
    assert np.array_equal(loaded.train.images[:, 0].numpy(), images.transpose(0, 2, 1))
    assert loaded.train.images.is_contiguous()
    assert loaded.num_classes == 47


def test_emnist_letters_start_at_zero(data: DataDirectory) -> None:
    """The letters are labelled 1 to 26 in the file, 0 to 25 here; a 0 in the file is no letter."""
    data.write(np.zeros((2, 4, 4)), np.array([1, 26]), folder="EMNIST", prefix="emnist-letters-train")
    assert load_training(Emnist(emnist_split="letters"), data.path).train.labels.tolist() == [0, 25]
    data.write(np.zeros((2, 4, 4)), np.array([0, 26]), folder="EMNIST", prefix="emnist-letters-test")
    with pytest.raises(DataError, match="labels must be 1 to 26, found 0"):
        load_test(Emnist(emnist_split="letters"), data.path)


def test_half_a_set_is_left_alone(data: DataDirectory) -> None:
    """A set without its test part trains; its test part is refused, and never mixed with a download."""
    data.write_noise(60)
    before = data.listing()
    load_training(Mnist(), data.path)
    with pytest.raises(DataError, match=r"MNIST/raw has some files of mnist but not t10k-images-idx3-ubyte"):
        load_test(Mnist(), data.path)
    assert data.listing() == before


class Evil:
    """A pickle that writes a file when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        """What the unpickler is told to call."""
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("complete", [False, True], ids=["alone", "among others"])
def test_strange_pickles_are_never_opened(data: DataDirectory, tmp_path: Path, *, complete: bool) -> None:
    """A CIFAR-10 batch that isn't the published one is refused by name, and nothing in it runs."""
    marker = tmp_path / "marker"
    folder = data.path / "cifar-10-batches-py"
    folder.mkdir()
    names = [name for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]] if complete else ["data_batch_3"]
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Evil(marker)))
    before = data.listing()
    with pytest.raises(DataError, match=r"py/data_batch_\d is not the published file.*move it away"):
        load_training(Cifar10(), data.path)
    assert not marker.exists()
    assert data.listing() == before


def test_strange_svhn_is_refused(data: DataDirectory) -> None:
    """An SVHN file that isn't the published one is refused by name and left as it is."""
    savemat(data.path / "train_32x32.mat", {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.ones((4, 1))})
    with pytest.raises(DataError, match=r"train_32x32\.mat is not the published file.*replace it"):
        load_training(Svhn(), data.path)


def test_cifar10_pixels(data: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels come first, rows before columns, batches in order."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
    folder = data.path / "cifar-10-batches-py"
    folder.mkdir()

    def put(name: str, content: dict[str, object]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    halves = [put(f"data_batch_{i}", {"data": pixels[i::2].reshape(5, -1), "labels": [i] * 5}) for i in range(2)]
    monkeypatch.setattr(CIFAR10, "train_list", halves)
    whole = put("test_batch", {"data": pixels.reshape(10, -1), "labels": [2] * 10})
    monkeypatch.setattr(CIFAR10, "test_list", [whole])
    meta = put("batches.meta", {"label_names": ["a", "b", "c"]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    train = load_training(Cifar10(validation=0), data.path).train
    assert np.array_equal(train.images.numpy(), np.concatenate([pixels[0::2], pixels[1::2]]))
    assert train.labels.tolist() == [0] * 5 + [1] * 5
    assert np.array_equal(load_test(Cifar10(), data.path).images.numpy(), pixels)


def test_svhn_pixels(data: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels come first, rows before columns, and the digit 0, which the file calls 10, is 0."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    file = data.path / "train_32x32.mat"
    labels = np.array([[1], [2], [10], [9], [5], [6], [7]], np.uint8)
    savemat(file, {"X": pixels.transpose(2, 3, 1, 0), "y": labels})
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(SVHN.split_list, "train", ["http://unused.invalid", file.name, md5])
    train = load_training(Svhn(validation=0), data.path).train
    assert np.array_equal(train.images.numpy(), pixels)
    assert train.labels.tolist() == [1, 2, 0, 9, 5, 6, 7]
    assert train.images.is_contiguous()


@pytest.mark.parametrize("config", [Mnist(), Emnist(), Cifar10(), Svhn()], ids=lambda config: config.kind)
def test_unreadable_files_are_named(data: DataDirectory, config: Mnist, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file system refuses is one line with the path, not a traceback."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.exists", refuse)
    monkeypatch.setattr("os.path.lexists", refuse)
    with pytest.raises(DataError, match=rf"{re.escape(str(data.path))}/\S+ can't be read: Permission denied"):
        load_training(config, data.path)
