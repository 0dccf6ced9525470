"""However an export ends, nothing half-made stays: signals, kill -9, a full disk, two at once."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, run

from export import pipeline, publication, staging

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
def test_a_folder_is_empty_at_first_whatever_a_kill_left(tmp_path):
    left = tmp_path / staging.FOLDER
    (left / "bundle" / "golden").mkdir(parents=True)
    for name in (staging.LOCK, "net_int8.tflite", "bundle/labels.txt"):
        (left / name).write_text("123")
    with staging.opened(str(tmp_path), False) as folder:
        assert os.listdir(folder) == [staging.LOCK]
        assert (left / staging.LOCK).read_text() == str(os.getpid())
    assert not left.exists()


@pytest.mark.unit
def test_what_comes_meanwhile_is_not_replaced(tmp_path):
    """By an exporter on a disk that knows no locks, say."""
    with staging.opened(str(tmp_path), False):
        (tmp_path / "card.json").write_text("{}")
        with pytest.raises(ValueError, match="Pass --overwrite"):
            staging.check_replaceable(str(tmp_path), False)


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["a folder", "a link", "a file"])
def test_what_is_not_an_export_s_is_not_cleared(tmp_path, kind):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("")
    output, taken = tmp_path / "out", tmp_path / "out" / staging.FOLDER
    output.mkdir()
    if kind == "a link":
        taken.symlink_to(tmp_path / "mine")
    elif kind == "a folder":
        shutil.copytree(tmp_path / "mine", taken)
    else:
        taken.write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=rf"not an export's.*Received: {taken}\. Move it away"):
        staging.opened(str(output), True).__enter__()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.unit
def test_the_lock_goes_last(tmp_path, monkeypatch):
    """So that the next export may clear what a second signal leaves of a staging folder."""
    held, remove = [], shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda path, **how: (held.append(path), remove(path, **how)))
    with staging.opened(str(tmp_path), False) as folder:
        os.mkdir(os.path.join(folder, "net_saved_model"))
        pathlib.Path(folder, "a_file").write_text("")
    assert held == [os.path.join(folder, "net_saved_model"), folder]


@pytest.mark.unit
def test_a_disk_that_is_full_from_the_start_is_told(tmp_path, monkeypatch):
    """Of a folder named as in the README, relative to where the command runs."""
    monkeypatch.chdir(tmp_path)

    def refuse(path, **how):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), path)

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(ValueError, match=r"^The disk filled up .*: --output_dir=exports/net, with [0-9,]+ bytes"):
        staging.opened("exports/net", False).__enter__()


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


# The real exporter, to which something happens as it draws the card's picture, or as it publishes.
MEANWHILE = """
import os, signal, sys, train
from export import main, pictures, publication
module, name, code = sys.argv[1:4]
del sys.argv[1:4]
work = getattr(globals()[module], name)
def interrupted(*arguments):
    exec(code)
    work(*arguments)
setattr(globals()[module], name, interrupted)
train.run(main.main)
"""


@pytest.mark.smoke
def test_what_comes_while_an_export_ends(digits_run, tmp_path):
    """A signal comes too late; another's export, on a disk that knows no locks, is not replaced."""
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out", "--formats=float32"]
    foreign = f"open({str(tmp_path / 'out' / 'card.json')!r}, 'w').close()"
    refused = run("-c", MEANWHILE, "pictures", "draw", foreign, *flags, code=2).stderr
    assert "Pass --overwrite to replace the earlier export in it." in refused
    assert os.listdir(tmp_path / "out") == ["card.json"]
    (tmp_path / "out" / "card.json").unlink()
    late = "[os.kill(os.getpid(), number) for number in (signal.SIGTERM, signal.SIGINT)]"
    run("-c", MEANWHILE, "publication", "publish", late, *flags)
    names = sorted(os.listdir(tmp_path / "out"))
    assert names == ["card.json", "card.md", "card.png", "config.json", "resnet8_float32.tflite"]


@pytest.fixture
def published(tmp_path):
    """Function that publishes a net's formats from a staging folder of its own, as `export.main` does."""

    def publish(name, trained, *formats, output="out"):
        folder = tmp_path / "staged" / str(len([*tmp_path.rglob("card.json")]))
        (folder / "bundle").mkdir(parents=True)
        (folder / "bundle" / "classify.py").write_text(name)
        results = {one: pipeline.Result(str(folder / f"{name}_{one}.tflite"), None, []) for one in formats}
        for result in results.values():
            pathlib.Path(result.path).write_text(trained)
        (tmp_path / output).mkdir(exist_ok=True)
        report = {"model": {"file": str(tmp_path / trained / "model.keras"), "name": name}}
        publication.publish(str(folder), results, report, f"# {name}", str(tmp_path / output))

    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        (folder / "config.json").write_text(folder.name)
    return publish


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.unit
def test_a_move_that_fails_leaves_the_earlier_export(published, tmp_path, monkeypatch):
    published("net", "first", "float32", "int8")
    before, replace = contents(tmp_path / "out"), os.replace
    for target in ("net_float16.tflite", "bundle", "card.json"):

        def fail(source, to, target=target):
            if to == str(tmp_path / "out" / target) and "staged" in source and "replaced" not in source:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), source)
            replace(source, to)

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(
            ValueError, match=rf"stays as it was.* to {tmp_path}/out/{target} \(Device or resource busy"
        ):
            published("net", "second", "float16")
        assert contents(tmp_path / "out") == before
        shutil.rmtree(tmp_path / "staged")


@pytest.mark.unit
def test_files_are_not_scored_on_the_run_of_an_earlier_export(published, tmp_path):
    """evaluate.py reads the configuration beside a file; published weights have none."""
    published("net", "first", "float32")
    assert (tmp_path / "out" / "config.json").read_text() == "first"
    published("net", "published", "float32")
    assert json.loads((tmp_path / "out" / "card.json").read_text())["model"]["file"].endswith("published/model.keras")
    assert not (tmp_path / "out" / "config.json").exists()
    for _ in range(2):  # into the run's own folder, whose configuration is never away
        published("net", "second", "float32", output="second")
        assert (tmp_path / "second" / "config.json").read_text() == "second"
    published("net", "published", "float32", output="first")  # a folder that no export was in yet
    assert (tmp_path / "first" / "config.json").read_text() == "first"


@pytest.mark.unit
def test_what_failures_would_take_of_an_earlier_export(published, tmp_path):
    published("net", "first", "float32", "int8")
    kept, failed = pipeline.Result("file", None, []), pipeline.Result("file", None, ["slow"])
    for results, names in (
        ({"float16": kept, "dynamic": failed}, []),
        ({"float16": kept, "int8": failed}, ["int8"]),
        ({"dynamic": failed}, ["float32", "int8"]),  # nothing takes their place
    ):
        assert publication.lost(results, "net", str(tmp_path / "out")) == names
    assert publication.lost({"dynamic": failed}, "another", str(tmp_path / "out")) == []
