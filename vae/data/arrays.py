"""Arrays from ``.npz``, ``.npy``, Parquet and CSV files: tables or images, with or without labels, of any numbers."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vae.config import FractionBelowOne, NonNegativeInt, part
from vae.data.dataset import Array, Binarisation, Content, DataError, DataFields, locate
from vae.data.labels import label_number, number_labels
from vae.data.splits import held_out
from vae.data.support import check_finite, check_whole
from vae.data.tables import read_table
from vae.durable import DATA, check_file, open_file

if TYPE_CHECKING:
    from pathlib import Path

MEMORY_LIMIT = 2 << 30  # bytes; a larger .npy file is memory-mapped
_TEST_SEED = 0  # a constant, so that the test figures of every sweep are of the same rows
_TABLE, _GREY, _COLOUR = 2, 3, 4  # dimensions of an array
_CHANNELS = {1, 3, 4}
_BYTE = 255

# The errors of numpy and zipfile for a file whose content does not match its name.
UNREADABLE = (
    *(
        OSError,
        ValueError,
        TypeError,
        KeyError,
        SyntaxError,
        EOFError,
        MemoryError,
        NotImplementedError,
        RecursionError,
    ),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


@part
class Arrays(DataFields):
    """A file of examples: a table [N, D], grey images [N, H, W], or images [N, C, H, W] or [N, H, W, C].

    ``path`` is relative to the data directory, or to the working directory. ``values`` and ``labels`` name arrays of an
    ``.npz``. In a CSV or Parquet file ``labels`` is a column, and all other columns are values; ``values`` is not used. For
    an ``.npy``, ``labels`` is the name of another ``.npy``. ``layout`` says where an image's channels are. It is needed only
    if the shape does not show it, by 1, 3 or 4 channels.

    Labels are whole numbers from 0, or names. The values that occur are numbered in natural order (2 before 10), and keep
    their names. The index that pandas writes into a table is left out.

    uint8 values are whole numbers 0..``levels``, by default 255, and bool values are 0..1. With ``levels`` any values are
    whole numbers. All other values are real. ``scaling`` leaves them as they are, or scales each dimension by the range of
    the training part (``unit``, to [0, 1], which the test part may leave) or by its moments (``standardise``). A table of D
    columns is an image of 1×1×D.

    ``test_path`` is a file for the test part. Without it, a fixed random ``test_fraction`` of the rows is the test part.
    With ``train_label`` only examples of this label, given by its name, are used for training and validation. The test part
    keeps all labels, as anomaly detection needs it.

    ``reading`` 1 is the rule of version 0.1.0: whole numbers are their own labels, names are numbered in the order of their
    text, and an index is a column of values. Records of that version mean 1.
    """

    kind: Literal["arrays"] = "arrays"
    path: str
    values: str = "x"
    labels: str | None = None
    layout: Literal["channels_first", "channels_last"] | None = None
    levels: Annotated[int, Field(ge=1, le=_BYTE)] | None = None
    scaling: Literal["none", "unit", "standardise"] = "none"
    test_path: str | None = None
    test_fraction: FractionBelowOne = 0.2
    train_label: NonNegativeInt | str | None = None
    validation_fraction: FractionBelowOne = 0.1
    binarisation: Binarisation = "none"
    reading: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        """Refuse fields that contradict each other."""
        if self.levels is not None and self.scaling != "none":
            raise ValueError(
                f"scaling must be 'none' with levels, got {self.scaling!r} and {self.levels}: whole numbers stay as they are"
            )
        if self.train_label is not None and self.labels is None:
            raise ValueError(f"train_label {self.train_label!r} needs labels, which names them; got none")

    def load(self, directory: Path, *, train: bool) -> Content:
        """Return the training or the test part.

        Raises:
            DataError: A file is missing or invalid.

        """
        # Both files are read for either part, so that a mistake in the second is reported before training.
        first = self._read(directory, self.path)
        second = None if self.test_path is None else self._read(directory, self.test_path)
        files = [first] if second is None else [first, second]
        if second is not None:
            _check_alike(first, second)
        levels = self._levels(files)
        numbers, classes, names = _numbered(files, self.reading)
        kept = torch.arange(len(first.values))
        drawn = kept[:0]
        if second is None:
            count = int(len(kept) * self.test_fraction)
            kept, drawn = held_out(len(kept), count, _TEST_SEED, "arrays test")
        if self.train_label is not None:
            kept = kept[numbers[0][kept] == self.trained_number(names, classes)]
            if len(kept) == 0:
                raise DataError(f"data.train_label {self.train_label!r}: no training example of {first.path} has it")
        chosen, file, labels = (kept, first, numbers[0]) if train else (drawn, first, numbers[0])
        if not train and second is not None:
            chosen, file, labels = torch.arange(len(second.values)), second, numbers[1]
        if len(chosen) == 0:
            raise DataError(
                f"{first.path} has no test examples: data.test_fraction is {self.test_fraction:g} of {len(first.values)}; "
                "raise it, or give data.test_path"
            )
        usual = int(len(chosen) * self.validation_fraction)
        labels = labels[chosen]
        notes = tuple(note for one in files for note in one.notes)
        whole = Content(file.values, labels, levels, classes, validation=usual, label_names=names, notes=notes)
        if file.mapped:
            return replace(whole, mapped=True, rows=chosen)
        images = file.values if len(chosen) == len(file.values) else file.values[chosen]
        if levels > 0:
            images = images.to(torch.uint8)  # bool, or wider
        elif self.scaling != "none":
            # Computed in float64: float32 holds a time in seconds only to two minutes.
            shift, scale = self._scaling(first.values[kept].double())
            images = (images.double() - shift) / scale
        images = images.contiguous() if levels > 0 else images.float().contiguous()
        return replace(whole, images=images)

    def trained_number(self, names: tuple[str, ...], classes: int) -> int:
        """Return the number of ``train_label``, which must be set, in data of these labels.

        Raises:
            DataError: There is no such label.

        """
        assert self.train_label is not None, "asked by the caller"
        if self.reading == 1 and isinstance(self.train_label, int):
            return self.train_label
        try:
            return label_number(self.train_label, names, classes, "data.train_label")
        except DataError as error:
            raise DataError(f"{error}; no training example of {self.path} has it") from None

    def _levels(self, files: list[_File]) -> int:
        """Return the levels of the files, 0 for real values, after a check of their values."""
        first = files[0].values.dtype
        levels = self.levels or 0
        if not levels and self.scaling == "none":
            levels = {torch.uint8: _BYTE, torch.bool: 1}.get(first, 0)
        for file in files:
            if file.mapped:
                needed = torch.uint8 if levels else torch.float32
                if self.scaling != "none" or file.values.dtype != needed:
                    raise DataError(
                        f"{file.path} is larger than {MEMORY_LIMIT:,} bytes and stays on disk: its values must be "
                        f"{'uint8' if levels else 'uint8 or float32'}, got {file.values.dtype}, and data.scaling 'none', "
                        f"got {self.scaling!r}; write it as it is to be used"
                    )
            if levels:
                check_whole(file.values, levels, str(file.path))
        return levels

    def _scaling(self, train: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shift and the scale of each dimension. Constant dimensions become 0."""
        if self.scaling == "unit":
            shift = train.amin(0)
            scale = train.amax(0) - shift
        else:
            shift, scale = train.mean(0), train.std(0, correction=0)
            # The mean of a constant has a rounding error, which would become its deviation.
            scale = torch.where(train.amax(0) > train.amin(0), scale, 0.0)
        return shift, torch.where(scale > 0, scale, 1.0)

    def _read(self, directory: Path, name: str) -> _File:
        path = locate(directory, name, "file")
        mapped, columns, labels = False, None, None
        notes: tuple[str, ...] = ()
        suffix = path.suffix.lower()
        try:
            match suffix:
                case ".npy":
                    mapped = path.stat().st_size > MEMORY_LIMIT
                    values = read_array(path, mapped=mapped)
                    # With a test file there would have to be two files of labels, but ``labels`` names one.
                    if self.labels is not None and self.test_path is None:
                        labels = read_array(locate(directory, self.labels, "file"))
                case ".npz":
                    values, labels = _from_npz(path, self.values, self.labels)
                case ".parquet" | ".csv":
                    table = read_table(path, self.labels, limit=MEMORY_LIMIT, reading=self.reading)
                    values, labels, columns, notes = table.values, table.labels, table.columns, table.left_out
                case _:
                    unpack = ": unpack it first" if suffix in {".gz", ".bz2", ".xz", ".zst", ".zip"} else ""
                    message = f"{path}: data.path must end in .npz, .npy, .parquet or .csv, got {path.suffix!r}{unpack}"
                    raise DataError(message)  # noqa: TRY301 - beside the cases
        except DataError:
            raise
        except UNREADABLE as error:
            raise DataError(f"{path} can't be read: {' '.join(str(error).split()) or type(error).__name__}") from None
        if suffix == ".npy" and self.labels is not None and self.test_path is not None:
            raise DataError(
                "data.labels with two .npy files can't say whose they are: put values and labels of each in an .npz"
            )
        images = self._as_images(values, path)
        if len(images) == 0 or images[0].numel() == 0:
            raise DataError(f"{path} holds no values: its shape is {tuple(values.shape)}")
        if labels is not None and len(labels := labels.reshape(-1)) != len(images):
            raise DataError(f"{path} has {len(images)} examples but {len(labels)} labels in {self.labels!r}")
        check_finite(images, str(path), columns)
        return _File(path, images, labels, columns, mapped, notes)

    def _as_images(self, values: Array, path: Path) -> Tensor:
        """Return ``values`` as images [N, C, H, W] in uint8, bool or float32, and all other types in float64."""
        if values.dtype.kind not in "fiub":
            raise DataError(f"{path}: values must be numbers, got {values.dtype}")
        if values.dtype not in {np.dtype(np.uint8), np.dtype(np.bool_), np.dtype(np.float32)}:
            if isinstance(values, np.memmap):
                raise DataError(
                    f"{path} is larger than {MEMORY_LIMIT:,} bytes and stays on disk: store uint8 or float32, got {values.dtype}"
                )
            values = values.astype(np.float64)
        images = torch.from_numpy(values)
        match images.dim():
            case n if n == _TABLE:
                return images[:, None, None, :]
            case n if n == _GREY:
                return images[:, None]
            case n if n == _COLOUR:
                first, last = images.shape[1] in _CHANNELS, images.shape[3] in _CHANNELS
                if self.layout is None and first == last:
                    raise DataError(
                        f"{path}: the shape {tuple(values.shape)} doesn't show where an image's channels are; "
                        "set data.layout to 'channels_first' or 'channels_last'"
                    )
                channels_last = self.layout == "channels_last" if self.layout else last
                return images.permute(0, 3, 1, 2) if channels_last else images
            case n:
                raise DataError(f"{path}: values must have 2 to 4 dimensions, got {n}: {tuple(values.shape)}")


@dataclass(frozen=True, eq=False)
class _File:
    """The content of a file, in its own precision."""

    path: Path
    values: Tensor  # [N, C, H, W]: uint8, bool, float32 or float64
    labels: Array | None  # [N]: whole numbers or strings
    columns: list[str] | None  # the names of a table's columns
    mapped: bool
    notes: tuple[str, ...]  # a line for each column that is not used


def read_array(path: Path, *, mapped: bool = False) -> Array:
    """Return the array in an ``.npy`` file; raise one of ``UNREADABLE``, or ``DataError`` for an archive."""
    # Mode "c" is copy-on-write, so writes of this process never reach the file.
    check_file(path)
    array = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an .npz archive by its content: rename it")
    return array


def _from_npz(path: Path, values: str, labels: str | None) -> tuple[Array, Array | None]:
    # Opened here, because numpy does not close the file of a damaged archive.
    with open_file(path, DATA) as stream, np.load(stream, allow_pickle=False) as file:
        for name in (values, labels):
            if name is None:
                continue
            if name not in file.files:
                raise DataError(f"{path} has no array {name!r}: it has {', '.join(file.files)}")
            # An archive's member is read only up to the size in its header, so the header can be trusted here.
            size = max((m.file_size for m in file.zip.infolist() if m.filename in {name, f"{name}.npy"}), default=0)
            if size > MEMORY_LIMIT:
                raise DataError(
                    f"{path}: {name!r} takes {size:,} bytes, and an .npz is read whole, up to {MEMORY_LIMIT:,}: save it as an "
                    ".npy, which stays on disk"
                )
        found = {name: file[name] for name in (values, labels) if name is not None}
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: {name!r} is no array")
    return found[values], None if labels is None else found[labels]


def _check_alike(first: _File, second: _File) -> None:
    """Refuse a test file whose columns or shape differ from the training file's."""
    if first.columns != second.columns and first.columns is not None and second.columns is not None:
        ours, theirs = next(
            ((a, b) for a, b in zip(first.columns, second.columns, strict=False) if a != b), (None, None)
        )
        what = f"{ours!r} and {theirs!r} differ" if ours else f"{len(first.columns)} and {len(second.columns)} of them"
        raise DataError(f"{first.path} and {second.path} must have the same columns in the same order; {what}")
    shape, other = tuple(first.values.shape[1:]), tuple(second.values.shape[1:])
    if shape != other:
        raise DataError(f"{second.path} must be of {first.path}'s shape {shape}, got {other}")


def _numbered(files: list[_File], reading: int) -> tuple[list[Tensor], int, tuple[str, ...]]:
    """Return the int64 labels of each file, the number of classes (0 where there are none), and the classes' names."""
    labels = [file.labels for file in files if file.labels is not None]
    if not labels:
        return [torch.zeros(len(file.values), dtype=torch.int64) for file in files], 0, ()
    assert len(labels) == len(files), "files of one configuration have labels together"
    return number_labels(labels, [file.path for file in files], reading=reading)
