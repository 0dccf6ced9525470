"""The trainer's commands: real processes, two replicas, killed and resumed, scored."""

import csv
import dataclasses
import json
import os
import pty
import re
import subprocess
import sys
import termios

import numpy as np
import pytest
from conftest import ROOT, run

from train import checkpoints, config, optimizers, predictor, recipes, run_folder, scoring, strategies, verify

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
    assert kept == [f"epoch-0000{epoch}-step-0000000.npz" for epoch in (2, 3, 4)]
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
def test_a_run_repeats_from_its_config(digits_run, tmp_path):
    run("train/main.py", f"--config={digits_run}/config.json", f"--workdir={tmp_path}")
    assert (tmp_path / "history.csv").read_bytes() == (digits_run / "history.csv").read_bytes()


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
    "strategy": (["--strategy=tpus"], 2, "default, mirrored, multi_worker, tpu"),
    "no cluster": (["--strategy=multi_worker"], 2, "Expected TF_CONFIG, or a SLURM job step"),
    "one worker": (["--local_workers=1"], 2, "Expected --local_workers to be at least 2"),
    "jit": (["--strategy=mirrored", "--jit=on"], 2, "Expected one replica with --jit=on"),
    "odd pairs": (["--mixup=0.2", "--batch_size=33"], 2, "Mixup and cutmix need pairs"),
    "parts": (["--accumulation=3"], 2, "split evenly into the parts"),
    "two strategies": (["--local_workers=2", "--strategy=mirrored"], 2, "with --strategy=mirrored. Leave one out"),
    "plateau": (["--schedule=plateau"], 2, "Expected no warm-up with --schedule=plateau"),
    "unused padding": (["--crop=resized", "--crop_padding=2"], 2, "Received: --crop_padding=2 with --crop=resized"),
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
        assert f"config.{field.name}" in code or f'Step("{field.name}"' in code, field.name


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
    assert re.search(
        r"The loss is not finite in step \d+ of epoch 1.*learning rate \S+e\+0[89],.*checkpoint: none", done.stderr
    )
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.unit
def test_scores_that_are_no_numbers_are_misses():
    outputs = np.array([[np.nan, np.nan], [1.0, 0.0]])
    found = scoring.score(outputs, np.array([0, 0]))
    assert (found.top1, found.top5) == (0.5, 0.5)


@pytest.mark.smoke
def test_workers_of_a_slurm_job_find_each_other(tmp_path):
    """Two tasks of a job step on this machine; the first alone writes and speaks."""
    step = {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}
    command = [sys.executable, "train/main.py", "--strategy=multi_worker", "--model=ResNet8", "--epochs=1"]
    command += ["--warmup_epochs=0", f"--workdir={tmp_path}/run"]
    tasks = [
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | step | {"SLURM_PROCID": str(task)}, stdout=subprocess.PIPE, text=True
        )
        for task in range(2)
    ]
    outputs = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert "multi_worker: 2 replicas, global batch 64" in outputs[0]
    assert outputs[1] == ""
    assert len(rows(tmp_path / "run")) == 1


@pytest.mark.smoke
def test_the_strategy_is_verified_by_command():
    flags = ["--verify_strategy", "--model=ResNet8", "--data=synthetic", "--batch_size=32", "--recipe=finetune"]
    done = run("train/main.py", "--strategy=mirrored", *flags)
    assert "ResNet8, 3 steps of batch 32, mirrored against one replica:" in done.stdout
    for group in ("weights", "statistics", "optimizer", "average", "metrics"):
        assert re.search(rf"{group} +largest difference \d\.\de[-+]\d\d of its scale", done.stdout)
    assert done.stdout.endswith("The same: limit 1e-05\n")


@pytest.mark.unit
def test_differences_are_shares_of_each_arrays_scale(capsys):
    one = {"weights/a": np.array([1.0, -4.0]), "weights/b": np.array([100.0]), "metrics/loss": np.array(2.0)}
    other = {"weights/a": np.array([1.0, -4.2]), "weights/b": np.array([100.1]), "metrics/loss": np.array(2.0)}
    worst = verify.differences(one, other)
    assert worst == pytest.approx({"weights": 0.05, "metrics": 0.0})
    assert verify.report(config.make({}), worst) == 1
    assert verify.report(config.make({"mixed_precision": "bfloat16"}), worst) == 0
    assert "NOT the same: limit 1e-05" in capsys.readouterr().out
    for value in (np.nan, np.inf):
        for position in range(2):
            broken = [{"weights/a": np.ones(2), "weights/b": np.ones(2)} for _ in range(2)]
            broken[position]["weights/a"] = np.array([1.0, value])
            assert verify.report(config.make({"mixed_precision": "bfloat16"}), verify.differences(*broken)) == 1


@pytest.mark.unit
def test_one_replica_is_not_verified_against_itself():
    with pytest.raises(ValueError, match=r"Received: --strategy=default.*Pass --strategy=mirrored, or --local_workers"):
        verify.run(config.make({}), 0)


@pytest.mark.smoke
def test_local_workers_are_multi_worker_however_they_are_asked_for():
    script = (
        "import runpy, sys, types\nfrom train import workers\n"
        "workers.run = lambda count, arguments: print(count, *arguments)\n"
        "show = types.SimpleNamespace(run=lambda config, count: print(count, config.strategy))\n"
        "sys.modules['train.verify'] = show\n"
        "runpy.run_path('train/main.py', run_name='__main__')"
    )
    printed = run("-c", script, "--local_workers", "2", "--epochs", "3").stdout
    assert printed == "2 train/main.py --local_workers 2 --epochs 3 --local_workers=0 --strategy=multi_worker\n"
    assert run("-c", script, "--verify_strategy", "--local_workers=2").stdout == "2 multi_worker\n"


@pytest.mark.unit
def test_uneven_tasks_of_a_slurm_job_are_refused(monkeypatch):
    monkeypatch.setattr(strategies.tf.config, "list_physical_devices", lambda kind: [])
    for text, tasks in (("2", 2), ("3(x2)", 3)):
        monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", text)
        assert strategies._slurm_options()["gpus_per_node"] == tasks
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "2,1")
    with pytest.raises(ValueError, match=r"as many tasks on each node.*SLURM_STEP_TASKS_PER_NODE=2,1. Pass --ntasks"):
        strategies._slurm_options()


@pytest.mark.unit
def test_errors_of_tensorflow_are_told_apart(tmp_path):
    import tensorflow as tf

    from train import decoding, failures

    def told(function):
        with pytest.raises(tf.errors.OpError) as caught:
            function()
        return failures.explain(caught.value)[0]

    def decoded(*encoded):
        return [*tf.data.Dataset.from_tensor_slices([*encoded]).map(lambda each: decoding.decode_whole(each, 3))]

    for content in (b"", b"milk", b"\xff\xd8\xff\xe0 no more", b"\x89PNG\r\n\x1a\n no more"):
        assert told(lambda content=content: decoded(content)).startswith("an image could not be read: Error in user")
    missing = told(lambda: tf.io.read_file(str(tmp_path / "none.jpg")))
    assert re.match(r"an image could not be read: .*none.jpg; No such file", missing)
    other = told(lambda: tf.zeros((2, 3)) + tf.zeros((3, 2)))
    assert other.startswith("TensorFlow stopped with InvalidArgumentError: Incompatible shapes: [2,3] vs. [3,2]")


@pytest.mark.smoke
def test_damaged_images_are_left_out_and_named(tmp_path, photographs):
    (photographs / "train" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    flags = [f"--data=folder:{photographs}", "--model=ResNet20", "--batch_size=4", "--epochs=1", "--warmup_epochs=0"]
    flags += ["--image_size=32"]
    done = run("train/main.py", *flags, f"--workdir={tmp_path}/run")
    assert "Warning: 1 of the files in folder:" in done.stderr
    assert "6 train" in done.stdout
    report = json.loads((tmp_path / "run" / "damaged_images.json").read_text())
    assert report["damaged"] == [str(photographs / "train" / "cat" / "broken.jpg")]
    done = run("train/main.py", *flags, "--strict", f"--workdir={tmp_path}/strict", code=2)
    assert "Error: 1 of the files in folder:" in done.stderr
    assert not (tmp_path / "strict").exists()


@pytest.mark.unit
def test_every_command_leaves_damaged_images_out():
    users = [path.name for path in (ROOT / "train").glob("*.py") if "load_for_run(config)" in path.read_text()]
    assert sorted(users) == ["data.py", "strategies.py"]  # where it is defined, and where damaged ones are left out


@pytest.mark.unit
def test_a_preview_is_refused_as_a_run_would_be(tmp_path):
    from train import preview

    with pytest.raises(ValueError, match="Mixup and cutmix need pairs"):
        preview.run(config.make({"mixup": 0.2, "batch_size": 33, "workdir": str(tmp_path / "run")}))


@pytest.mark.smoke
def test_a_preview_is_drawn_and_nothing_is_trained(tmp_path):
    run("train/main.py", "--preview", "--mixup=0.2", "--erasing=0.5", f"--workdir={tmp_path}/run")
    assert [path.name for path in (tmp_path / "run").rglob("*.*")] == ["preview.png"]
    assert (tmp_path / "run" / "plots" / "preview.png").stat().st_size > 20_000


@pytest.mark.smoke
def test_a_benchmark_says_what_a_run_waits_for(tmp_path, monkeypatch, capsys):
    import tensorflow as tf

    from train import benchmark

    monkeypatch.setattr(benchmark, "SECONDS", 0.2)
    options = config.make({"model": "ResNet8", "workdir": str(tmp_path / "run")})
    benchmark.run(tf.distribute.get_strategy(), options, "all")
    lines = capsys.readouterr().out.splitlines()
    for line, (name, unit) in zip(lines, (("input", "core"), ("compute", "replica"), ("all", "replica")), strict=False):
        assert re.match(rf"{name} +[\d,]+ images/s, [\d,]+ a {unit}", line)
    assert lines[3].startswith("Waiting for compute")
    assert "--mixed_precision" in lines[3]  # which is off
    assert not (tmp_path / "run").exists()


@pytest.mark.smoke
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_learns_and_saves_a_float32_model_of_stock_layers(precision, tmp_path):
    run("train/main.py", *SHORT, f"--mixed_precision={precision}", "--ema=0.8", f"--workdir={tmp_path}/run")
    assert float(rows(tmp_path / "run")[-1]["val_accuracy"]) > 0.5
    script = "import sys, keras; model = keras.saving.load_model(sys.argv[1])\n"
    script += "print({layer.dtype_policy.name for layer in model.layers})\n"
    script += "print({type(layer).__module__.split('.')[0] for layer in model.layers})"
    done = run("-c", script, tmp_path / "run" / "model.keras", env=os.environ | {"PYTHONPATH": ""})
    assert done.stdout == "{'float32'}\n{'keras'}\n"


@pytest.mark.smoke
def test_training_at_a_lower_resolution_gives_a_model_for_testing(tmp_path):
    flags = ["--model=ResNet20", "--data=synthetic", "--epochs=1", "--warmup_epochs=0", "--training_size=24"]
    run("train/main.py", *flags, "--recipe=finetune", f"--workdir={tmp_path}/run")
    line = run("train/evaluate.py", f"--model={tmp_path}/run/model.keras", "--split=validation").stdout
    assert f"top-1 {float(rows(tmp_path / 'run')[-1]['val_accuracy']):.2%}" in line
    assert predictor.load(f"{tmp_path}/run/model.keras").image_shape == (32, 32, 3)


@pytest.mark.smoke
def test_the_moving_average_is_scored_and_kept(tmp_path):
    run("train/main.py", *SHORT, "--ema=0.9", f"--workdir={tmp_path}/run")
    line = run("train/evaluate.py", f"--model={tmp_path}/run/model.keras", "--split=validation").stdout
    assert f"top-1 {float(rows(tmp_path / 'run')[-1]['val_accuracy']):.2%}" in line
    model = predictor.load_keras(f"{tmp_path}/run/model.keras")
    path = checkpoints.paths(config.make({"workdir": f"{tmp_path}/run"}))[-1]
    with np.load(path) as stored:
        averages = [stored[name] for name in stored.files if "average_" in name]
        raw = [stored[name] for name in stored.files[: len(averages)]]
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), averages, strict=True))
    assert not all(np.allclose(*pair) for pair in zip(raw, averages, strict=True))


@pytest.mark.smoke
@pytest.mark.parametrize("name", [name for name in recipes.RECIPES if name not in ("digits", "cifar_fast")])
def test_every_recipe_trains(name, tmp_path):
    """A step of each on photographs of 32 pixels, by the real command's own path."""
    from train import data, loop

    options = config.make({
        "data": "synthetic", "model": "ResNet20", "recipe": name, "batch_size": 16, "epochs": 1,
        "warmup_epochs": 0.0, "warmup_rate": 0.0, "training_size": 0, "crop_padding": 4 if "cifar" in name else 0,
    })  # fmt: skip
    source = data.load("synthetic")
    source = data.dataclasses.replace(source, splits={split: _first(part, 48) for split, part in source.splits.items()})
    state = loop.build_state(tf_default(), source, options)
    before = [value.copy() for value in state.model.get_weights()]
    progress = loop.fit(tf_default(), state, source, options)
    assert np.isfinite(progress.history[0]["loss"])
    assert not all(map(np.array_equal, before, state.model.get_weights()))


def _first(split, count):
    return dataclasses.replace(split, positions=split.positions[:count])


def tf_default():
    import tensorflow as tf

    return tf.distribute.get_strategy()


@pytest.mark.unit
def test_deep_nets_get_the_papers_warm_up():
    assert config.make({"recipe": "paper_cifar", "model": "ResNet56"}).warmup_rate == 0
    deep = config.make({"recipe": "paper_cifar", "model": "ResNet110"})
    assert (deep.recipe, deep.warmup_rate, deep.learning_rate) == ("paper_cifar_deep", 0.01, 0.1)
    rate = optimizers.schedule(deep, 351)
    half = 182 * 351 // 2
    assert [round(float(rate(step)), 6) for step in (0, 399, 400, 401, half - 1, half, 47_900, 48_000)] == [
        0.01, 0.01, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"before the first fall, at half.*--warmup_epochs=1.14 and --epochs=2"):
        config.make({"recipe": "paper_cifar", "model": "ResNet110", "epochs": 2})
    short = optimizers.schedule(config.make({"recipe": "paper_cifar", "model": "ResNet110", "epochs": 3}), 351)
    assert {round(float(short(step)), 6) for step in range(0, 1053, 9)} == {0.01, 0.1, 0.001}


FIELDS_AT_ODDS = {
    "unused rate": ({"schedule": "cosine", "warmup_rate": 0.01}, "Expected warmup_rate with --schedule=steps or const"),
    "one cycle": ({"schedule": "one_cycle", "warmup_rate": 0.01}, "Received: --warmup_rate=0.01 with --schedule=one_c"),
    "no warm-up": ({"schedule": "steps", "warmup_rate": 0.01, "warmup_epochs": 0.0}, "and --warmup_epochs=0. Pass"),
    "late warm-up": ({"schedule": "steps", "epochs": 8, "warmup_epochs": 6.0}, "before the first fall, at half"),
    "threshold": ({"bce_threshold": 0.2}, "Received: --bce_threshold=0.2 with --loss=cross_entropy"),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", FIELDS_AT_ODDS)
def test_fields_at_odds_are_refused(case):
    fields, text = FIELDS_AT_ODDS[case]
    with pytest.raises(ValueError, match=re.escape(text)):
        config.make(fields)


@pytest.mark.unit
def test_targets_of_strikes_back_are_timms():
    rows = {name: row.bce_threshold for name, row in recipes.RECIPES.items() if row.loss == "bce"}
    assert rows == {"strikes_back_a1": 0.2, "strikes_back_a2": 0.2, "strikes_back_a3": 0.2}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"cluster": {"worker": ["127.0.0.1"]}, "task": {"type": "worker", "index": 0}}',
            "as host:port. Received: 127",
        ),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}', "Expected TF_CONFIG="),
        ("{", "TF_CONFIG is not read"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        strategies.make(config.make({"strategy": "multi_worker"}))
