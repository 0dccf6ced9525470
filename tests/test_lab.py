"""The paper lab: every experiment by the real command on digits, killed and resumed, and what its pages say."""

import csv
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import keras
import matplotlib.image
import numpy as np
import pytest
from conftest import ROOT, run

import keras_resnet
from train import checkpoints, config, lab, loop, run_folder, strategies
from train.experiments import depth, gradient_norms, lesions, moments, nets, origin, responses, runs, settings

SMOKE = ("--data=digits", "--budget=smoke")
# Of each experiment: columns of its CSV, and a row of its page: words and the paper's figure.
CONTENT = {
    "table1": ("net,image_size,parameters,multiply_adds,stem,stage1,stage2,stage3,stage4",
               r"\| ResNet-50, multiply-adds \(1e9\) \| 3\.80 \| 3\.86 \| \+0\.06 \|"),
    "table6": ("net,layers,seed,epochs,parameters,multiply_adds,training_error,validation_error,test_error,test_images",
               r"\| ResNet-20, test error \(%\) \| 8\.75 \| [\d.]+ \|  \|"),
    "degradation": ("net,kind,layers,seed,epoch,iteration,training_error,validation_error,learning_rate,test_error",
                    r"\| training error of plain-32 minus plain-20 \(points\) \| above 0 \(figure 6, left\) \| "),
    "shortcuts": ("option,net,layers,seed,epochs,parameters,multiply_adds,training_error,validation_error,test_error,"
                  "test_images",
                  r"\| B minus A \(points; the paper: 34 layers, ImageNet\) \| -0\.51 \| [\d.-]+ \|  \|"),
    "responses": ("net,kind,layers,seed,layer,name,standard_deviation",
                  r"\| ResNet-20 over plain-20 \| below 1 \| [\d.]+ \|"),
    "depth": ("net,layers,seed,epochs,parameters,multiply_adds,training_error,validation_error,test_error,test_images,"
              "step_seconds,step_peak_mb,build_seconds,first_step_seconds,second_step_seconds,loss,export_seconds,export_peak_mb,"
              "file_bytes", r"\| ResNet-44, parameters \(1e6\) \| 0\.66 \| 0\.66 \| \+0\.00 \|"),
    "crops": ("net,seed,views,num_views,scales,top1_error,top5_error,loss,num_images",
              r"\| ResNet-20: scales minus 10 crops \(points; the paper's ResNet-50\) \| -2\.11 \| [\d.-]+ \| "),
    "gradients": ("net,kind,layers,seed,epoch,iteration,layer,name,gradient_norm",
                  r"\| plain-20: weakest layer over strongest, at the start \| not vanishing \| [\d.e-]+ \|"),
    "unravelled": ("net,layers,seed,shortcut,kind,block,name,test_error,test_images",
                   r"\| exclusive gating minus identity \(points; the paper: ResNet-110\) \| 2\.09 \| [\d.-]+ \|  \|"),
}  # fmt: skip
# FACTS.md: trainable parameters and multiply-adds.
TABLE1 = {
    "ResNet-18": (11_689_512, 1.814e9), "ResNet-34": (21_797_672, 3.664e9), "ResNet-50": (25_557_032, 3.858e9),
    "ResNet-101": (44_549_160, 7.570e9), "ResNet-152": (60_192_808, 11.282e9), "ResNet-20": (269_722, 40.6e6),
    "ResNet-56": (853_018, None), "ResNet-110": (1_727_962, 252.9e6),
}  # fmt: skip
NETS = {"PlainNet20", "PlainNet32", "ResNet20", "ResNet32", "ResNet20-B", "ResNet20-C", "ResNet20-gated",
        "ResNet20-dropout"}  # fmt: skip


def stem(name):
    """Of the files of an experiment on digits."""
    return name if name == "table1" else f"{name}_digits"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Folder of the results of all experiments, run by one command; `gradients` first, which keeps checkpoints."""
    folder = tmp_path_factory.mktemp("lab")
    names = sorted(lab.EXPERIMENTS, key=lambda name: name != "gradients")
    done = run("train/lab.py", *names, *SMOKE, f"--output_dir={folder}")
    (folder / "output.txt").write_text(done.stdout)
    (folder / "errors.txt").write_text(done.stderr)
    return folder


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def the_run(folder, title):
    """Run folder of a net, by the beginning of its name."""
    (found,) = [path for path in (folder / "runs").iterdir() if path.name.startswith(f"{title}-3epochs")]
    return found


@pytest.mark.smoke
def test_the_table_of_experiments_is_the_issues_and_runs_without_a_word_of_trouble(smoke):
    assert {*lab.EXPERIMENTS} == {*CONTENT}
    assert (smoke / "errors.txt").read_text() == ""
    for name in CONTENT:
        assert (
            f"Wrote {stem(name)}.csv, {stem(name)}.png and {stem(name)}.md to {smoke}"
            in (smoke / "output.txt").read_text()
        )


@pytest.mark.smoke
@pytest.mark.parametrize("name", CONTENT)
def test_an_experiment_leaves_figures_a_picture_and_a_page(name, smoke):
    columns, fact = CONTENT[name]
    found = rows(smoke / f"{stem(name)}.csv")
    assert ",".join(found[0]) == columns
    picture = matplotlib.image.imread(smoke / f"{stem(name)}.png")
    assert min(picture.shape[:2]) > 100
    drawn = (picture[..., :3].min(axis=2) < 0.95).mean()
    assert 0.01 < drawn < 0.9
    page = (smoke / f"{stem(name)}.md").read_text()
    assert re.search(fact, page), page
    assert f"]({stem(name)}.png)" in page
    assert lab.EXPERIMENTS[name].source in page
    *_, reading, conditions, made = page.split("\n\n")
    data = "" if name == "table1" else " --data=digits"
    assert made.startswith(f"Made by `python train/lab.py {name}{data} --budget=smoke")
    assert re.search(r"on 20\d\d-\d\d-\d\d with TensorFlow [\d.]+, Keras [\d.]+ and Python [\d.]+ on .+ cores", made)
    if name == "table1":
        reading = conditions
    else:
        assert conditions.startswith("Trained on digits for 3 epochs (the paper: 64,000 steps")
    assert reading.count(".") >= 2


@pytest.mark.smoke
def test_table1_counts_what_the_paper_builds(smoke):
    found = {row["net"]: row for row in rows(smoke / "table1.csv")}
    for net, (parameters, flops) in TABLE1.items():
        assert int(found[net]["parameters"]) == parameters
        assert flops is None or float(found[net]["multiply_adds"]) == pytest.approx(flops, rel=2e-3)
    assert found["ResNet-50"]["stage3"] == "14x14: [1x1, 256; 3x3, 256; 1x1, 1024] x 6"
    assert found["ResNet-110"]["stage2"] == "16x16: [3x3, 32; 3x3, 32] x 18"


@pytest.mark.smoke
def test_experiments_share_runs_which_are_the_trainers(smoke):
    folders = [path for path in (smoke / "runs").iterdir() if "-3epochs-seed0-" in path.name]
    assert {path.name.partition("-3epochs")[0] for path in folders} == NETS
    assert len(folders) == len(NETS)
    for path in folders:
        fields = json.loads((path / "config.json").read_text())
        assert (fields["recipe"], fields["learning_rate"], fields["schedule"]) == ("paper_cifar", 0.1, "steps")
        assert {"model.keras", "history.csv", "checkpoints", "plots"} <= {entry.name for entry in path.iterdir()}
    done = run("train/main.py", f"--config={the_run(smoke, 'ResNet20')}/config.json")
    assert "is finished: nothing to train" in done.stdout


@pytest.mark.smoke
def test_degradation_draws_the_runs_own_history_and_scores_as_evaluate_does(smoke):
    found = rows(smoke / "degradation_digits.csv")
    for net, folder in (("plain-20", "PlainNet20"), ("ResNet-32", "ResNet32")):
        own = [row for row in found if row["net"] == net]
        history = rows(the_run(smoke, folder) / "history.csv")
        for row, epoch in zip(own, history, strict=True):
            assert float(row["training_error"]) == 100 * (1 - float(epoch["accuracy"]))
            assert float(row["validation_error"]) == 100 * (1 - float(epoch["val_accuracy"]))
        assert [row["iteration"] for row in own] == ["20", "40", "60"]
        assert len({row["test_error"] for row in own} - {""}) == 3  # after each epoch
        assert float(own[-1]["test_error"]) < float(own[0]["test_error"])
    line = run("train/evaluate.py", f"--model={the_run(smoke, 'ResNet32')}/model.keras").stdout
    accuracy = float(re.search(r"top-1 ([\d.]+)%", line)[1])
    assert float(found[-1]["test_error"]) == pytest.approx(100 - accuracy, abs=0.006)
    assert (found[-1]["net"], found[-1]["epoch"]) == ("ResNet-32", "3")
    (last,) = [row for row in rows(smoke / "table6_digits.csv") if row["net"] == "ResNet-32"]
    assert [last[name] for name in ("training_error", "validation_error", "test_error")] == [
        found[-1][name] for name in ("training_error", "validation_error", "test_error")
    ]


@pytest.mark.smoke
def test_gradients_are_of_the_start_and_of_each_checkpoint(smoke):
    found = rows(smoke / "gradients_digits.csv")
    for net in ("plain-20", "ResNet-20"):
        by_moment = {}
        for row in found:
            if row["net"] == net:
                by_moment.setdefault(int(row["iteration"]), []).append(float(row["gradient_norm"]))
        assert sorted(by_moment) == [0, 20, 40, 60]
        assert {len(norms) for norms in by_moment.values()} == {19}
        for norms in by_moment.values():
            assert min(norms) > 0
            assert max(norms) < 100
        assert len({norms[0] for norms in by_moment.values()}) == 4


@pytest.mark.smoke
def test_the_first_gradient_is_the_one_that_the_trainers_first_step_follows(tmp_path):
    """The weights' change in a step of plain SGD at rate 1, without decay, is the gradient."""
    from train import input_pipeline, steps

    run_ = runs.plan(make_settings(tmp_path), nets.Net("ResNet20"), 0, 3)
    keras.utils.set_random_seed(9)  # whatever was drawn before
    (expected, *_) = np.array([row["gradient_norm"] for row in gradient_norms.of_run(run_)]).reshape(-1, 19)
    changes = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    plain = config.dataclasses.replace(run_.config, **changes)
    keras.utils.set_random_seed(0)
    strategy = strategies.make(plain)
    source = run_.source()
    state = loop.build_state(strategy, source, plain)
    kernels = [layer.kernel for layer in state.model.layers if getattr(layer, "kernel_size", None) == (3, 3)]
    before = [kernel.numpy() for kernel in kernels]
    batches = iter(input_pipeline.training_batches(source, plain, epoch=0))
    steps.make_train_steps(strategy, state, plain)(batches, 1, np.zeros(3, "float32"))
    norms = [np.linalg.norm(kernel.numpy() - old) for kernel, old in zip(kernels, before, strict=True)]
    assert np.allclose(norms, expected, rtol=0.02)  # float32, summed in another order


@pytest.mark.smoke
def test_responses_are_standard_deviations_behind_batch_normalization(smoke):
    found = [row for row in rows(smoke / "responses_digits.csv") if row["net"] == "ResNet-20"]
    assert [row["name"] for row in found[:3]] == ["stem_bn", "stage1_block1_bn1", "stage1_block1_bn2"]
    assert len(found) == 19
    model = keras.saving.load_model(the_run(smoke, "ResNet20") / "model.keras")
    images = runs.plan(make_settings(smoke), nets.Net("ResNet20"), 0, 3).source()
    pixels, _, _ = responses.input_pipeline.arrays(images, "test")
    inner = keras.Model(model.inputs[0], model.get_layer("stage2_block1_bn2").output)
    outputs = np.asarray(inner(pixels.astype("float32"), training=False))
    (row,) = [row for row in found if row["name"] == "stage2_block1_bn2"]
    assert float(row["standard_deviation"]) == pytest.approx(outputs.std(), rel=1e-4)


@pytest.mark.smoke
def test_dropped_blocks_are_all_that_can_be_dropped(smoke):
    dropped = [row for row in rows(smoke / "unravelled_digits.csv") if row["kind"] == "dropped"]
    residual = [row["name"] for row in dropped if row["net"] == "ResNet-20"]
    assert residual == [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)]
    plain = [row["name"] for row in dropped if row["net"] == "plain-20"]
    assert plain == [name for name in residual if name not in ("stage2_block1", "stage3_block1")]
    assert {row["shortcut"] for row in dropped} == {"none", "A"}
    found = rows(smoke / "unravelled_digits.csv")  # as many test images as there are: the whole net's error is one
    intact = {row["net"]: row["test_error"] for row in found if row["kind"] == "intact"}
    assert intact == {row["net"]: row["test_error"] for row in found if row["kind"] == "whole" and row["net"] in intact}
    assert len(intact) == 2


@pytest.mark.unit
@pytest.mark.parametrize(("name", "change"), [("ResNet20", lesions.silence), ("PlainNet20", lesions.pass_on)])
def test_a_dropped_block_hands_on_what_it_gets(name, change):
    model = keras_resnet.build(name, weights=None, input_shape=(8, 8, 3))
    layers = [model.get_layer(f"stage1_block2_{part}") for part in ("conv1", "bn1", "conv2", "bn2")]
    ends = [model.get_layer(f"stage1_block{block}_out").output for block in (1, 2)]
    inner = keras.Model(model.inputs[0], ends)
    rng = np.random.default_rng(0)
    for norm in (layers[1], layers[3]):  # as a trained net has them
        norm.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in norm.get_weights()])
    images = rng.standard_normal((2, 8, 8, 3)).astype("float32")
    one, other = inner(images)
    assert not np.allclose(one, other, atol=1e-3)
    change(*layers)
    one, other = inner(images)
    assert np.allclose(one, other, atol=1e-5)


@pytest.mark.smoke
def test_lesions_leave_the_model_as_it_was(smoke):
    run_ = runs.plan(make_settings(smoke), nets.Net("PlainNet20"), 0, 3)
    model = run_.model()
    before = model.get_weights()
    found = lesions.score(model, run_.source(), is_plain=True)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))
    kept = {row["name"]: float(row["test_error"]) for row in rows(smoke / "unravelled_digits.csv")
            if row["net"] == "plain-20" and row["kind"] != "whole"}  # fmt: skip
    assert {row["name"]: row["test_error"] for row in found} == kept


@pytest.mark.smoke
def test_the_deepest_net_was_trained_a_step_and_exported(smoke):
    folder = smoke / "runs" / "ResNet44-one-step-digits"
    last = rows(smoke / "depth_digits.csv")[-1]
    assert (last["net"], last["test_error"]) == ("ResNet-44", "")
    assert int(last["parameters"]) == 658_586 - 2 * 9 * 16  # the paper's, with one grey channel for three
    size = (folder / "export" / "resnet44_float32.tflite").stat().st_size
    assert int(last["file_bytes"]) == size > 4 * int(last["parameters"])
    assert 1 < float(last["loss"]) < 20
    assert min(int(last["step_peak_mb"]), int(last["export_peak_mb"])) > 100
    assert json.loads((folder / "config.json").read_text())["accumulation"] == 16


@pytest.mark.smoke
def test_a_killed_lab_goes_on_to_the_same_figures(smoke, tmp_path):
    """kill -9 while its second net is trained, the same command again: bit for bit what an undisturbed one wrote."""
    command = ["train/lab.py", "degradation", *SMOKE, "--nets=PlainNet20,ResNet20", f"--output_dir={tmp_path}"]
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("runs/ResNet20-*/checkpoints/epoch-*.npz")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "degradation_digits.csv").exists()
    output = run(*command).stdout
    assert output.count("resumed after epoch") == 1
    assert "PlainNet20: " not in output  # it was finished
    nets = ("plain-20", "ResNet-20")
    assert rows(tmp_path / "degradation_digits.csv") == [
        row for row in rows(smoke / "degradation_digits.csv") if row["net"] in nets
    ]
    first, second = (checkpoints.paths(config.make({"workdir": str(the_run(folder, "ResNet20"))}))[-1]
                     for folder in (smoke, tmp_path))  # fmt: skip
    with np.load(first) as one, np.load(second) as other:
        assert one.files == other.files
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


@pytest.fixture
def copied(smoke, tmp_path):
    """A copy of the lab's folder, to damage."""
    return shutil.copytree(smoke, tmp_path / "lab")


@pytest.mark.smoke
def test_a_damaged_run_is_told_with_what_mends_it(copied):
    folder = the_run(copied, "ResNet20")
    one = run_of(folder)
    text = (folder / "history.csv").read_text()
    for damaged in ("xx\n", "\n".join(text.splitlines()[:-1]), text.replace("0.", "zero", 1)):
        (folder / "history.csv").write_text(damaged)
        with pytest.raises(ValueError, match=r"history.csv is damaged.* Delete .*model.keras and run the same command"):
            one.history()
    (folder / "model.keras").write_bytes((folder / "model.keras").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"model.keras'.* Delete .*model.keras and run the same command"):
        one.model()
    (folder / "model.keras").unlink()
    runs.train(one)
    assert (folder / "history.csv").read_text() == text
    assert [row["epoch"] for row in one.history()] == [1, 2, 3]


@pytest.mark.smoke
def test_a_damaged_checkpoint_is_no_moment_of_the_gradients(copied):
    one = run_of(the_run(copied, "ResNet20"))
    (damaged,) = [path for path in checkpoints.paths(one.config) if "epoch-00002-step-0000000" in path]
    pathlib.Path(damaged).write_bytes(pathlib.Path(damaged).read_bytes()[:50_000])
    with pytest.warns(UserWarning, match="A damaged checkpoint is left out: .*epoch-00002"):
        found = gradient_norms.of_run(one)
    assert {row["epoch"] for row in found} == {0, 1, 3}


def run_of(folder):
    """The `Run` in a run folder of ResNet20, which may have been moved."""
    chosen = config.read(str(folder / "config.json")) | {"workdir": str(folder)}
    return runs.Run(nets.Net("ResNet20"), config.make(chosen))


@pytest.mark.smoke
def test_a_page_that_another_command_made_is_not_replaced_in_silence(tmp_path):
    run("train/lab.py", "table1", "--nets=ResNet20", f"--output_dir={tmp_path}")
    done = run("train/lab.py", "table1", "--nets=ResNet20", f"--output_dir={tmp_path}")
    assert "will be replaced" not in done.stderr
    done = run("train/lab.py", "table1", "--nets=SEResNet50", f"--output_dir={tmp_path}")
    earlier = "table1 of `python train/lab.py table1 --budget=smoke --nets=ResNet20` will be replaced"
    assert f"Warning: {earlier}; that command makes it again.\n" in done.stderr


@pytest.mark.unit
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "in", pathlib.Path("/proc/nope")):
        with pytest.raises(ValueError, match=f"Expected --output_dir to be a folder .* --output_dir={folder}"):
            lab.check_output_dir(str(folder))
    lab.check_output_dir(str(tmp_path / "new" / "deeper"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    lab.check_output_dir(str(tmp_path))


@pytest.mark.slow
def test_crops_of_real_photographs_with_trained_weights(shared_data, trained, tmp_path):
    """Every fifth of the photographs on which BUILD_NOTES.md, "Weights", has 78, 79 and 78 of 100.

    The loss tells the views apart more finely than the twenty answers do.
    """
    photographs = sorted((shared_data / "imagenet_sample").glob("*/*/*"))[::5]
    for path in photographs:
        folder = tmp_path / "photographs" / path.parent.parent.name / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).symlink_to(path)
    weights = f"--weights=ResNet18={trained}/imagenet_resnet18.safetensors"
    index = f"--class_index={shared_data}/imagenet_class_index.json"
    run("train/lab.py", "crops", f"--data=folder:{tmp_path}/photographs", weights, index, f"--output_dir={tmp_path}")
    found = rows(tmp_path / "crops_photographs.csv")
    assert [(row["net"], row["views"]) for row in found] == [
        ("ResNet-18", views) for views in ("1 crop", "10 crops", "scales")
    ]
    assert {row["num_images"] for row in found} == {str(len(photographs))} == {"20"}
    assert [float(row["top1_error"]) for row in found] == pytest.approx([15, 20, 20], abs=0.01)
    assert [float(row["loss"]) for row in found] == pytest.approx([0.8847, 1.0219, 1.4547], abs=2e-3)
    assert found[2]["scales"] == "224 256 384 480 640"
    assert not (tmp_path / "runs").exists()


# What the command line refuses.


def flag_values(**changes):
    given = {"data": "digits", "data_dir": "", "budget": "smoke", "seeds": ["0"], "output_dir": "out", "nets": []}
    return types.SimpleNamespace(**given | {"weights": [], "class_index": ""} | changes)


def make_settings(folder, **changes):
    return lab.settings_from_flags(flag_values(output_dir=str(folder), **changes))


@pytest.mark.smoke
@pytest.mark.parametrize(("arguments", "text"), [
    (["degredation"], "Error: There is no such experiment. Expected names of experiments: table1, table6, degradation"),
    (["table1", "--budget=smoky"], "Received: --budget=smoky. Nearest: smoke."),
])  # fmt: skip
def test_a_mistake_is_one_line(arguments, text, tmp_path):
    done = run("train/lab.py", *arguments, f"--output_dir={tmp_path}/out", code=2)
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.unit
@pytest.mark.parametrize(("name", "chosen", "text"), [
    ("table1", ["ResNet21"], "Nearest: ResNet32, ResNet26, ResNet20."),
    ("shortcuts", ["ResNet20:D"], "ResNet20:gated, ResNet20:gated_shortcut, ResNet20:dropout. Received: 'ResNet20:D'."),
    ("shortcuts", ["PlainNet20:none"], "Expected PlainNet20 alone. Received: 'PlainNet20:none'."),
    ("shortcuts", ["ResNet20", ""], "PlainNet56. Received: ''."),
    ("shortcuts", ["ResNet20", "ResNet32:B"], "Expected such --nets. Received: ResNet-20, ResNet-32 (B)."),
    ("unravelled", ["ResNet20", "ResNet50"], "two 3x3 layers. Expected --nets of such, as ResNet20"),
    ("unravelled", ["ResNet50V2"], "Received: ResNet-50V2."),
])  # fmt: skip
def test_nets_that_an_experiment_cannot_take_are_refused(name, chosen, text, tmp_path):
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        lab.nets_of(name, make_settings(tmp_path, nets=chosen))
    assert "\n" not in str(caught.value)


@pytest.mark.unit
@pytest.mark.parametrize(("names", "changes", "text"), [
    (["crops", "depth"], {"weights": ["ResNet18=a"]}, "Received: --weights with depth."),
    (["crops"], {"weights": ["ResNet18=a"], "nets": ["ResNet20"]}, "Received: both."),
    (["crops"], {"class_index": "index.json"}, "Received: no --weights."),
])  # fmt: skip
def test_weights_are_for_crops_alone(names, changes, text, tmp_path):
    with pytest.raises(ValueError, match=re.escape(text)):
        lab.check_weights(names, make_settings(tmp_path, **changes))
    lab.check_weights(
        ["crops"], make_settings(tmp_path, weights=["ResNet18=a", "ResNet50=b"], class_index="index.json")
    )


@pytest.mark.unit
def test_a_net_twice_is_trained_once(tmp_path):
    chosen = make_settings(tmp_path, nets=["ResNet20", "ResNet20:A", "ResNet20:B"])
    assert lab.nets_of("degradation", chosen) == [nets.Net("ResNet20"), nets.Net("ResNet20", "B")]


@pytest.mark.unit
def test_the_nearest_name_is_given():
    with pytest.raises(ValueError, match="Nearest: degradation"):
        lab.check_names(["table1", "degredation"])
    assert lab.check_names(["table1", "depth", "table1"]) == ["table1", "depth"]


@pytest.mark.unit
@pytest.mark.parametrize(("changes", "text"), [
    ({"budget": "0"}, "--budget=0."), ({"budget": "1.5"}, "--budget=1.5"), ({"budget": "30s"}, "--budget=30s"),
    ({"budget": ""}, "--budget="), ({"budget": "-3"}, "--budget=-3"), ({"seeds": ["a"]}, "Received: --seeds=a."),
    ({"seeds": []}, "whole numbers"), ({"seeds": [str(2**32)]}, "below 2**32"),
    ({"weights": ["ResNet18"]}, "NET=WEIGHTS"),
    ({"weights": ["ResNet18=a", "ResNet18=b"]}, "each net once. Received: ResNet18=a,ResNet18=b"),
])  # fmt: skip
def test_values_that_mean_nothing_are_refused(changes, text, tmp_path):
    with pytest.raises(ValueError, match=re.escape(text)):
        make_settings(tmp_path, **changes)


# Budgets and runs.


@pytest.mark.unit
def test_a_budget_in_minutes_is_epochs_once_and_for_all(tmp_path):
    thirty, ours = make_settings(tmp_path, budget="30m"), ["ResNet-20", "plain-20"]
    assert settings.epochs(thirty, ours, lambda: 100.0) == 18
    assert settings.epochs(thirty, ours, lambda: 1.0) == 18  # kept, whatever the speed is now
    assert settings.epochs(thirty, ours[::-1], None) == 18  # of another experiment with the same nets
    assert settings.epochs(thirty, ["ResNet-20"], lambda: 200.0) == 9
    with pytest.raises(ValueError, match="which take 60 minutes here"):
        settings.epochs(thirty, ["ResNet-56"], lambda: 900.0)
    assert settings.epochs(make_settings(tmp_path, budget="7"), ours, None) == 7
    assert settings.epochs(make_settings(tmp_path), ours, None) == settings.SMOKE_EPOCHS


@pytest.mark.unit
def test_a_run_is_known_by_what_decides_its_result(tmp_path):
    def folder(net="ResNet20", seed=0, epochs=3, **changes):
        return runs.plan(make_settings(tmp_path, **changes), nets.parse_net(net), seed, epochs).config.workdir

    assert folder() == folder("ResNet20:A") == folder(data_dir="elsewhere") == folder(seeds=["0", "1"])
    others = [folder("ResNet20:B"), folder("PlainNet20"), folder(seed=1), folder(epochs=4)]
    others += [folder(data="synthetic"), folder(data="tfds:cifar10")]  # of one protocol
    assert len({folder(), *others}) == 7
    # Runs of weeks ago are found again.
    cifar = folder("PlainNet20", epochs=16, data="tfds:cifar10")
    assert cifar.endswith("runs/PlainNet20-16epochs-seed0-eb5ec9d2")
    assert folder("ResNet20:C", epochs=30).endswith("runs/ResNet20-C-30epochs-seed0-77613b0a")


@pytest.mark.unit
@pytest.mark.parametrize(("name", "title"), [
    ("ResNet20", "ResNet-20"), ("PlainNet56", "plain-56"), ("ResNet20:B", "ResNet-20 (B)"),
    ("ResNet50V2", "ResNet-50V2"), ("ResNet50D", "ResNet-50D"),
    ("WideResNet50_2", "WideResNet-50_2"), ("ResNeXt50_32x4d", "ResNeXt-50_32x4d"),
])  # fmt: skip
def test_nets_are_called_as_in_the_papers(name, title):
    assert nets.parse_net(name).title == title


@pytest.mark.unit
def test_photographs_have_the_size_of_the_net(tmp_path, monkeypatch):
    folder = make_settings(tmp_path, data="folder:photographs")
    assert runs.plan(folder, nets.Net("ResNet20"), 0, 3).config.image_size == 32
    assert runs.plan(folder, nets.Net("ResNet18"), 0, 3).config.image_size == 224
    photographs = types.SimpleNamespace(encoded=True, image_shape=(224, 224, 3), name="tfds:imagenette")
    monkeypatch.setattr(runs.data, "load_for_run", lambda _: photographs)
    tfds = make_settings(tmp_path, data="tfds:imagenette")
    with pytest.raises(ValueError, match=r"Expected 32 for ResNet-20\. Pass them as folder:PATH"):
        runs.train_all(tfds, [nets.Net("ResNet18"), nets.Net("ResNet20")])
    assert not (tmp_path / "runs").exists()


@pytest.mark.unit
def test_a_warm_up_needs_epochs(tmp_path):
    with pytest.raises(
        ValueError, match=r"too small for ResNet-110.* at least 3 epochs\. Received: 2\. Pass a larger --b"
    ):
        runs.plan(make_settings(tmp_path), nets.Net("ResNet110"), 0, 2)
    runs.plan(make_settings(tmp_path), nets.Net("ResNet20"), 0, 2)


@pytest.mark.unit
def test_the_deepest_net_has_one_folder_for_its_data(tmp_path):
    def folder(**changes):
        _, one_step = depth.deepest(make_settings(tmp_path, budget="4", **changes))
        return os.path.relpath(one_step.workdir, tmp_path / "runs"), one_step.seed

    assert folder(data="tfds:cifar10") == folder(data="tfds:cifar10", seeds=["3"])
    assert folder(data="tfds:cifar10") == ("ResNet1202-one-step-tfds-cifar10", 0)
    assert folder(data="folder:/some/where")[0] == "ResNet1202-one-step-folder-some-where"


@pytest.mark.unit
@pytest.mark.parametrize(("data", "expected"), [
    ("digits", "depth_digits"), ("tfds:cifar10", "depth_cifar10"), ("folder:/some/where/", "depth_where"),
    ("tfds:cifar10:3.0.2", "depth_3.0.2"),
])  # fmt: skip
def test_files_are_named_after_the_data(data, expected, tmp_path):
    assert origin.stem("depth", make_settings(tmp_path, data=data), [None]) == expected
    assert origin.stem("table1", make_settings(tmp_path, data=data), []) == "table1"


@pytest.mark.unit
def test_a_child_is_measured_in_seconds_and_megabytes(tmp_path):
    """A process that keeps 300 MB."""
    one_step = config.make({"workdir": str(tmp_path)})
    found = depth._child(one_step, "step", [sys.executable, "-c", "kept = b'x' * 300_000_000; print(len(kept))"])
    assert 300e6 / 2**20 < found["step_peak_mb"] < 20_000  # no less than this process, from which it was started
    assert 0.05 < found["step_seconds"] < 60
    assert depth._child(one_step, "step", ["no such command"]) == found
    with pytest.raises(ValueError, match="deepest net's export failed with exit code 3"):
        depth._child(one_step, "export", [sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.unit
def test_checkpoints_within_an_epoch_are_no_moments(monkeypatch):
    paths = [f"epoch-{epoch:05d}-step-{step:07d}.npz" for epoch in range(10) for step in (0, 7)]
    monkeypatch.setattr(checkpoints, "load", lambda path, variables: {"epoch": paths.index(path) // 2})
    for kept, expected in ((paths, [0, 1, 3, 5, 7, 9]), (paths[:12], [0, 1, 2, 3, 4, 5]), ([], [])):
        monkeypatch.setattr(checkpoints, "paths", lambda config, kept=kept: kept)
        assert [*moments.visit(types.SimpleNamespace(config=None), [], 6)] == expected


@pytest.mark.unit
@pytest.mark.parametrize(("count", "limit"), [(9, 4), (10, 6), (10, 10), (10, 25), (10_000, 1000), (10, None)])
def test_a_limit_takes_images_from_all_parts(count, limit):
    from train import input_pipeline, sources

    images = np.arange(count, dtype="uint8").reshape(-1, 1, 1, 1)
    split = sources.from_arrays(images, np.arange(count), "")
    source = sources.Source("made up", (), (1, 1, 1), {"test": split}, (), None, encoded=False)
    _, labels, positions = input_pipeline.arrays(source, "test", limit)
    size = min(limit or count, count)
    assert labels.tolist() == positions.tolist() == sorted({*positions.tolist()})
    assert len(positions) == size
    assert positions[0] == 0
    assert positions[-1] >= count - count / size - 1
    assert max(np.diff(positions)) <= -(-count // size)


@pytest.mark.unit
def test_the_protocol_is_the_papers_and_deep_nets_warm_up(tmp_path):
    cifar = runs.plan(make_settings(tmp_path, data="tfds:cifar10"), nets.Net("ResNet56"), 0, 16).config
    assert (cifar.batch_size, cifar.learning_rate, cifar.momentum, cifar.weight_decay) == (128, 0.1, 0.9, 1e-4)
    assert (cifar.crop_padding, cifar.flip, cifar.schedule, cifar.nesterov) == (4, True, "steps", False)
    deep = runs.plan(make_settings(tmp_path), nets.Net("ResNet110"), 0, settings.SMOKE_EPOCHS).config
    assert (deep.recipe, deep.warmup_rate) == ("paper_cifar_deep", 0.01)
    assert deep.flip is False  # a mirrored digit is none


@pytest.mark.unit
def test_minutes_are_shared_by_multiply_adds(tmp_path, monkeypatch):
    monkeypatch.setitem(runs.benchmark.MEASURES, "compute", lambda *_: 1280.0)
    several = make_settings(tmp_path, seeds=["0", "1"])
    both = [nets.Net("ResNet20"), nets.Net("ResNet56")]
    flops = [keras_resnet.count_flops(net.build((8, 8, 1))) for net in both]
    assert runs._seconds_an_epoch(several, both) == pytest.approx(2 * (1 + flops[1] / flops[0]))  # 1,280 images


# What the trainer learnt for it.


@pytest.mark.unit
def test_a_run_from_before_a_field_was_there_goes_on(tmp_path):
    fields = json.loads(config.to_json(config.make({"workdir": str(tmp_path)})))
    del fields["shortcut"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert run_folder.look(config.make({"workdir": str(tmp_path)}), "auto") is False
    with pytest.raises(ValueError, match="shortcut: '' before, 'B' now"):
        run_folder.look(config.make({"workdir": str(tmp_path), "shortcut": "B"}), "auto")


@pytest.mark.unit
def test_signals_are_the_runs_only_while_it_trains():
    before = signal.getsignal(signal.SIGTERM)
    keeper = checkpoints.Keeper(config.make({}), None, [])
    with keeper.listening():
        assert signal.getsignal(signal.SIGTERM) == keeper._note
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.unit
@pytest.mark.parametrize("shortcut", ["scaled", "gated", "gated_shortcut", "dropout"])
def test_shortcuts_of_he_2016_compute_their_formula(shortcut):
    model = keras_resnet.ResNet20(weights=None, shortcut=shortcut, input_shape=(8, 8, 3))
    block = "stage1_block2"
    names = ["stage1_block1_out", f"{block}_bn2", f"{block}_add"]
    names += [f"{block}_shortcut_sigmoid"] if "gated" in shortcut else []
    inner = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")
    before, branch, total, *gates = (np.asarray(output) for output in inner(images, training=False))
    gate = gates[0] if gates else None
    if gates:
        assert 0 < gate.min() < np.median(gate) < 0.1  # nearly closed: bias -6
        assert model.get_layer(f"{block}_shortcut_gate").bias.numpy().tolist() == [-6.0] * 16
    expected = {
        "scaled": lambda: 0.5 * before + 0.5 * branch,
        "gated": lambda: (1 - gate) * before + gate * branch,
        "gated_shortcut": lambda: (1 - gate) * before + branch,
        "dropout": lambda: before + branch,
    }[shortcut]()
    assert np.allclose(total, expected, atol=1e-5)
    if shortcut == "dropout":
        assert model.get_layer(f"{block}_shortcut_dropout").rate == 0.5
