"""The files that a person may hand us, each with a valid specimen and the function that reads it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from optuna.distributions import IntDistribution, distribution_to_json
from PIL import Image
from rich.console import Console

from research.cli.runs import _config_of
from research.experiments.variants import read_subject
from research.ledger.log import Ledger
from research.ledger.records import TrialRecord, load_record
from research.models.apply import draw_mask, open_alone
from research.models.looks import count_looks, earlier_look, identity, write_look
from research.planning import earlier
from research.search.spaces import load_space
from research.store.lock import SweepLock, holder_of
from research.views import results
from research.views.report.comparison import figures
from research.views.report.facts import to_json
from research.views.show import as_json, glance
from research.views.watch import Follower, ending_line
from tests.support.synthetic import new_ledger, row, trial
from vae.data import Arrays, CelebA, ImageFolder, Mnist, clear_cache, load_test, load_training
from vae.model import VAE
from vae.networks import Mlp
from vae.portable import WEIGHTS_FILE, load_model, weights_file
from vae.serialization import config_hash, from_dict, to_dict
from vae.state import INFO_FILE, STATE_FILE, TrainState, capture
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = {"channels": 1, "height": 8, "width": 8, "levels": 16, "num_classes": 10}


@dataclass(frozen=True)
class Target:
    """A file in a folder, and what reads it. ``seal``: makes damage look whole again, as a forger would."""

    path: Path
    read: Callable[[], object]
    is_json: bool = False
    seal: Callable[[bytes], bytes] | None = None


def targets(folder: Path) -> dict[str, Target]:
    """Specimens written below ``folder``, by name."""
    found = _configs(folder) | _sweep(folder) | _arrays(folder) | _images(folder) | _idx(folder)
    for name, target in found.items():
        try:
            target.read()
        except Exception as error:
            raise AssertionError(f"the specimen {name} is not valid") from error
    return found


def _configs(folder: Path) -> dict[str, Target]:
    config = TrainConfig(network=Mlp(hidden=(4,)), latent_size=2)
    model = VAE(config, shape=(1, 8, 8), levels=16, num_classes=10)
    optimizer = torch.optim.Adam(model.parameters())
    state = capture(config_hash="0", epoch=1, step=1, model=model, optimizer=optimizer, ema=None)
    plain = folder / "config.json"
    plain.write_text(json.dumps(to_dict(config)))
    place = folder / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(to_dict(config)))
    (place / WEIGHTS_FILE).write_bytes(weights_file(state))
    saved = folder / "state"
    state.save(saved)
    mask = folder / "mask.npy"
    np.save(mask, np.zeros((8, 8)))
    picture = folder / "mask.png"
    Image.new("L", (8, 8)).save(picture)
    space = folder / "space.py"
    space.write_text("from vae.train_config import TrainConfig\n\ndef space(trial):\n    return TrainConfig()\n")
    start = folder / "start.json"
    start.write_text(json.dumps([{"lr": 0.001, "depth": 2}, {"lr": 0.01, "depth": 1}]))

    def forged_state(content: bytes) -> bytes:
        (saved / INFO_FILE).write_text(json.dumps({"format": 1, "sha256": hashlib.sha256(content).hexdigest()}))
        return content

    return {
        "config.json": Target(plain, lambda: _config_of(str(plain), 0), is_json=True),
        "config.json of an ablation": Target(plain, lambda: read_subject(plain, 1), is_json=True),
        "a model's config.json": Target(place / "config.json", lambda: load_model(place), is_json=True),
        "model.safetensors": Target(place / WEIGHTS_FILE, lambda: open_alone(place)),
        "state.safetensors": Target(saved / STATE_FILE, lambda: TrainState.load(saved)),
        "state.safetensors, forged": Target(saved / STATE_FILE, lambda: TrainState.load(saved), seal=forged_state),
        "state.json": Target(saved / INFO_FILE, lambda: TrainState.load(saved), is_json=True),
        "mask.npy": Target(mask, lambda: draw_mask(str(mask), (1, 8, 8))),
        "mask.png": Target(picture, lambda: draw_mask(str(picture), (1, 8, 8))),
        "space.py": Target(space, lambda: load_space(str(space))),
        "--start-from": Target(start, lambda: earlier.start_from(str(start)), is_json=True),
    }


def _sweep(folder: Path) -> dict[str, Target]:
    sweep = folder / "sweep"
    ledger = new_ledger(sweep)
    for number in range(2):
        config = to_dict(TrainConfig(latent_size=2 + number, epochs=2, seed=7 + number))
        size = {"latent_size": distribution_to_json(IntDistribution(1, 8))}
        digest = config_hash(from_dict(config))
        ledger.append(trial(number, config=config, config_hash=digest, distributions=size))
        ledger.append(row(number, 1, -30.0 - number))
        ledger.append(row(number, 2, -20.0 - number, "complete"))
    record = folder / "record.json"
    record.write_text(TrialRecord.of(ledger, 0).to_json())
    model = folder / "looked"
    model.mkdir()
    question = {"measure": "m"}
    write_look(model, question, {"elbo": 1.0}, "test")
    look = model / "looks" / f"{identity(question)}.json"
    with SweepLock(sweep):
        held = (sweep / "lock").read_bytes()
    lock = folder / "locked" / "lock"
    lock.parent.mkdir()
    lock.write_bytes(held)

    def use_record() -> None:
        from_dict(load_record(record).config)
        earlier.start_from(str(record))

    def use_sweep() -> None:
        opened = Ledger.open(sweep)
        as_json(opened)
        glance(opened)
        results.Sweep(opened).trials()
        if opened.ranked():
            TrialRecord.of(opened, opened.ranked()[0].number)

    found = {
        "record.json": Target(record, use_record, is_json=True),
        "record.json to train": Target(record, lambda: _config_of(str(record), 0), is_json=True),
        "a look": Target(look, lambda: (earlier_look(model, question), count_looks(model)), is_json=True),
        "lock": Target(
            lock, lambda: (holder_of(lock.parent), SweepLock(lock.parent).__enter__().__exit__(None, None, None))
        ),
    }
    for name, sequence in (("sweep", 0), ("session", 1), ("trial", 2), ("row", 4)):
        event = sweep / "ledger" / f"{sequence:08d}.json"
        found[f"a {name} event"] = Target(event, use_sweep)
    for name, sequence in (("sweep", 0), ("session", 1), ("trial", 2), ("row", 4), ("last", len(ledger) - 1)):
        found[f"a {name} event, forged"] = _forged(folder / f"forged-{name}", sweep, sequence)
    return found


def _forged(place: Path, sweep: Path, sequence: int) -> Target:
    """A sweep of its own, of which one event may say anything: it and those after it are sealed as a forger would."""
    shutil.copytree(sweep, place)
    events = sorted((place / "ledger").iterdir())
    bodies = [json.loads(event.read_bytes()) for event in events]

    def seal(content: bytes) -> bytes:
        forged = _sealed(content)
        previous = forged[-67:-3].decode("ascii", "replace")
        for event, body in list(zip(events, bodies, strict=True))[sequence + 1 :]:
            after = _sealed(json.dumps({**body, "previous": previous}).encode())
            event.write_bytes(after)
            previous = after[-67:-3].decode()
        return forged

    def use() -> None:
        opened = Ledger.open(place)
        console = Console(file=io.StringIO(), width=160)
        json.dumps(as_json(opened), allow_nan=False)
        console.print(glance(opened))
        follower = Follower(opened, console)
        console.print(follower.view.frame())
        follower.ask_for_driver()
        ending_line(opened, follower.ending() or "gone")
        results.Sweep(opened).trials()
        for number in opened.trials:
            TrialRecord.of(opened, number).to_json()
        to_json(figures([opened]))

    return Target(events[sequence], use, is_json=True, seal=seal)


def _sealed(content: bytes) -> bytes:
    """An event with a seal that fits, whatever it says."""
    try:
        values: Any = json.loads(content)
        values.pop("sha256", None)
        body = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, AttributeError, RecursionError):
        return content
    return body[:-1] + f',"sha256":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def _loaded(config: Any, folder: Path) -> Callable[[], object]:
    def load() -> None:
        clear_cache()
        load_training(config, folder)
        load_test(config, folder)

    return load


def _arrays(folder: Path) -> dict[str, Target]:
    place = folder / "arrays"
    place.mkdir()
    values = np.random.default_rng(0).random((40, 6)).astype(np.float32)
    labels = np.arange(40) % 3
    np.savez(place / "a.npz", x=values, y=labels)
    np.savez_compressed(place / "c.npz", x=values, y=labels)
    np.save(place / "a.npy", values)
    table = pd.DataFrame(values, columns=[f"c{i}" for i in range(6)]).assign(y=labels)
    table.to_csv(place / "a.csv", index=False)
    table.to_parquet(place / "a.parquet")
    return {
        f"{name} of arrays": Target(place / name, _loaded(Arrays(path=name, labels=label), place))
        for name, label in (("a.npz", "y"), ("c.npz", "y"), ("a.npy", None), ("a.csv", "y"), ("a.parquet", "y"))
    }


def _images(folder: Path) -> dict[str, Target]:
    found = {}
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "gif", "bmp", "webp", "tif", "ppm"):
        place = folder / f"images-{suffix}"
        place.mkdir()
        for index in range(4):
            Image.fromarray(noise).save(place / f"{index}.{suffix}")
        config = ImageFolder(path=str(place), test_fraction=0.5)
        found[f"{suffix} of a folder"] = Target(place / f"0.{suffix}", _loaded(config, place))
    faces = folder / "faces" / "celeba"
    (faces / "img_align_celeba").mkdir(parents=True)
    names = [f"{index:06d}.jpg" for index in range(1, 7)]
    for name in names:
        Image.new("RGB", (178, 218)).save(faces / "img_align_celeba" / name)
    (faces / "list_eval_partition.txt").write_text("".join(f"{n} {i % 3}\n" for i, n in enumerate(names)))
    (faces / "list_attr_celeba.txt").write_text("6\nMale Smiling\n" + "".join(f"{n} 1 -1\n" for n in names))
    load = _loaded(CelebA(size=8, attribute="Male"), folder / "faces")
    for name in ("list_eval_partition.txt", "list_attr_celeba.txt"):
        found[name] = Target(faces / name, load)
    return found


def _idx(folder: Path) -> dict[str, Target]:
    raw = folder / "idx" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images = struct.pack(">IIII", 2051, 12, 4, 4) + bytes(range(192))
        labels = struct.pack(">II", 2049, 12) + bytes(i % 10 for i in range(12))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    compressed = raw / "t10k-images-idx3-ubyte.gz"
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write((raw / "t10k-images-idx3-ubyte").read_bytes())
    compressed.write_bytes(buffer.getvalue())
    (raw / "t10k-images-idx3-ubyte").unlink()
    load = _loaded(Mnist(), folder / "idx")
    return {
        "IDX images": Target(raw / "train-images-idx3-ubyte", load),
        "IDX labels": Target(raw / "train-labels-idx1-ubyte", load),
        "IDX images, gzip": Target(compressed, load),
    }
