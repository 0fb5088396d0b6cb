"""Arrays from files: ``.npz``, ``.npy``, Parquet and CSV; tables or images, labelled or not, real values or integers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from vae.config import FractionBelowOne, NonNegativeInt, part
from vae.data.dataset import Binarisation, Content, DataError, DataFields
from vae.data.splits import held_out
from vae.data.support import check_finite

MEMORY_LIMIT = 2 << 30  # bytes; an .npy file that is larger is memory-mapped
_TEST_SEED = 0
_TABLE, _GREY, _COLOUR = 2, 3, 4  # dimensions of an array
_BYTE = 255


@part
class Arrays(DataFields):
    """A file of examples: a table [N, D], grey images [N, H, W], or images [N, C, H, W] or [N, H, W, C] (``layout``).

    ``path``: from the data directory, or from where the program runs. ``values`` and ``labels`` name an array of an
    ``.npz`` or, for tables in Parquet and CSV, the label's column (``values`` is then not used; all other columns are
    values). An ``.npy`` has no labels unless ``labels`` names another ``.npy``.

    uint8 is whole numbers 0..``levels`` (255 unless given); anything else is real values, used as they are or
    scaled by the training part's own range (``unit``: to [0, 1]) or moments (``standardise``).

    ``test_path``: a file for the test part; else ``test_fraction`` of the rows, drawn by a constant. ``train_label``:
    train and select on examples of this label alone; test keeps all (anomaly detection).
    """

    kind: Literal["arrays"] = "arrays"
    path: str
    values: str = "x"
    labels: str | None = None
    layout: Literal["channels_first", "channels_last"] = "channels_first"
    levels: Annotated[int, Field(ge=1, le=_BYTE)] | None = None
    scaling: Literal["none", "unit", "standardise"] = "none"
    test_path: str | None = None
    test_fraction: FractionBelowOne = 0.2
    train_label: NonNegativeInt | None = None
    validation_fraction: FractionBelowOne = 0.1
    binarisation: Binarisation = "none"

    def load(self, directory: Path, *, train: bool) -> Content:
        """The training or the test part.

        Raises:
            DataError: one line; the file is missing or is not what it should be.

        """
        images, labels, mapped = self._read(directory, self.path)
        train_index = torch.arange(len(images))
        if self.test_path is None:
            count = int(len(images) * self.test_fraction)
            train_index, test_index = held_out(len(images), count, _TEST_SEED, "arrays test")
        chosen = train_index
        if self.train_label is not None:
            if self.labels is None:
                raise DataError("data.train_label needs data.labels, which names the labels; got none")
            chosen = train_index[labels[train_index] == self.train_label]
            if len(chosen) == 0:
                raise DataError(f"data.train_label {self.train_label}: no training example of {self.path} has it")
        classes = int(labels.max()) + 1 if self.labels is not None else 0
        levels = 0 if images.dtype == torch.float32 else (self.levels or _BYTE)
        if levels and (high := int(images.max())) > levels:
            raise DataError(f"{self.path}: data.levels is {levels}, but a value is {high}; raise levels")
        if mapped:
            return self._mapped(directory, Content(images, labels, levels, classes, mapped=True), train=train)
        shift, scale = self._scaling(images[chosen]) if levels == 0 else (None, None)
        if train:
            images, labels = images[chosen], labels[chosen]
        elif self.test_path is not None:
            images, labels, _ = self._read(directory, self.test_path)
            classes = max(classes, int(labels.max()) + 1) if self.labels is not None else 0
        else:
            images, labels = images[test_index], labels[test_index]
        if shift is not None and scale is not None:
            images = (images - shift) / scale
        return Content(images, labels, levels, classes, validation=self._held_out(len(images)))

    def _held_out(self, total: int) -> int:
        return int(total * self.validation_fraction)

    def _mapped(self, directory: Path, content: Content, *, train: bool) -> Content:
        if (
            self.scaling != "none"
            or self.train_label is not None
            or (self.test_path is None and self.test_fraction > 0)
        ):
            raise DataError(
                f"{self.path} is larger than {MEMORY_LIMIT:,} bytes and stays on disk: data.scaling must be 'none', "
                "data.train_label null and data.test_fraction 0 (or give data.test_path); scale and divide the file itself"
            )
        if train:
            return dataclasses.replace(content, validation=self._held_out(len(content.labels)))
        if self.test_path is None:
            raise DataError(f"{self.path} has no test part: data.test_fraction is 0; give data.test_path")
        images, labels, mapped = self._read(directory, self.test_path)
        return dataclasses.replace(content, images=images, labels=labels, mapped=mapped)

    def _scaling(self, train: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """What is subtracted and divided by, of each dimension; constant ones are left at 0."""
        match self.scaling:
            case "none":
                return None, None
            case "unit":
                low, high = train.amin(0), train.amax(0)
                return low, torch.where(high > low, high - low, 1.0)
            case "standardise":
                mean, deviation = train.double().mean(0).float(), train.double().std(0, correction=0).float()
                return mean, torch.where(deviation > 0, deviation, 1.0)

    def _read(self, directory: Path, name: str) -> tuple[torch.Tensor, torch.Tensor, bool]:
        """Images [N, C, H, W] uint8 or float32, labels [N], and whether the images are memory-mapped."""
        path = _locate(directory, name)
        mapped = False
        try:
            match path.suffix:
                case ".npy":
                    mapped = path.stat().st_size > MEMORY_LIMIT
                    values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
                    # "c": what torch would write, if it did, stays in this process.
                    values = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
                    labels = (
                        None if self.labels is None else np.load(_locate(directory, self.labels), allow_pickle=False)
                    )
                case ".npz":
                    values, labels = self._from_npz(path)
                case ".parquet" | ".csv":
                    values, labels = self._from_table(path)
                case _:
                    raise DataError(f"{path}: data.path must end in .npz, .npy, .parquet or .csv, got {path.suffix!r}")
        except (OSError, ValueError, EOFError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} can't be read: {' '.join(str(error).split())}") from None
        except Exception as error:
            # zipfile's and pyarrow's own kinds: a file that is not what its name says.
            raise DataError(f"{path} can't be read: {type(error).__name__}: {' '.join(str(error).split())}") from None
        images = self._as_images(values, path, mapped=mapped)
        check_finite(images, str(path))
        numbers = (
            torch.zeros(len(images), dtype=torch.int64) if labels is None else _as_labels(labels, path, self.labels)
        )
        if len(numbers) != len(images):
            raise DataError(f"{path} has {len(images)} examples but {len(numbers)} labels in {self.labels!r}")
        return images, numbers, mapped

    def _from_npz(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:  # type: ignore[type-arg] # any dtype
        with np.load(path, allow_pickle=False) as file:
            for name in (self.values, self.labels):
                if name is not None and name not in file.files:
                    raise DataError(f"{path} has no array {name!r}: it has {', '.join(file.files)}")
            return file[self.values], None if self.labels is None else file[self.labels]

    def _from_table(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:  # type: ignore[type-arg] # any dtype
        from pyarrow import csv, parquet  # noqa: PLC0415 - tables alone need it

        table = csv.read_csv(path) if path.suffix == ".csv" else parquet.read_table(path)
        if self.labels is not None and self.labels not in table.column_names:
            raise DataError(f"{path} has no column {self.labels!r}: it has {', '.join(table.column_names)}")
        names = [name for name in table.column_names if name != self.labels]
        columns = []
        for name in names:
            try:
                columns.append(table[name].to_numpy().astype(np.float32))
            except (ValueError, TypeError):
                raise DataError(
                    f"{path}: column {name!r} holds {table[name].type}, not numbers; drop it, or name it in data.labels"
                ) from None
        labels = None if self.labels is None else table[self.labels].to_numpy()
        return np.stack(columns, axis=1), labels

    def _as_images(self, values: np.ndarray, path: Path, *, mapped: bool) -> torch.Tensor:  # type: ignore[type-arg] # any dtype
        if values.dtype.kind not in "fiub":
            raise DataError(f"{path}: values must be numbers, got {values.dtype}")
        if values.dtype != np.uint8 and not (mapped and values.dtype == np.float32):
            if mapped:
                raise DataError(
                    f"{path} is larger than {MEMORY_LIMIT:,} bytes: store uint8 or float32, got {values.dtype}"
                )
            values = values.astype(np.float32)
        images = torch.from_numpy(values)
        match images.dim():
            case n if n == _TABLE:
                images = images[:, None, None, :]
            case n if n == _GREY:
                images = images[:, None]
            case n if n == _COLOUR and self.layout == "channels_last":
                images = images.permute(0, 3, 1, 2)
            case n if n == _COLOUR:
                pass
            case n:
                raise DataError(f"{path}: values must have 2 to 4 dimensions, got {n}: {tuple(values.shape)}")
        if len(images) == 0 or images[0].numel() == 0:
            raise DataError(f"{path} holds no values: its shape is {tuple(values.shape)}")
        return images if mapped else images.contiguous()


def _as_labels(labels: np.ndarray, path: Path, name: str | None) -> torch.Tensor:  # type: ignore[type-arg] # any dtype
    """int64 from 0: whole numbers as they are, anything else by its place in sorted order."""
    labels = labels.reshape(-1)
    if labels.dtype.kind in "iub":
        if len(labels) and labels.min() < 0:
            raise DataError(f"{path}: labels in {name!r} must be at least 0, got {labels.min()}")
        return torch.from_numpy(labels.astype(np.int64))
    _, places = np.unique(labels.astype(str), return_inverse=True)
    return torch.from_numpy(places.astype(np.int64))


def _locate(directory: Path, name: str) -> Path:
    candidates = [directory / name, Path.cwd() / name]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"no file {name!r}: looked for {candidates[0]} and {candidates[1]}; give data.path or --data-dir")
