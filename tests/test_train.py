"""The trainer's commands: real processes, two replicas, killed and resumed, scored."""

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
from conftest import ROOT, run

from train import config, predictor, run_folder, scoring

SHORT = ("--model=ResNet8", "--epochs=3", "--warmup_epochs=0.5")


def rows(workdir):
    with open(workdir / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.smoke
def test_a_run_on_two_replicas_learns_and_keeps_everything(digits_run):
    assert "mirrored: 2 replicas, global batch 64, 4 epochs of recipe digits" in (digits_run / "output.txt").read_text()
    assert (digits_run / "errors.txt").read_text() == ""  # no framework noise, no warnings
    history = rows(digits_run)
    assert [row["epoch"] for row in history] == ["1", "2", "3", "4"]
    assert float(history[-1]["val_accuracy"]) > 0.85
    assert float(history[-1]["loss"]) < float(history[0]["loss"])
    assert (digits_run / "plots" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    kept = sorted(path.name for path in (digits_run / "checkpoints").iterdir())
    assert kept == ["epoch-00003.npz", "epoch-00004.npz"]
    assert not [path for path in digits_run.rglob("*") if path.name.startswith(".partial")]


@pytest.mark.smoke
def test_evaluate_counts_every_image_and_agrees_with_the_run(digits_run):
    line = run("train/evaluate.py", f"--model={digits_run}/model.keras", "--split=validation").stdout
    accuracy = float(rows(digits_run)[-1]["val_accuracy"])
    assert f"top-1 {accuracy:.2%}" in line
    assert "144 images" in line
    table = run("train/evaluate.py", f"--model={digits_run}/model.keras", "--data=digits", "--per_class").stdout
    counts = [int(row.split()[1]) for row in table.splitlines()[1:]]
    assert len(counts) == 10
    assert sum(counts) == 359


@pytest.mark.smoke
def test_a_finished_run_is_left_alone_and_another_is_refused(digits_run):
    flags = ["--strategy=mirrored", "--model=ResNet8", "--epochs=4", "--warmup_epochs=1", f"--workdir={digits_run}"]
    before = (digits_run / "model.keras").read_bytes()
    assert "is finished: nothing to train" in run("train/main.py", *flags).stdout
    done = run("train/main.py", *flags, "--learning_rate=0.2", code=2)
    assert "learning_rate: 0.1 before, 0.2 now" in done.stderr
    assert "Traceback" not in done.stderr
    assert (digits_run / "model.keras").read_bytes() == before


@pytest.mark.smoke
@pytest.mark.parametrize("strategy", ["default", "mirrored"])
def test_a_run_repeats_from_its_config_and_resumes_after_kill_9(strategy, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run("train/main.py", *SHORT, f"--strategy={strategy}", f"--workdir={whole}")
    command = [sys.executable, "train/main.py", f"--config={whole}/config.json", f"--workdir={killed}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(killed.glob("checkpoints/epoch-*.npz")):
        time.sleep(0.02)
        assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "model.keras").exists()
    assert "resumed after epoch" in run(*command[1:]).stdout
    first, second = (run_folder.checkpoints(config.make({"workdir": str(folder)}))[-1] for folder in (whole, killed))
    with np.load(first) as one, np.load(second) as other:
        names = [name for name in one.files if name[0].isdigit()]
        assert max(np.abs(one[name] - other[name]).max() for name in names) < 1e-5
    assert [row["epoch"] for row in rows(killed)] == ["1", "2", "3"]


@pytest.mark.smoke
def test_a_damaged_checkpoint_is_named(tmp_path):
    run("train/main.py", *SHORT, f"--workdir={tmp_path}", "--checkpoints_to_keep=1")
    (tmp_path / "model.keras").unlink()
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 0xFF
    checkpoint.write_bytes(content)
    done = run("train/main.py", *SHORT, f"--workdir={tmp_path}", "--checkpoints_to_keep=1", code=2)
    assert "damaged" in done.stderr
    assert checkpoint.name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.unit
def test_a_checkpoint_damaged_anywhere_is_refused_or_whole(tmp_path):
    import keras

    options = config.make({"data": "digits", "workdir": str(tmp_path)})
    variables = [keras.Variable(np.arange(6.0).reshape(2, 3), name=name) for name in ("one", "two")]
    run_folder.save_checkpoint(options, variables, 1, [{"loss": 1.0}])
    (checkpoint,) = run_folder.checkpoints(options)
    with open(checkpoint, "rb") as file:
        content = file.read()
    refused = 0
    for position in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        with open(checkpoint, "wb") as file:
            file.write(damaged)
        try:
            run_folder.restore(options, variables)
        except ValueError:  # and nothing else
            refused += 1
        assert all(np.array_equal(variable, np.arange(6.0).reshape(2, 3)) for variable in variables)
    assert refused > 0.5 * len(content) / 5


@pytest.mark.smoke
def test_a_terminal_shows_a_bar_with_images_a_second_and_time_left(tmp_path):
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(secondary, (24, 120))
    command = [sys.executable, "train/main.py", *SHORT, "--steps_per_execution=5", f"--workdir={tmp_path}/run"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=secondary)
    os.close(secondary)
    shown = b""
    while True:
        try:
            piece = os.read(primary, 4096)
        except OSError:  # the other end is closed
            break
        shown += piece
    assert process.wait() == 0
    for part in (b"epoch 1/3", b" images/s", b"loss=", b"accuracy=", b"<"):
        assert part in shown


@pytest.mark.smoke
def test_photographs_of_several_sizes_train_and_score(tmp_path, shared_data):
    for split, start in (("train", 0), ("validation", 1)):
        for folder in sorted((shared_data / "imagenet_sample" / "validation").iterdir())[start:20:2]:
            os.makedirs(tmp_path / "data" / split / "thing", exist_ok=True)
            for photograph in folder.iterdir():
                os.symlink(photograph, tmp_path / "data" / split / "thing" / photograph.name)
    data = f"--data=folder:{tmp_path}/data"
    run("train/main.py", data, *SHORT, "--batch_size=5", "--image_size=32", f"--workdir={tmp_path}/run")
    assert "10 images" in run("train/evaluate.py", f"--model={tmp_path}/run/model.keras").stdout


BAD_FLAGS = {
    "misspelt": (["--bacth_size=3"], 1, "Did you mean: batch_size"),
    "positional": (["digits"], 2, "flags only"),
    "model": (["--model=ResNet21"], 2, "ResNet20"),
    "uneven": (["--strategy=mirrored", "--cpu_replicas=3"], 2, "Received: batch_size=64, num_replicas=3"),
    "strategy": (["--strategy=tpu"], 2, "default, mirrored"),
    "data": (["--data=cats"], 2, "digits, synthetic, tfds, folder"),
    "range": (["--momentum=1.5"], 2, "--momentum=1.5"),
    "config": (["--config=nowhere.json"], 2, "nowhere.json"),
}


@pytest.mark.smoke
@pytest.mark.parametrize("case", BAD_FLAGS)
def test_a_users_mistake_gets_one_line(case, tmp_path):
    flags, code, text = BAD_FLAGS[case]
    done = run("train/main.py", f"--workdir={tmp_path}/run", *flags, code=code)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.unit
def test_flags_override_the_recipe_and_the_recipe_the_default():
    options = config.make({"data": "digits", "batch_size": 32})
    assert (options.recipe, options.batch_size, options.crop_padding, options.flip) == ("digits", 32, 1, False)
    assert config.make({"data": "tfds:cifar10"}).recipe == "cifar_fast"
    assert config.make(json.loads(config.to_json(options))) == options
    with pytest.raises(ValueError, match="Unknown configuration fields: bacth_size"):
        config.make({"bacth_size": 3})


@pytest.mark.unit
def test_every_field_of_the_configuration_is_read_by_code():
    code = "".join(path.read_text() for path in (ROOT / "train").glob("*.py"))
    for field in config.dataclasses.fields(config.Config):
        assert f"config.{field.name}" in code or f"self.config.{field.name}" in code, field.name


@pytest.mark.unit
def test_scores_are_counted_as_defined():
    outputs = np.array([[3, 1, 2.0], [1, 3, 2], [2, 2, 2], [0, 1, 2]])
    labels = np.array([0, 2, 1, 0])
    scores = scoring.score(outputs, labels)
    assert scores.top1 == 0.25  # of equal scores the lower class is best: image 3 is missed
    assert scores.top5 == 1.0
    expected = np.log(np.exp(outputs).sum(axis=1)) - outputs[np.arange(4), labels]
    assert np.isclose(scores.loss, expected.mean())
    softmax = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert np.isclose(scoring.score(softmax, labels).loss, scores.loss)
    assert scoring.per_class(outputs, labels, ("a", "b", "c")) == [("a", 2, 0.5), ("b", 1, 0.0), ("c", 1, 0.0)]
    many = np.arange(12.0)[None].repeat(2, axis=0)
    assert scoring.score(many, np.array([7, 6])).top5 == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("file", ["float", "int8"])
def test_the_peers_deployed_files_score_what_they_publish(shared_data, file):
    from train import data

    # MLPerf Tiny's own ResNet-8: 87.02 and 86.82 % on these 5,000 images.
    model = predictor.load(str(shared_data / "weights" / f"mlperf_tiny_resnet8_{file}.tflite"))
    source = data.load("tfds:cifar10", data_dir=shared_data / "tfds")
    scores = scoring.score(*scoring.predict(model, source, "test"))
    assert scores.num_images == 5000
    assert scores.top1 == {"float": 0.8702, "int8": 0.8682}[file]


@pytest.mark.smoke
def test_a_run_starts_from_trained_weights(digits_run, tmp_path):
    """A frozen backbone keeps what it knows; only the classifier moves."""
    before = predictor.load_keras(str(digits_run / "model.keras"))
    flags = ["--model=ResNet8", "--epochs=1", "--warmup_epochs=0", "--learning_rate=0.001", "--freeze_backbone"]
    done = run("train/main.py", *flags, f"--weights={digits_run}/model.keras", f"--workdir={tmp_path}/run")
    assert done.stderr == ""
    assert float(rows(tmp_path / "run")[-1]["val_accuracy"]) > 0.85
    after = predictor.load_keras(str(tmp_path / "run" / "model.keras"))
    for ours, old in zip(after.layers, before.layers, strict=True):
        same = all(map(np.array_equal, ours.get_weights(), old.get_weights()))
        assert same == (ours.name != "predictions" or not ours.weights), ours.name


@pytest.mark.smoke
def test_other_images_and_classes_adapt_and_say_so(digits_run, tmp_path):
    flags = ["--model=ResNet8", "--epochs=1", "--warmup_epochs=0", "--data=synthetic"]
    done = run("train/main.py", *flags, f"--weights={digits_run}/model.keras", f"--workdir={tmp_path}/run")
    assert done.stderr.startswith("Warning: The file's images have 1 channels and the model's 3")
    assert done.stderr.count("\n") == 1
    done = run("train/main.py", *flags, "--weights=nowhere.h5", f"--workdir={tmp_path}/other", code=2)
    assert done.stderr.startswith("Error: The weights do not exist.")


@pytest.mark.smoke
def test_folders_named_by_wnid_take_imagenets_order(tmp_path):
    """Labels are positions in the class index, in training, scoring and the run's config."""
    import PIL.Image

    index = tmp_path / "index.txt"
    index.write_text("".join(f"n{number:08}\n" for number in (7, 3, 5)))
    for split, number in (("train", 3), ("train", 5), ("validation", 5)):
        folder = tmp_path / "data" / split / f"n{number:08}"
        folder.mkdir(parents=True)
        for image in range(8):
            PIL.Image.new("RGB", (40, 36), (number * 40, image, 0)).save(folder / f"{image}.png")
    flags = [f"--data=folder:{tmp_path}/data", f"--class_index={index}", "--model=ResNet20", "--batch_size=8"]
    done = run("train/main.py", *flags, "--epochs=1", "--warmup_epochs=0", f"--workdir={tmp_path}/run")
    assert "3 classes" in done.stdout
    table = run("train/evaluate.py", f"--model={tmp_path}/run/model.keras", "--per_class").stdout.splitlines()
    assert [(row.split()[0], row.split()[1]) for row in table[1:]] == [("n00000005", "8")]
    (tmp_path / "data" / "train" / "cats").mkdir()
    done = run("train/main.py", *flags, f"--workdir={tmp_path}/other", code=2)
    assert "Expected folders named by the wnids of" in done.stderr
    assert "Received: cats, 1 unknown folders" in done.stderr


@pytest.mark.unit
@pytest.mark.parametrize(
    ("field", "value", "text"), [("epochs", "5", "int"), ("epochs", True, "int"), ("flip", 1, "bool")]
)
def test_a_configuration_of_other_types_is_refused(field, value, text):
    with pytest.raises(ValueError, match=f"Expected {field} to be of type {text}"):
        config.make({field: value})


@pytest.mark.unit
def test_what_is_written_aside_is_whole_or_not_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def interrupted():
        with run_folder.written_aside(str(path)) as aside, open(aside, "w") as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.smoke
@pytest.mark.parametrize("flag", ["--batch_size=2000", "--model=ResNet50"])
def test_a_refused_start_leaves_no_run_behind(flag, tmp_path):
    done = run("train/main.py", flag, f"--workdir={tmp_path}/run", code=2)
    assert done.stderr.startswith("Error: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.smoke
def test_another_recipe_replaces_the_files_fields(tmp_path):
    (tmp_path / "config.json").write_text(config.to_json(config.make({"data": "digits", "epochs": 3})))
    script = (
        "import sys; from absl import flags; from train import config\n"
        "config.define_flags(); flags.FLAGS(sys.argv); print(config.to_json(config.from_flags(flags.FLAGS)))"
    )
    printed = run("-c", script, f"--config={tmp_path}/config.json", "--recipe=cifar_fast").stdout
    found = json.loads(printed)
    assert (found["recipe"], found["batch_size"], found["epochs"], found["data"]) == ("cifar_fast", 128, 10, "digits")


@pytest.mark.smoke
def test_a_run_that_diverges_stops_and_keeps_no_model(tmp_path):
    flags = ["--model=ResNet8", "--learning_rate=1e9", "--epochs=2", "--warmup_epochs=0", f"--workdir={tmp_path}/run"]
    done = run("train/main.py", *flags, code=2)
    assert "The loss is not finite in epoch 1" in done.stderr
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.unit
def test_scores_that_are_no_numbers_are_misses():
    outputs = np.array([[np.nan, np.nan], [1.0, 0.0]])
    found = scoring.score(outputs, np.array([0, 0]))
    assert (found.top1, found.top5) == (0.5, 0.5)


@pytest.mark.smoke
def test_an_interrupted_run_says_so_in_one_line(tmp_path):
    command = [sys.executable, "train/main.py", "--model=ResNet8", "--epochs=500", f"--workdir={tmp_path}/run"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "run").glob("checkpoints/epoch-*.npz")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "Interrupted. The same command goes on from what is written.\n"
