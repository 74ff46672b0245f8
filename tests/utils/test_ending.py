"""What commands have in common: they end in one line at signals and at what the system refuses."""

import io
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from dietnerf_ns.utils.ending import SIGNALS, ends_in_one_line, noting_output, signals_interrupt
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.files import atomic_output, write_json

each_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def handlers():
    """After a signal all are ignored, which other tests must not inherit."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@each_signal
def test_a_signal_ends_in_one_line_and_later_ones_do_not_stop_the_cleaning(number, capsys):
    cleaned = []
    with pytest.raises(SystemExit) as end, ends_in_one_line():
        try:
            os.kill(os.getpid(), number)
        finally:
            for later in SIGNALS:
                os.kill(os.getpid(), later)
            cleaned.append(True)
    assert cleaned and end.value.code == 128 + number
    assert capsys.readouterr().err == "Interrupted. Nothing was written.\n"


def test_handlers_are_as_before_afterwards(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    with signals_interrupt():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not handlers[signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is handlers[signal.SIGTERM]


def test_a_child_process_ends_without_a_word():
    """nerfstudio's loaders of data are children, which it ends with SIGTERM."""
    with signals_interrupt():
        child = os.fork()
        if child == 0:
            os._exit(any(signal.getsignal(number) is not signal.SIG_DFL for number in SIGNALS))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def write(output):
    if output.suffix:
        write_json(output, {})
        return
    with atomic_output(output) as unfinished:
        unfinished.mkdir()


@pytest.mark.parametrize("name", ["file.json", "folder"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "replaced"])
def test_an_interruption_says_whether_the_output_is_written(tmp_path, capsys, name, is_new):
    output = tmp_path / name
    if not is_new:
        write(output)
    for steps, said in (([], "Nothing was written."), ([write], f"{output} was already written.")):
        with pytest.raises(SystemExit), ends_in_one_line(), noting_output(output):
            for step in steps:
                step(output)
            raise KeyboardInterrupt
        assert capsys.readouterr().err == f"Interrupted. {said}\n"


def test_an_output_is_written_although_the_older_is_not_removed_yet(tmp_path, capsys, monkeypatch):
    def interrupted(_path):
        raise KeyboardInterrupt

    write(tmp_path / "scene")
    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(SystemExit), ends_in_one_line(), noting_output(tmp_path / "scene"):
        write(tmp_path / "scene")
    assert capsys.readouterr().err == f"Interrupted. {tmp_path / 'scene'} was already written.\n"


def test_what_the_system_refuses_is_one_line_with_path_and_reason(monkeypatch):
    long = Path("o" * 300)
    with pytest.raises(UserError) as error, ends_in_one_line():
        long.is_dir()
    assert str(error.value) == f"{long}: cannot be read or written: File name too long."

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(UserError) as error, ends_in_one_line():
        Path("/private/o.gif").exists()
    assert str(error.value) == "/private/o.gif: cannot be read or written: Permission denied."


def test_errors_without_a_path_are_named_and_bugs_keep_their_traceback():
    with pytest.raises(UserError, match=r"^OSError: \[Errno 28\] No space left on device$"), ends_in_one_line():
        raise OSError(28, "No space left on device")
    with pytest.raises(RuntimeError, match="a bug"), ends_in_one_line():
        raise RuntimeError("a bug")


def test_names_that_are_not_utf8_can_be_printed(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf8")
    monkeypatch.setattr(sys, "stdout", terminal)
    with ends_in_one_line():
        print(os.fsdecode(b"caf\xe9"), flush=True)
    assert terminal.buffer.getvalue() == b"caf\\udce9\n"
