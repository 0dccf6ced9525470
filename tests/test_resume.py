"""A run never loses a step: killed, stopped, damaged, out of space, out of workers, it ends as the undisturbed one."""

import concurrent.futures
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, run
from test_train import rows

from train import checkpoints, config, loop, rendezvous, run_folder, strategies, workers

FLAGS = ("--model=ResNet8", "--epochs=6", "--warmup_epochs=1", "--ema=0.9", "--dropout=0.1", "--schedule=cosine")
STRATEGIES = {
    "default": ("--strategy=default",),
    "mirrored": ("--strategy=mirrored", "--stochastic_depth=0.1"),
    "multi_worker": ("--local_workers=2", "--accumulation=2"),
}


def start(*flags, **options):
    """The trainer in a group of processes of its own, so that a kill reaches all of them."""
    command = [sys.executable, "train/main.py", *map(str, flags)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | options
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **options)


def descendants(process):
    """Process ids of the workers that a launcher has started."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in children.split()]


def written(workdir):
    return {path.name for path in workdir.glob("checkpoints/epoch-*.npz")}


def kill(process, workdir, when, seed):
    """kill -9 at a random moment after the first new checkpoint, or while one is being written; workers end by it."""
    before, moment = written(workdir), random.Random(seed).uniform(0.0, 0.4)
    while written(workdir) <= before:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    time.sleep(moment)
    while when == "writing" and not list(workdir.glob("checkpoints/.partial-*")) and process.poll() is None:
        pass
    process.kill()
    process.communicate(timeout=60)  # until no process holds the output any more, which workers inherit


def newest(workdir):
    """All arrays of the newest checkpoint, and where the run stands."""
    with np.load(checkpoints.paths(config.make({"workdir": str(workdir)}))[-1]) as stored:
        return dict(stored)


def assert_identical(one, other):
    first, second = newest(one), newest(other)
    assert first.keys() == second.keys()
    assert len(first) > 50
    for name, value in first.items():
        assert np.array_equal(value, second[name]), name
    assert (one / "history.csv").read_bytes() == (other / "history.csv").read_bytes()


def assert_no_second_run(workdir, flags):
    with run_folder.locked(config.make({"workdir": str(workdir)})):
        done = run("train/main.py", *flags, code=2)
    assert done.stderr.startswith("Error: The run folder is in use. Expected no other process to train in it.")


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("strategy", "kills"),
    [
        ("default", ("random", "writing", "random", "writing", "random")),
        ("mirrored", ("writing", "random")),
        ("multi_worker", ("random",)),
    ],
)
def test_a_killed_run_ends_bit_identical(strategy, kills, tmp_path):
    """Weights, averages, optimizer, history: kill -9 at any moment, the same command again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = [*FLAGS, *STRATEGIES[strategy]]
    run("train/main.py", *flags, f"--workdir={whole}")
    # Checkpoints after every third step, and other executions: neither may change a bit.
    flags += ["--checkpoint_seconds=0", "--steps_per_execution=3", f"--workdir={killed}"]
    for seed, when in enumerate(kills):
        kill(start(*flags), killed, when, seed)
    if strategy == "default":
        assert_no_second_run(killed, flags)
    assert "resumed after epoch" in run("train/main.py", *flags).stdout
    assert_identical(whole, killed)
    assert not list(killed.rglob(".partial-*"))
    assert (killed / "model.keras").exists()


@pytest.mark.smoke
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_so(number, code, tmp_path):
    flags = ["--model=ResNet8", "--epochs=400", "--steps_per_execution=2", f"--workdir={tmp_path}/run"]
    process = start(*flags)
    while not written(tmp_path / "run"):
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    last = output.splitlines()[-1]
    assert last.startswith(f"Stopped by {number.name} after ")
    assert last.endswith(f"saved in {tmp_path}/run. The same command goes on from there.")
    progress = checkpoints.restore(config.make({"workdir": f"{tmp_path}/run"}), [])
    assert f"after {progress['epoch']} epochs and {progress['step']} steps" in last
    assert len(rows(tmp_path / "run")) == progress["epoch"]


@pytest.mark.smoke
def test_a_lost_worker_ends_the_others_by_name_and_a_restart_goes_on(tmp_path):
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    flags = [
        "--model=ResNet8",
        "--epochs=25",
        "--local_workers=2",
        "--steps_per_execution=2",
        "--checkpoint_seconds=0.5",
    ]
    process = start(*flags, f"--workdir={workdir}")
    while not written(workdir):
        time.sleep(0.05)
        assert process.poll() is None, process.stdout.read()
    os.kill(max(descendants(process)), signal.SIGKILL)
    begin = time.monotonic()
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - begin < 60
    assert process.returncode == 137
    assert "Worker 1 was ended by SIGKILL." in output
    assert "Error: worker 1 is lost. Start the same command on all workers again" in output
    assert "Traceback" not in output
    assert "resumed after epoch" in run("train/main.py", *flags, f"--workdir={workdir}").stdout
    run("train/main.py", *flags, f"--workdir={whole}")
    assert_identical(whole, workdir)


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    """Run folder of a finished run of two epochs, from which tests copy."""
    workdir = tmp_path_factory.mktemp("resume") / "run"
    run("train/main.py", "--model=ResNet8", "--epochs=2", "--warmup_epochs=0", f"--workdir={workdir}")
    return workdir


@pytest.fixture
def unfinished(two_epochs, tmp_path):
    """The same without its model, and the flags that go on with it."""
    import shutil

    shutil.copytree(two_epochs, tmp_path / "run")
    (tmp_path / "run" / "model.keras").unlink()
    return tmp_path / "run", ["--model=ResNet8", "--epochs=2", "--warmup_epochs=0", f"--workdir={tmp_path}/run"]


@pytest.mark.smoke
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(unfinished, two_epochs):
    workdir, flags = unfinished
    first, second = sorted((workdir / "checkpoints").iterdir())
    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    done = run("train/main.py", *flags)
    assert done.stderr.startswith(f"Warning: Damaged checkpoints: {second} (")
    assert f"Going on from {first}; they are kept as damaged-*.npz." in done.stderr
    assert "resumed after epoch 1" in done.stdout
    assert_identical(two_epochs, workdir)


@pytest.mark.smoke
def test_history_is_whole_after_a_kill_behind_the_last_checkpoint(unfinished, two_epochs):
    workdir, flags = unfinished
    (workdir / "history.csv").unlink()
    run("train/main.py", *flags)
    assert_identical(two_epochs, workdir)
    assert (workdir / "model.keras").exists()


@pytest.mark.smoke
def test_only_damaged_checkpoints_are_refused_and_kept(unfinished):
    workdir, flags = unfinished
    for path in (workdir / "checkpoints").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    done = run("train/main.py", *flags, code=2)
    assert "Expected one that this run wrote" in done.stderr
    assert all(name in done.stderr for name in written(workdir))
    assert len(written(workdir)) == 2


@pytest.mark.smoke
def test_a_full_disk_stops_the_run_and_leaves_the_last_good_checkpoint(unfinished, two_epochs):
    workdir, flags = unfinished
    first, second = sorted((workdir / "checkpoints").iterdir())
    second.unlink()
    small = 200_000  # bytes of the largest file that may be written: a checkpoint is larger

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (small, small))

    done = run("train/main.py", *flags, code=2, preexec_fn=limit)
    assert "Error: The checkpoint cannot be written" in done.stderr
    assert f"Last good checkpoint: {first}." in done.stderr
    assert "Traceback" not in done.stderr
    assert [*(workdir / "checkpoints").iterdir()] == [first]
    run("train/main.py", *flags)
    assert_identical(two_epochs, workdir)


@pytest.mark.smoke
def test_resume_can_be_forbidden_or_required(two_epochs, tmp_path):
    flags = ["--model=ResNet8", "--epochs=2", "--warmup_epochs=0"]
    done = run("train/main.py", *flags, "--resume=never", f"--workdir={two_epochs}", code=2)
    assert "holds a run already" in done.stderr
    done = run("train/main.py", *flags, "--resume=require", f"--workdir={tmp_path}/new", code=2)
    assert "There is no run to go on with" in done.stderr
    assert not (tmp_path / "new").exists()
    assert "is finished" in run("train/main.py", *flags, "--resume=require", f"--workdir={two_epochs}").stdout


@pytest.mark.unit
def test_a_checkpoint_damaged_anywhere_is_refused_or_whole(tmp_path):
    import keras

    options = config.make({"data": "digits", "workdir": str(tmp_path)})
    variables = [keras.Variable(np.arange(6.0).reshape(2, 3), name=name) for name in ("one", "two")]
    checkpoints.save(options, variables, loop.Progress(1, 0, history=({"loss": 1.0},)))
    (checkpoint,) = checkpoints.paths(options)
    with open(checkpoint, "rb") as file:
        content = file.read()
    refused = 0
    for position in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        with open(checkpoint, "wb") as file:
            file.write(damaged)
        try:
            checkpoints.restore(options, variables)
        except ValueError:  # and nothing else
            refused += 1
        assert all(np.array_equal(variable, np.arange(6.0).reshape(2, 3)) for variable in variables)
    assert refused > 0.5 * len(content) / 5


@pytest.mark.unit
def test_a_damaged_checkpoint_pushes_out_no_whole_one(tmp_path):
    import keras

    options = config.make({"data": "digits", "workdir": str(tmp_path), "checkpoints_to_keep": 2})
    variable = keras.Variable(np.zeros(()), name="one")
    for step in (20, 60):
        checkpoints.save(options, [variable], loop.Progress(3, step))
    whole, damaged = checkpoints.paths(options)
    with open(damaged, "r+b") as file:
        file.truncate(100)
    with pytest.warns(UserWarning, match=r"Damaged checkpoints: .*step-0000060.npz .*step-0000020.npz; they are kept"):
        assert checkpoints.restore(options, [variable])["step"] == 20
    assert checkpoints.Keeper(options, None, []).newest() == whole
    checkpoints.save(options, [variable], loop.Progress(3, 40))
    assert [path[-11:] for path in checkpoints.paths(options)] == ["0000020.npz", "0000040.npz"]
    assert (tmp_path / "checkpoints" / "damaged-epoch-00003-step-0000060.npz").exists()


@pytest.mark.unit
def test_one_process_at_once_trains_in_a_run_folder(tmp_path):
    options = config.make({"workdir": str(tmp_path / "run")})
    with run_folder.locked(options):
        text = f"The run folder is in use.*run, in which process {os.getpid()} on .* trains"
        with pytest.raises(ValueError, match=text), run_folder.locked(options):
            pass
        with run_folder.locked(config.make({"workdir": str(tmp_path / "other")})):
            pass
    with run_folder.locked(options):
        pass


@pytest.mark.unit
def test_a_model_without_its_run_is_not_taken_for_a_finished_one(tmp_path):
    (tmp_path / "model.keras").write_text("")
    for resume in ("auto", "never", "require"):
        with pytest.raises(ValueError, match="holds a model of another origin"):
            run_folder.look(config.make({"workdir": str(tmp_path)}), resume)


@pytest.mark.unit
def test_files_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, real=real: (calls.append(name), real(*given)))
    with run_folder.written_aside(str(tmp_path / "file")) as aside, open(aside, "w") as file:
        file.write("whole")
    assert calls == ["fsync", "replace"]
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.unit
def test_a_run_over_images_that_have_changed_is_refused(photographs, tmp_path):
    flags = {"data": f"folder:{photographs}", "image_size": 32, "workdir": str(tmp_path / "run")}
    options, strategy = config.make(flags), tf.distribute.get_strategy()
    _, report = strategies.load_data(strategy, options, unchanged=True)
    run_folder.open_run(options, report)
    path = photographs / "train" / "cat" / "0.JPEG"
    os.utime(path, (0, 0))  # copied anew
    strategies.load_data(strategy, options, unchanged=True)
    path.rename(photographs / "train" / "dog" / "9.JPEG")
    strategies.load_data(strategy, options)
    with pytest.raises(ValueError, match="The images have changed since the run began"):
        strategies.load_data(strategy, options, unchanged=True)


@pytest.mark.unit
def test_weights_that_are_no_numbers_are_not_kept(tmp_path):
    import keras

    options = config.make({"data": "digits", "workdir": str(tmp_path)})
    variable = keras.Variable(np.ones(3), name="one")
    checkpoints.save(options, [variable], loop.Progress(1))
    variable.assign([1.0, np.nan, 1.0])
    with pytest.raises(ValueError, match=r"not finite after epoch 1, step 7.*Last good checkpoint: .*00001"):
        checkpoints.save(options, [variable], loop.Progress(1, 7))
    assert len(checkpoints.paths(options)) == 1


@pytest.mark.unit
def test_the_newest_checkpoints_are_kept(tmp_path):
    import keras

    options = config.make({"data": "digits", "workdir": str(tmp_path), "checkpoints_to_keep": 3})
    variable = keras.Variable(np.zeros(()), name="one")
    for step in range(6):
        variable.assign(step)
        checkpoints.save(options, [variable], loop.Progress(9, 2 * step, (0.1 * step, 1.0, 3.0)))
    assert len(checkpoints.paths(options)) == 3
    variable.assign(-1)
    progress = loop.Progress(**checkpoints.restore(options, [variable]))
    assert (float(variable), progress.epoch, progress.step, progress.totals[0]) == (5, 9, 10, 0.5)


@pytest.mark.smoke
@pytest.mark.parametrize(("index", "number"), [(0, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_worker_that_waits_for_others_says_so_and_can_be_stopped(index, number, tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in workers.free_ports(2)]
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    environment = os.environ | {"TF_CONFIG": json.dumps(cluster)}
    process = start("--strategy=multi_worker", "--model=ResNet8", f"--workdir={tmp_path}/run", env=environment)
    assert process.stdout.readline() == f"Waiting for worker {1 - index} at {addresses[1 - index]}.\n"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (-number.value, 128 + number.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.unit
def test_workers_meet_whoever_comes_first_dies_or_talks_nonsense():
    addresses = [f"127.0.0.1:{port}" for port in workers.free_ports(3)]
    port = int(addresses[0].rpartition(":")[2])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        last = pool.submit(rendezvous.meet, addresses, 2)  # before there is anyone to meet
        first = pool.submit(rendezvous.meet, addresses, 0)
        time.sleep(0.3)
        for words in (b"hello", b"1"):  # a stranger, and worker 1, which is killed
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(words)
        time.sleep(1.2)
        assert not first.done()
        assert not last.done()
        rendezvous.meet(addresses, 1)
        first.result(timeout=60)
        last.result(timeout=60)
