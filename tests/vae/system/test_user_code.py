"""Code of a user can't end, copy or take over the process that calls it; a real Ctrl-C always gets through."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vae.system.user_code import OwnExit, UserCodeExit, each, user_code


class Odd(BaseException):
    """An exception that ``except Exception`` does not catch."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(0), "mine raised SystemExit(0)"),
        (SystemExit("bye"), "mine raised SystemExit('bye')"),
        (KeyboardInterrupt(), "mine raised KeyboardInterrupt()"),
        (GeneratorExit(), "mine raised GeneratorExit()"),
        (Odd("x\ny"), r"mine raised Odd('x\ny')"),
    ],
    ids=repr,
)
def test_user_code_base_exception_becomes_one_line(error, said):
    """Whatever would end the process is an ordinary exception with one line."""
    with pytest.raises(UserCodeExit) as caught, user_code("mine"):
        raise error
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), type("Ours", (OwnExit,), {})()], ids=repr)
def test_user_code_other_exceptions_pass(error):
    """An exception stays what it is, and so does an exit of our own."""
    with pytest.raises(type(error)), user_code("mine"):
        raise error


def interrupt():
    """Deliver a real SIGINT to this process, and let its handler run."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


@pytest.mark.parametrize("then", ["nothing", "SystemExit", "ValueError", "passes"])
def test_user_code_real_interrupt_gets_through(then):
    """A Ctrl-C that the code catches, or makes another exception of, is raised after it."""

    def code():
        try:
            interrupt()
        except KeyboardInterrupt:
            if then == "passes":
                raise
            if then == "SystemExit":
                sys.exit(0)
            if then == "ValueError":
                raise ValueError("interrupted") from None

    with pytest.raises(KeyboardInterrupt), user_code("mine"):
        code()


def test_user_code_handler_that_notes_a_stop_is_left_in_peace():
    """Where Ctrl-C raises nothing, as in a driver's session, nothing is raised after the code either."""
    noted = []
    before = signal.signal(signal.SIGINT, lambda *_: noted.append(1))
    try:
        with user_code("mine"):
            interrupt()
    finally:
        signal.signal(signal.SIGINT, before)
    assert noted == [1]


def test_user_code_sets_back_the_handlers_that_the_code_changed():
    """A space that ignores SIGINT does not make the driver deaf."""
    before = signal.getsignal(signal.SIGINT)
    with user_code("mine"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before


def test_user_code_works_in_a_thread():
    """A worker trains in a thread, where no handler may be set."""
    said = []

    def work():
        try:
            with user_code("mine"):
                sys.exit(0)
        except UserCodeExit as error:
            said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "SystemExit(0)" in said[0]


def test_each_guards_every_step():
    """What was yielded before counts; the step that ends the process is an exception."""

    def steps():
        yield 1
        sys.exit(3)

    guarded = each(steps(), "mine")
    assert next(guarded) == 1
    with pytest.raises(UserCodeExit, match=r"SystemExit\(3\) \(test_user_code.py, line \d+\)"):
        next(guarded)


FORKED = """
import os, sys
from vae.system.user_code import user_code

def fork():
    if os.fork() == 0:
        {child}

with user_code("mine"):
    fork()
print("after", flush=True)
{wait}
"""


@pytest.mark.parametrize(
    ("child", "code"), [("pass", 1), ("raise ValueError", 1), ("sys.exit(7)", 7), ("sys.exit()", 0), ("os._exit(5)", 5)]
)
def test_user_code_forked_copy_ends(child, code):
    """Only the process that called goes on; the copy ends with the code that it asked for, or with 1."""
    script = FORKED.format(child=child, wait="print(os.waitstatus_to_exitcode(os.wait()[1]))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["after", str(code)]
