"""However an export ends, nothing half-made stays: signals, kill -9, a full disk, two at once."""

import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, run

from export import staging

SLEEPER = "import os, sys, time; open(sys.argv[0] + '.pid', 'w').write(str(os.getpid())); time.sleep(600)"
# The real exporter, whose fine-tuning is a script that sleeps.
EXPORTER = "import sys, train; from export import finetune, main; finetune.TWIN = sys.argv.pop(1); train.run(main.main)"


@pytest.fixture
def export(digits_run, tmp_path):
    """An exporter at work in a process of its own, with a child at work: the process and the child's id."""
    script, pid_file = tmp_path / "sleeper.py", tmp_path / "sleeper.py.pid"
    script.write_text(SLEEPER)
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/deep/out", "--formats=float32,pruned"]
    command = [sys.executable, "-c", EXPORTER, script, *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)
    try:
        while not (pid_file.exists() and pid_file.read_text()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        yield process, int(pid_file.read_text())
    finally:
        process.kill()
        process.communicate()


def wait_for_end(pid):
    """Returns when a process that is no child of ours is gone; the test fails if that takes a minute."""
    deadline = time.monotonic() + 60
    while (stat := pathlib.Path(f"/proc/{pid}/stat")).exists() and stat.read_text().rpartition(")")[2].split()[
        0
    ] != "Z":
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.1)


linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children with their parent on Linux alone")


@linux
@pytest.mark.smoke
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_an_export_with_its_child_and_leaves_nothing(export, tmp_path, number, code):
    process, child = export
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code
    assert errors.splitlines()[-1] == f"Stopped by {number.name}. Nothing was written; the same command starts anew."
    assert "Traceback" not in errors
    wait_for_end(child)
    assert not (tmp_path / "deep").exists()


@linux
@pytest.mark.smoke
def test_what_a_kill_left_is_cleared_but_not_what_is_at_work(export, digits_run, tmp_path):
    process, child = export
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/deep/out", "--formats=float16"]
    refused = run("export/main.py", *flags, code=2).stderr
    assert "Another export into the same folder is at work" in refused
    assert f"where process {process.pid} writes" in refused
    assert process.poll() is None
    process.kill()
    process.communicate()
    wait_for_end(child)
    assert [path.name for path in (tmp_path / "deep" / "out").iterdir()] == [staging.FOLDER]
    run("export/main.py", *flags)  # without --overwrite: there is no export in it
    names = sorted(path.name for path in (tmp_path / "deep" / "out").iterdir())
    assert names == ["card.json", "card.md", "card.png", "config.json", "resnet8_float16.tflite"]


@pytest.mark.unit
def test_a_folder_is_one_export_s_and_goes_with_it(tmp_path):
    output = str(tmp_path / "deep" / "out")
    with staging.opened(output, False) as folder:
        pathlib.Path(folder, "half").write_text("a file")
        with pytest.raises(ValueError, match=f"one at a time.*where process {os.getpid()} writes"):
            staging.opened(output, False).__enter__()
        assert pathlib.Path(folder, "half").exists()
    assert not (tmp_path / "deep").exists()
    with staging.opened(output, False) as folder:
        pathlib.Path(folder, "file").write_text("whole")
        os.replace(os.path.join(folder, "file"), os.path.join(output, "file"))
    assert os.listdir(output) == ["file"]
    with pytest.raises(ValueError, match="Pass --overwrite"):
        staging.opened(output, False).__enter__()
    assert os.listdir(output) == ["file"]
    with staging.opened(output, True) as folder:
        assert os.listdir(folder) == [staging.LOCK]


@pytest.mark.unit
def test_what_comes_meanwhile_is_not_replaced(tmp_path):
    """By an exporter on a disk that knows no locks, say."""
    with staging.opened(str(tmp_path), False):
        (tmp_path / "card.json").write_text("{}")
        with pytest.raises(ValueError, match="Pass --overwrite"):
            staging.check_replaceable(str(tmp_path), False)


@pytest.mark.smoke
def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path):
    (tmp_path / "file").write_text("")
    flags = [f"--output_dir={tmp_path}/file/out", "--model=/absent.keras"]  # which is looked for later
    done = run("export/main.py", *flags, code=2)
    assert done.stderr == (
        "Error: Nothing can be written into the output folder. Expected a folder, or a name for a new one, on a disk "
        f"with room. Received: --output_dir={tmp_path}/file/out (Not a directory).\n"
    )


@pytest.mark.unit
def test_a_full_disk_is_told_with_the_folder_asked_for(tmp_path, monkeypatch):
    output = str(tmp_path / "out")

    def fill(error):
        with staging.opened(output, False):
            raise error

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "hidden")
    for error in (full, RuntimeError(f"TensorFlow: {full}")):
        with pytest.raises(
            ValueError, match=f"^The disk filled up .* Received: --output_dir={output}, with [0-9,]+ bytes"
        ):
            fill(error)
    with pytest.raises(OSError, match="hidden"):  # of the data, say
        fill(OSError(errno.EIO, "broken", "hidden"))
    assert not os.path.exists(output)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**7))
    staging.check_space(output, ("float32",), 10**6, False)  # 8 MB
    with pytest.raises(
        ValueError, match=rf"about 12,000,000 bytes free in --output_dir\. Received: .*={output}, with 10,"
    ):
        staging.check_space(output, ("float32",), 10**6, True)
