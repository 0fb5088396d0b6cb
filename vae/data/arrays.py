"""Arrays from files: ``.npz``, ``.npy``, Parquet and CSV; tables or images, labelled or not, real values or integers."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from vae.config import FractionBelowOne, NonNegativeInt, part
from vae.data.dataset import Binarisation, Content, DataError, DataFields, locate
from vae.data.labels import label_number, number_labels
from vae.data.splits import held_out
from vae.data.support import check_finite, check_whole
from vae.data.tables import read_table
from vae.durable import DATA, check_file, open_file

if TYPE_CHECKING:
    from pathlib import Path

MEMORY_LIMIT = 2 << 30  # bytes; an .npy file that is larger is memory-mapped
_TEST_SEED = 0  # no setting: every sweep's test figures are of the same rows
_TABLE, _GREY, _COLOUR = 2, 3, 4  # dimensions of an array
_CHANNELS = {1, 3, 4}
_BYTE = 255

_Array = np.ndarray[Any, np.dtype[Any]]

# What numpy and zipfile raise for a file that is not what its name says.
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

    ``path``: from the data directory, or from where the program runs. ``values`` and ``labels`` name an array of an
    ``.npz``; of a CSV file or Parquet ``labels`` is a column, and all others are values (``values`` is not used). An
    ``.npy`` has labels where ``labels`` names another ``.npy``. Labels are whole numbers from 0, or names; the values
    that occur are numbered in natural order (2 before 10), and keep their names. The index that pandas writes beside the
    columns of a table is left out. ``layout``: where an image's channels are, if 1, 3 or 4 of them don't show it.

    uint8 is whole numbers 0..``levels`` (255 unless given), bool 0..1; so is anything with ``levels``. All else is
    real values, as they are or scaled, dimension by dimension, by the training part's own range (``unit``: to
    [0, 1], which test may leave) or moments (``standardise``). A column of a table D wide is a pixel of 1×1×D.

    ``test_path``: a file for the test part; else ``test_fraction`` of the rows, drawn once and for all.
    ``train_label``: train and select on examples of this label alone, given by its name; test keeps all (anomaly
    detection). ``reading``: 1 is how version 0.1.0 took files: whole numbers are their own labels, names are numbered
    in the order of their text, and an index is a column of values. Records of that version mean 1.
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
        """Refuse what contradicts itself."""
        if self.levels is not None and self.scaling != "none":
            raise ValueError(
                f"scaling must be 'none' with levels, got {self.scaling!r} and {self.levels}: whole numbers stay as they are"
            )
        if self.train_label is not None and self.labels is None:
            raise ValueError(f"train_label {self.train_label!r} needs labels, which names them; got none")

    def load(self, directory: Path, *, train: bool) -> Content:
        """The training or the test part.

        Raises:
            DataError: one line; a file is missing or is not what it should be.

        """
        # Both files, whichever part is asked for: what is wrong with the second is said before the first is trained on.
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
        told: dict[str, Any] = {"validation": usual, "label_names": names}
        told["notes"] = tuple(note for one in files for note in one.notes)
        if file.mapped:
            return Content(file.values, labels, levels, classes, mapped=True, rows=chosen, **told)
        images = file.values if len(chosen) == len(file.values) else file.values[chosen]
        if levels > 0:
            images = images.to(torch.uint8)  # bool, or wider
        elif self.scaling != "none":
            # In the file's own precision: a float32 of a time in seconds is good to two minutes.
            shift, scale = self._scaling(first.values[kept].double())
            images = (images.double() - shift) / scale
        images = images.contiguous() if levels > 0 else images.float().contiguous()
        return Content(images, labels, levels, classes, **told)

    def trained_number(self, names: tuple[str, ...], classes: int) -> int:
        """Return the number of ``train_label``, which must be set, in data of these labels.

        Raises:
            DataError: there is no such label.

        """
        assert self.train_label is not None, "asked by the caller"
        if self.reading == 1 and isinstance(self.train_label, int):
            return self.train_label
        try:
            return label_number(self.train_label, names, classes, "data.train_label")
        except DataError as error:
            raise DataError(f"{error}; no training example of {self.path} has it") from None

    def _levels(self, files: list[_File]) -> int:
        """0 for real values; checked."""
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
            # A constant's mean is off by rounding, and its deviation is that.
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
                    # A test file's labels can't have the training file's name.
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

    def _as_images(self, values: _Array, path: Path) -> Tensor:
        """[N, C, H, W]: uint8, bool, float32 or, for anything else, float64."""
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
    """A file's content, in its own precision."""

    path: Path
    values: Tensor  # [N, C, H, W]: uint8, bool, float32 or float64
    labels: _Array | None  # [N]: whole numbers or strings
    columns: list[str] | None  # of a table with names
    mapped: bool
    notes: tuple[str, ...]  # a line for each column that is not used


def read_array(path: Path, *, mapped: bool = False) -> _Array:
    """The array in an ``.npy`` file; raises ``UNREADABLE``, or DataError for an archive."""
    # "c": what torch would write, if it did, stays in this process.
    check_file(path)
    array = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an .npz archive by its content: rename it")
    return array


def _from_npz(path: Path, values: str, labels: str | None) -> tuple[_Array, _Array | None]:
    # Opened here: numpy leaves a damaged archive's file open.
    with open_file(path, DATA) as stream, np.load(stream, allow_pickle=False) as file:
        for name in (values, labels):
            if name is None:
                continue
            if name not in file.files:
                raise DataError(f"{path} has no array {name!r}: it has {', '.join(file.files)}")
            # What an archive says of its members' sizes holds: no more is read of them.
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
    """The test part must be of the training part's dimensions, in its order."""
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
