"""Outputs are there completely or not at all, also after errors, kills and on a full disk."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dietnerf_ns.utils.errors import UserError, writing
from dietnerf_ns.utils.files import atomic_output, check_writable, readable, write_json
from tests.helpers.full_disk import files_of_at_most

KILLED = """
import os, signal, sys
from pathlib import Path
from dietnerf_ns.utils.files import atomic_output

steps = iter(range(int(sys.argv[2])))

def killed_before_a_step(event, arguments):
    if event in ("os.rename", "shutil.rmtree", "os.remove") and next(steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)

with atomic_output(Path(sys.argv[1])) as unfinished:
    unfinished.mkdir()
    (unfinished / "new").touch()
    sys.addaudithook(killed_before_a_step)
"""
"""Replaces a folder, and is killed before a step of the replacement."""


ANOTHER = """
import sys
from pathlib import Path
from dietnerf_ns.utils.files import atomic_output

with atomic_output(Path(sys.argv[1])) as unfinished:
    unfinished.write_text("another's")
    print("begun", flush=True)
    sys.stdin.readline()
"""
"""Writes a file, and completes it at a line of input."""


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def older_folder(path):
    path.mkdir()
    for name in ("old", "older"):
        (path / name).touch()
    return path


def replace(output):
    with atomic_output(output) as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    replace(older_folder(tmp_path / "scene"))
    assert names_in(tmp_path) == ["scene"] and names_in(tmp_path / "scene") == ["new"]


@pytest.mark.parametrize("step", range(5))
def test_after_a_kill_the_old_or_the_new_is_complete(tmp_path, step):
    output = older_folder(tmp_path / "scene")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(output), str(step)], check=False)
    assert killed.returncode == -signal.SIGKILL
    check_writable(output, "--output")  # as the next run of a command does
    assert names_in(tmp_path) == ["scene"] and names_in(output) in (["old", "older"], ["new"])
    replace(output)
    assert names_in(tmp_path) == ["scene"] and names_in(output) == ["new"]


def test_the_new_is_complete_if_the_old_cannot_be_deleted(tmp_path, monkeypatch):
    def deletes_a_part(folder):
        (folder / "old").unlink()
        raise PermissionError(13, "Permission denied")

    output = older_folder(tmp_path / "scene")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", deletes_a_part)
        with pytest.raises(PermissionError):
            replace(output)
    assert names_in(output) == ["new"]
    replace(output)
    assert names_in(tmp_path) == ["scene"] and names_in(output) == ["new"]


def test_the_old_stays_if_the_new_cannot_take_its_place(tmp_path, monkeypatch):
    output = older_folder(tmp_path / "scene")
    replacing = type(output).replace

    def only_the_old(path, target):
        if target == output and path.name.startswith(".unfinished"):
            raise OSError(5, "Input/output error")
        return replacing(path, target)

    monkeypatch.setattr(type(output), "replace", only_the_old)
    with pytest.raises(OSError, match="Input/output error"):
        replace(output)
    assert names_in(tmp_path) == ["scene"] and names_in(output) == ["old", "older"]


def test_two_processes_that_write_one_output_leave_each_others_files_alone(tmp_path):
    output = tmp_path / "o.gif"
    command = [sys.executable, "-c", ANOTHER, str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as another:
        assert another.stdout.readline() == "begun\n"
        check_writable(output, "--output")
        with atomic_output(output) as unfinished:
            unfinished.write_text("ours")
        assert output.read_text() == "ours" and len(names_in(tmp_path)) == 2, "the other's is still there"
        another.communicate("go on\n")
    assert another.returncode == 0 and output.read_text() == "another's"
    assert names_in(tmp_path) == ["o.gif"]


def test_of_two_that_write_the_same_the_first_one_that_is_complete_stays(tmp_path):
    output = tmp_path / "scene"
    with atomic_output(output, replaces=False) as ours:
        ours.mkdir()
        (ours / "ours").touch()
        output.mkdir()
        (output / "another's").touch()
    assert names_in(tmp_path) == ["scene"] and names_in(output) == ["another's"]
    with atomic_output(tmp_path / "new", replaces=False) as ours:
        ours.mkdir()
    assert names_in(tmp_path) == ["new", "scene"]


def test_of_two_that_end_at_the_same_time_the_first_one_stays(tmp_path, monkeypatch):
    """The other's output appears after any check that there is none, when ours is moved."""
    output, rename = tmp_path / "scene", Path.replace

    def late(self, target):
        if target == output:
            output.mkdir()
            (output / "another's").touch()
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", late)
    with atomic_output(output, replaces=False) as ours:
        ours.mkdir()
    assert names_in(tmp_path) == ["scene"] and names_in(output) == ["another's"]


def test_a_file_that_is_gone_is_no_success(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_output(tmp_path / "o.gif") as unfinished:
        unfinished.touch()
        unfinished.unlink()
    assert names_in(tmp_path) == []


def test_only_what_killed_processes_left_is_removed(tmp_path):
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    others = [f".unfinished-{ended.pid}-another.gif", f".unfinished-{os.getppid()}-o.gif", ".unfinished-o.gif"]
    for name in [*others, f".unfinished-{ended.pid}-o.gif"]:
        (tmp_path / name).touch()
    check_writable(tmp_path / "o.gif", "--output")
    assert names_in(tmp_path) == sorted(others)


def test_names_that_are_not_utf8_are_readable():
    assert readable(os.fsdecode(b"caf\xe9 \xc3\xa9")) == "caf\\xe9 é"


@pytest.mark.parametrize("output", [".", "..", "../scene"])
def test_the_folder_in_which_a_command_was_started_is_not_replaced(tmp_path, monkeypatch, output):
    """The shell would go on in a folder that is gone."""
    (tmp_path / "scene" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "scene" / "below" if output == ".." else tmp_path / "scene")
    with pytest.raises(UserError, match="cannot be the present one; start the command outside it"):
        check_writable(Path(output), "--output")
    check_writable(Path("new"), "--output")


def test_what_is_write_protected_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "scene" / "images").mkdir(parents=True)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "images" and allowed(path, mode))  # also for root
    with pytest.raises(UserError, match="scene: cannot be replaced: .*scene/images is write-protected"):
        check_writable(tmp_path / "scene", "--output")
    assert names_in(tmp_path) == ["scene"]


def test_what_is_mounted_cannot_be_replaced():
    with pytest.raises(UserError, match="--output /proc: another file system is mounted there"):
        check_writable(Path("/proc"), "--output")


def test_json_on_a_full_disk_leaves_the_older_file_alone(tmp_path):
    write_json(tmp_path / "numbers.json", {"old": 1})
    with files_of_at_most(100), pytest.raises(OSError, match="File too large"):
        write_json(tmp_path / "numbers.json", list(range(1000)))
    assert names_in(tmp_path) == ["numbers.json"]
    assert (tmp_path / "numbers.json").read_text() == '{\n "old": 1\n}\n'


def test_a_write_error_becomes_one_line(tmp_path):
    with files_of_at_most(100), pytest.raises(UserError) as error, writing("--out results"):
        (tmp_path / "large").write_bytes(bytes(200))
    assert str(error.value) == f"--out results: cannot be written: {os.strerror(27)}."
