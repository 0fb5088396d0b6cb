"""A recorded space runs only where it is what was recorded; one that ends the process is refused in one line."""

from __future__ import annotations

import py_compile
import sys

import pytest

from research.errors import CorruptFile, UserError
from research.search.spaces import SpaceError, load_recorded, load_space, survey

GOOD = "from vae.train_config import TrainConfig\ndef space(trial):\n    return TrainConfig()\n"
MARKS = "import pathlib\npathlib.Path(r'{mark}').write_text('ran')\n"


@pytest.fixture
def sweep(tmp_path):
    """A recorded space and the copy in its sweep's directory."""
    file = tmp_path / "mine.py"
    file.write_text(GOOD)
    recorded = load_space(str(file)).source
    (tmp_path / "sweep").mkdir()
    copy = tmp_path / "sweep" / "space.py"
    copy.write_text(GOOD)
    return recorded, file, copy


@pytest.mark.parametrize(
    "changed", ["import sys; sys.exit(0)", "raise SystemExit", "{mark}"], ids=["exit", "raise", "mark"]
)
def test_load_recorded_changed_original_is_not_run(sweep, tmp_path, changed):
    """The copy is used, and nothing of the changed file has run."""
    recorded, file, copy = sweep
    mark = tmp_path / "mark"
    file.write_text(changed.format(mark=MARKS.format(mark=mark)))
    assert load_recorded(recorded, copy).source == recorded
    assert not mark.exists()


def test_load_recorded_changed_copy_is_not_run(sweep, tmp_path):
    """A copy that was altered is refused before it runs."""
    recorded, file, copy = sweep
    mark = tmp_path / "mark"
    file.unlink()
    copy.write_text(MARKS.format(mark=mark) + GOOD)
    with pytest.raises(CorruptFile, match=r"space\.py was altered"):
        load_recorded(recorded, copy)
    assert not mark.exists()


@pytest.mark.parametrize("which", ["original", "copy"])
def test_load_recorded_runs_the_source_not_a_compiled_file(sweep, tmp_path, which):
    """Python's cache of compiled files has no hash of ours: what lies there is not run."""
    recorded, file, copy = sweep
    mark = tmp_path / "mark"
    target = file if which == "original" else copy
    if which == "copy":
        file.unlink()
    planted = tmp_path / "planted.py"
    planted.write_text(MARKS.format(mark=mark) + GOOD)
    cache = target.parent / "__pycache__" / f"{target.stem}.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(planted), cfile=str(cache), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert load_recorded(recorded, copy).source == recorded
    assert not mark.exists()


ENDINGS = {
    "exit_0": "import sys\nsys.exit(0)\n",
    "exit_builtin": "exit()\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "base": "class Odd(BaseException): pass\nraise Odd\n",
    "argparse": "import argparse\nargparse.ArgumentParser().parse_args(['--no-such'])\n",
}


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("when", ["import", "beside", "draw"])
def test_space_that_ends_the_process_is_refused_in_one_line(tmp_path, when, how):
    """At import, in a module beside it, and in a draw."""
    (tmp_path / f"beside_{how}.py").write_text(ENDINGS[how])
    file = tmp_path / "mine.py"
    body = {
        "import": ENDINGS[how] + GOOD,
        "beside": f"import beside_{how}\n" + GOOD,
        "draw": "def space(trial):\n" + "".join(f"    {line}\n" for line in ENDINGS[how].splitlines()),
    }[when]
    file.write_text(body)
    with pytest.raises(UserError, match=r"mine\.py' raised \w+\(.*\.py, line \d+\): spaces and parts must not end"):
        survey(load_space(str(file)), epochs=None, seed=0, draws=2)


def test_draw_that_ends_the_process_is_a_failed_draw(tmp_path):
    """One draw of several: the others are configs."""
    file = tmp_path / "mine.py"
    file.write_text(
        "import sys\nfrom vae.train_config import TrainConfig\ndef space(trial):\n"
        "    if trial.suggest_int('x', 0, 1): sys.exit(0)\n    return TrainConfig()\n"
    )
    with pytest.raises(SpaceError, match=r"SystemExit\(0\).*drawn with x=1"):
        survey(load_space(str(file)), epochs=None, seed=0)


def test_space_with_a_byte_order_mark_and_windows_lines_loads(tmp_path):
    """What Python itself would read is read."""
    file = tmp_path / "mine.py"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert len(survey(load_space(str(file)), epochs=None, seed=0, draws=2).configs) == 2
