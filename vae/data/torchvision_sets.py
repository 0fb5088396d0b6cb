"""MNIST and similar sets, CIFAR-10 and SVHN, in torchvision's layout, from a data directory."""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from vae.config import part
from vae.data.dataset import Binarisation, Content, DataError, DataFields
from vae.data.download import DownloadError, download
from vae.data.idx import locate, read_idx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

LEVELS = 255

EmnistSplit = Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"]


class _InTorchvision:
    """The loading that the sets below share."""

    def load(self: TorchvisionSet, directory: Path, *, train: bool) -> Content:  # type: ignore[misc] # every subclass is one
        """Return the training or the test part, in file order."""
        images, labels = read(self, directory, train=train)
        usual = default_validation(self, len(images))
        return Content(images, labels, LEVELS, num_classes(self), validation=usual)


@part
class Mnist(_InTorchvision, DataFields):
    """70,000 handwritten digits, 28×28 (LeCun et al. 1998): 50,000 train, 10,000 validation, 10,000 test."""

    kind: Literal["mnist"] = "mnist"
    binarisation: Binarisation = "dynamic"


@part
class FashionMnist(_InTorchvision, DataFields):
    """70,000 pictures of clothes, 28×28 (Xiao et al. 2017): 50,000 train, 10,000 validation, 10,000 test."""

    kind: Literal["fashion_mnist"] = "fashion_mnist"
    binarisation: Binarisation = "dynamic"


@part
class Kmnist(_InTorchvision, DataFields):
    """70,000 cursive Japanese characters, 28×28 (Clanuwat et al. 2018), divided like MNIST."""

    kind: Literal["kmnist"] = "kmnist"
    binarisation: Binarisation = "dynamic"


@part
class Emnist(_InTorchvision, DataFields):
    """Handwritten letters and digits, 28×28 (Cohen et al. 2017), upright. A tenth of the training part is for validation.

    ``emnist_split`` is one of balanced (112,800 + 18,800 test, 47 classes), byclass (697,932 + 116,323, 62), bymerge
    (the same images, 47), letters (124,800 + 20,800, 26), digits (240,000 + 40,000, 10), mnist (60,000 +
    10,000, 10).
    """

    kind: Literal["emnist"] = "emnist"
    emnist_split: EmnistSplit = "balanced"
    binarisation: Binarisation = "dynamic"


@part
class Cifar10(_InTorchvision, DataFields):
    """60,000 colour pictures, 3×32×32 (Krizhevsky 2009): 45,000 train, 5,000 validation, 10,000 test."""

    kind: Literal["cifar10"] = "cifar10"
    binarisation: Binarisation = "none"


@part
class Svhn(_InTorchvision, DataFields):
    """99,289 colour house numbers, 3×32×32 (Netzer et al. 2011): 66,257 train, 7,000 validation, 26,032 test.

    scipy reads its file.
    """

    kind: Literal["svhn"] = "svhn"
    binarisation: Binarisation = "none"


TorchvisionSet = Mnist | FashionMnist | Kmnist | Emnist | Cifar10 | Svhn
_IdxSet = Mnist | FashionMnist | Kmnist | Emnist

# The names of torchvision's classes, which are also the names of the folders.
_TORCHVISION_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
}
_EMNIST_CLASSES: dict[EmnistSplit, int] = {
    "balanced": 47,
    "byclass": 62,
    "bymerge": 47,
    "letters": 26,
    "digits": 10,
    "mnist": 10,
}


def num_classes(config: TorchvisionSet) -> int:
    """Return the number of labels of the set."""
    return _EMNIST_CLASSES[config.emnist_split] if isinstance(config, Emnist) else 10


def default_validation(config: TorchvisionSet, total: int) -> int:
    """Return the number of ``total`` training examples to hold out: the usual number of the set, at most a sixth."""
    match config:
        case Mnist() | FashionMnist() | Kmnist():
            usual = 10_000
        case Emnist():
            usual = total // 10
        case Cifar10():
            usual = 5_000
        case Svhn():
            usual = 7_000
    return min(usual, total // 6)


def read(config: TorchvisionSet, directory: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Return images, uint8 [N, C, H, W], and labels, int64 [N], of the training or the test part, in file order.

    A set that is not in ``directory`` is downloaded to it. Existing files are never overwritten.

    Raises:
        DataError: The set is missing and can't be downloaded, or one of its files is invalid.

    """
    try:
        if directory.is_file():
            message = f"the data directory {directory} is a file: pass a directory with --data-dir"
            raise DataError(message)
        match config:
            case Cifar10():
                return _read_cifar10(config, directory, train=train)
            case Svhn():
                return _read_svhn(config, directory, train=train)
            case Mnist() | FashionMnist() | Kmnist() | Emnist():
                return _read_idx_set(config, directory, train=train)
    except OSError as error:
        message = f"{error.filename or directory} can't be read: {error.strerror or error}"
        raise DataError(message) from None


def _read_idx_set(config: _IdxSet, directory: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    _ensure_idx_set(config, directory, train=train)
    image_file, label_file = (_present(directory / file) for file in _idx_files(config, train=train))
    images, labels = read_idx(image_file, 3).unsqueeze(1), read_idx(label_file, 1).long()
    if len(images) != len(labels):
        found = f"{len(labels)} labels but {image_file.name} {len(images)} images"
        message = f"{label_file} has {found}: replace the one that is wrong"
        raise DataError(message)
    first = 0
    if isinstance(config, Emnist):
        images = images.transpose(2, 3).contiguous()  # its files are transposed
        first = 1 if config.emnist_split == "letters" else 0  # the label of "a" is 1 there
    last = first + num_classes(config) - 1
    low, high = int(labels.min()), int(labels.max())
    if low < first or high > last:
        wrong = low if low < first else high
        rule = f"labels must be {first} to {last}"
        message = f"{label_file} is corrupt: {rule}, found {wrong}; replace the file"
        raise DataError(message)
    return images, labels - first


def _idx_files(config: _IdxSet, *, train: bool) -> tuple[Path, Path]:
    """Return the paths of images and labels, relative to the data directory, without a possible .gz."""
    prefix = "train" if train else "t10k"
    if isinstance(config, Emnist):
        prefix = f"emnist-{config.emnist_split}-{'train' if train else 'test'}"
    folder = Path(_TORCHVISION_NAMES[config.kind], "raw")
    return folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte"


def _present(path: Path) -> Path:
    return locate(path) or path


def _ensure_idx_set(config: _IdxSet, directory: Path, *, train: bool) -> None:
    """Download the set if none of its files is there. Existing files may be the user's own and are not replaced."""
    files = _all_idx_files(config)
    missing = [file for file in files if locate(directory / file) is None]
    if missing == files:
        _download_idx_set(config, directory)
    elif wanted := [file.name for file in _idx_files(config, train=train) if file in missing]:
        message = (
            f"{directory / files[0].parent} has some files of {config.kind} but not {' and '.join(wanted)}: "
            "add what is missing, or move the rest away to have the whole set downloaded"
        )
        raise DataError(message)


def _all_idx_files(config: _IdxSet) -> list[Path]:
    return [*_idx_files(config, train=True), *_idx_files(config, train=False)]


def _download_idx_set(config: _IdxSet, directory: Path) -> None:
    from torchvision import datasets  # noqa: PLC0415 - takes seconds

    source = getattr(datasets, _TORCHVISION_NAMES[config.kind])
    wanted = _all_idx_files(config)
    if isinstance(config, Emnist):
        fetch, urls = partial(source, split=config.emnist_split, download=True), [source.url]
        # One archive of half a gigabyte holds all splits, so all of them are kept.
        every = [file for split in _EMNIST_CLASSES for file in _all_idx_files(Emnist(emnist_split=split))]
        files = [file for file in every if locate(directory / file) is None]
    else:
        fetch, urls, files = partial(source, download=True), source.mirrors, wanted
    try:
        download(fetch, urls, files, directory)
    except DownloadError as error:
        raise _unavailable(config, directory, wanted, error) from None


def _read_cifar10(config: Cifar10, directory: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Read CIFAR-10. Its batches are pickles, and torchvision opens them only if every file's MD5 sum is right."""
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 - takes seconds

    listed = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    sums = {Path(CIFAR10.base_folder, name): md5 for name, md5 in listed}
    _ensure_published(config, directory, sums, CIFAR10.url, partial(CIFAR10, download=True))
    with warnings.catch_warnings():
        # The published pickles are from Python 2, and numpy 2.4 warns about the spelling of a dtype in them.
        warnings.simplefilter("ignore", category=np.exceptions.VisibleDeprecationWarning)
        pictures = CIFAR10(directory, train=train)
    return torch.from_numpy(pictures.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(pictures.targets)


def _read_svhn(config: Svhn, directory: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import SVHN  # noqa: PLC0415 - takes seconds

    split = "train" if train else "test"
    url, name, md5 = SVHN.split_list[split]
    _ensure_published(config, directory, {Path(name): md5}, url, partial(SVHN, split=split, download=True))
    numbers = SVHN(directory, split=split)
    return torch.from_numpy(np.ascontiguousarray(numbers.data)), torch.from_numpy(numbers.labels)


def _ensure_published(
    config: Cifar10 | Svhn,
    directory: Path,
    sums: dict[Path, str],
    url: str,
    fetch: Callable[[Path], object],
) -> None:
    """Refuse a file whose MD5 sum differs from the published one, and download missing files."""
    from torchvision.datasets.utils import check_md5  # noqa: PLC0415 - takes seconds

    missing = [file for file in sums if not os.path.lexists(directory / file)]
    for file, md5 in sums.items():
        path = directory / file
        if file not in missing and not (path.is_file() and check_md5(path, md5)):
            message = (
                f"{path} is not the published file (MD5 {md5}) and won't be opened: "
                "replace it, or move it away to have it downloaded"
            )
            raise DataError(message)
    if missing:
        try:
            download(fetch, [url], missing, directory)
        except DownloadError as error:
            raise _unavailable(config, directory, missing, error) from None


def _unavailable(config: TorchvisionSet, directory: Path, files: Iterable[Path], why: DownloadError) -> DataError:
    folders: dict[Path, list[str]] = {}
    for file in files:
        folders.setdefault(directory / file.parent, []).append(file.name)
    expected = "; ".join(f"{', '.join(names)} in {folder}" for folder, names in folders.items())
    return DataError(
        f"no {config.kind} in the data directory {directory} (expected {expected}), "
        f"and it can't be downloaded ({why}): "
        "pass --data-dir or set RESEARCH_DATA_DIR to a directory that has it, or put the files there"
    )
