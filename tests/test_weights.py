"""Weights of other people's nets: real trained files, every layout, damaged files, downloads."""

import hashlib
import http.server
import json
import pathlib
import re
import threading
import zipfile

import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT, needs_torch, run
from safetensors.numpy import load_file, save_file

import keras_resnet
from keras_resnet import weights as published
from keras_resnet.variants import VARIANTS
from keras_resnet.weights import WEIGHTS
from train import predictor, scoring


@pytest.fixture
def cifar10(shared_data):
    """The 5,000 test images and labels in the order of their names."""
    import tensorflow_datasets as tfds

    rows = tfds.builder("cifar10", data_dir=shared_data / "tfds").as_dataset("test").as_numpy_iterator()
    rows = sorted(rows, key=lambda row: row["id"])
    return np.stack([row["image"] for row in rows]), np.array([row["label"] for row in rows])


def photographs(shared_data):
    """Paths of the 100 photographs and their ImageNet classes."""
    order = (shared_data / "imagenet_synsets.txt").read_text().split()
    paths = sorted((shared_data / "imagenet_sample" / "validation").glob("*/*"))
    return paths, np.array([order.index(path.parent.name) for path in paths])


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "top1", "top5"), [(18, 78, 93), (50, 81, 92)])
def test_imagenet_nets_are_torchs(depth, top1, top5, shared_data, trained):
    file = trained / f"imagenet_resnet{depth}.safetensors"
    model = keras_resnet.build(f"ResNet{depth}", weights=file, classifier_activation=None)
    prepare = keras_resnet.preprocessor(model)
    with np.load(shared_data / "imagenet_reference_16.npz") as reference:
        logits = model.predict_on_batch(prepare.normalize(reference["crops"]))
        expected = reference[f"logits_resnet{depth}"]
    assert np.abs(logits - expected).max() < 2e-3
    assert np.array_equal(logits.argmax(1), expected.argmax(1))
    paths, labels = photographs(shared_data)
    logits = np.concatenate([model.predict_on_batch(prepare(paths[i : i + 25])) for i in range(0, 100, 25)])
    found = scoring.score(logits, labels)
    assert (round(100 * found.top1), round(100 * found.top5)) == (top1, top5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", pytest.param("th", marks=needs_torch)])
def test_cifar_resnet20_scores_what_is_published(kind, shared_data, trained, cifar10):
    folder = trained if kind == "safetensors" else shared_data / "weights"
    model = keras_resnet.ResNet20(weights=folder / f"cifar10_resnet20.{kind}", classifier_activation=None)
    images, labels = cifar10
    logits = predictor.from_keras(model).predict(keras_resnet.preprocessor(model).normalize(images))
    expected = np.load(shared_data / "cifar10_resnet20_test_logits.npy")
    assert np.abs(logits - expected).max() < 2e-3
    assert np.array_equal(logits.argmax(1), expected.argmax(1))
    assert scoring.score(logits, labels).top1 == 0.9150


@pytest.mark.slow
def test_mlperf_tiny_scores_what_is_published(shared_data, cifar10):
    file = shared_data / "weights" / "cifar10_resnet8_mlperf_tiny.h5"
    model = keras_resnet.ResNet8(weights=file, classifier_activation=None)
    images, labels = cifar10
    assert scoring.score(predictor.from_keras(model).predict(images.astype("float32")), labels).top1 == 0.8702


def randomize(model):
    """Statistics and biases that make every branch count."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape
            low, high = rng.uniform(0.5, 1, size), rng.uniform(0.5, 1.5, size)
            layer.set_weights([low, rng.normal(0, 0.1, size), rng.normal(0, 0.1, size), high])
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0, 0.05, layer.bias.shape))
    return model


@pytest.mark.contract
@pytest.mark.parametrize("extension", ["h5", "weights.h5"])
@pytest.mark.parametrize("name", ["ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"])
def test_keras_applications_nets_fit(name, extension, tmp_path):
    if extension == "weights.h5" and "152" in name:
        pytest.skip("the two kinds of file differ in their reader alone, which the smaller nets test")
    theirs = randomize(getattr(keras.applications, name)(weights=None, classifier_activation=None))
    file = tmp_path / f"theirs.{extension}"
    (theirs.save if extension == "h5" else theirs.save_weights)(file)
    ours = keras_resnet.build(name, weights=str(file), classifier_activation=None)
    image = np.random.default_rng(1).normal(size=(1, 224, 224, 3)).astype("float32")
    expected = theirs(image).numpy()
    assert np.abs(ours(image).numpy() - expected).max() < 1e-4 * np.abs(expected).max()


@needs_torch
@pytest.mark.contract
@pytest.mark.parametrize(
    "name", ["ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152", "ResNeXt50_32x4d", "WideResNet50_2"]
)
def test_torch_nets_fit_both_ways(name, tmp_path):
    state, scores, back = tmp_path / "state.safetensors", tmp_path / "scores.npy", tmp_path / "back.safetensors"
    run("tests/torch_resnet.py", name, state, scores)
    model = keras_resnet.build(name, weights=state, classifier_activation=None, input_shape=(64, 64, 3))
    image = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    expected = np.load(scores)
    assert np.abs(model(image).numpy() - expected).max() < 1e-4 * np.abs(expected).max()
    keras_resnet.export_weights(model, back)
    assert float(run("tests/torch_resnet.py", name, state, scores, back).stdout) == 0


def test_every_family_of_names_comes_back(tmp_path):
    """Deep stems, gates, CIFAR nets: written in torch's names and read again."""
    for name in ("ResNet50D", "SEResNet50", "ResNet20", "ResNet26"):
        size = min(64, VARIANTS[name].image_size)
        model = randomize(keras_resnet.build(name, weights=None, input_shape=(size, size, 3)))
        keras_resnet.export_weights(model, tmp_path / "w.safetensors")
        again = keras_resnet.build(name, weights=tmp_path / "w.safetensors", input_shape=(size, size, 3))
        for ours, theirs in zip(model.weights, again.weights, strict=True):
            assert np.array_equal(ours, theirs), ours.path
    assert set(load_file(tmp_path / "w.safetensors")) >= {"layer1.0.downsample.1.running_var", "fc.bias"}


def test_names_of_timm_are_kept(tmp_path):
    """As timm 1.0.31 names them (`python tests/peers.py` runs timm itself)."""
    keras_resnet.export_weights(keras_resnet.ResNet50D(weights=None), tmp_path / "d.safetensors")
    names = set(load_file(tmp_path / "d.safetensors"))
    assert {"conv1.0.weight", "conv1.1.running_mean", "conv1.3.weight", "conv1.4.bias", "conv1.6.weight"} <= names
    assert {"bn1.weight", "layer1.0.downsample.1.weight", "layer1.0.downsample.2.running_var"} <= names
    keras_resnet.export_weights(keras_resnet.SEResNet50(weights=None), tmp_path / "se.safetensors")
    assert {"layer4.2.se.fc1.weight", "layer4.2.se.fc2.bias"} <= set(load_file(tmp_path / "se.safetensors"))


@pytest.fixture
def torch_file(tmp_path):
    """A ResNet-18 of 10 classes in torchvision's names, with "module." before them as DataParallel has."""
    path = tmp_path / "module.safetensors"
    model = randomize(keras_resnet.ResNet18(weights=None, classes=10, input_shape=(32, 32, 3)))
    keras_resnet.export_weights(model, path)
    save_file({f"module.{name}": array for name, array in load_file(path).items()}, path)
    return model, path


def test_another_number_of_classes_makes_a_new_head(torch_file):
    model, path = torch_file
    with pytest.warns(UserWarning, match=r"The file has 10 classes and the model 7.*Pass classes=10"):
        other = keras_resnet.ResNet18(weights=path, classes=7, input_shape=(32, 32, 3))
    assert np.array_equal(other.get_layer("stage4_block2_bn2").gamma, model.get_layer("stage4_block2_bn2").gamma)
    assert np.std(other.get_layer("predictions").kernel) == pytest.approx((2 / 512) ** 0.5, rel=0.1)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_adapt_the_first_kernel(channels, torch_file):
    model, path = torch_file
    with pytest.warns(UserWarning, match=f"3 channels and the model's {channels}"):
        other = keras_resnet.ResNet18(weights=path, classes=10, input_shape=(32, 32, channels))
    grey = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")
    expected = model(np.repeat(grey, 3, axis=-1)).numpy()
    if channels == 1:  # a grey image seen in colour gives what it gave in three channels
        assert np.abs(other(grey).numpy() - expected).max() < 1e-5
    else:  # the fourth channel repeats the first, at the same total weight
        ours, theirs = (np.array(net.get_layer("stem_conv").kernel) for net in (other, model))
        assert np.allclose(ours, theirs[:, :, [0, 1, 2, 0]] * 0.75)


def test_without_top_the_head_stays_out(torch_file):
    model, path = torch_file
    pooled = keras_resnet.ResNet18(weights=path, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    image = np.ones((1, 32, 32, 3), "float32")
    head = model.get_layer("predictions")
    logits = pooled(image).numpy() @ np.array(head.kernel) + np.array(head.bias)
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert np.allclose(scores, model(image), atol=1e-5)


def test_a_frozen_backbone_keeps_its_statistics(torch_file):
    _, path = torch_file
    backbone = keras_resnet.ResNet18(weights=path, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    backbone.trainable = False
    model = keras.Sequential([backbone, keras.layers.Dense(3)])
    images = np.random.default_rng(0).normal(3, 2, size=(8, 32, 32, 3)).astype("float32")
    before, features = [np.array(value) for value in backbone.weights], backbone(images).numpy()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(images, np.arange(8) % 3)
    assert all(np.array_equal(ours, old) for ours, old in zip(backbone.weights, before, strict=True))
    assert np.array_equal(backbone(images, training=True).numpy(), features)


def test_dilated_nets_take_the_same_files(torch_file, tmp_path):
    model, path = torch_file
    own = tmp_path / "own.keras"
    model.save(own)
    for file in (path, own):
        dilated = keras_resnet.ResNet18(weights=file, include_top=False, input_shape=(64, 64, 3), output_stride=8)
        plain = keras_resnet.ResNet18(weights=file, include_top=False, input_shape=(64, 64, 3))
        image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
        expected = plain(image).numpy()
        assert np.abs(dilated(image).numpy()[:, ::4, ::4] - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_mismatch_lists_every_array(torch_file):
    _, path = torch_file
    arrays = load_file(path)
    del arrays["module.layer3.1.bn2.running_mean"]
    arrays["module.surplus"] = np.zeros(3, "float32")
    arrays["module.layer1.0.conv1.weight"] = np.zeros((64, 64, 1, 1), "float32")
    save_file(arrays, path)
    with pytest.raises(ValueError, match="3 arrays differ") as caught:
        keras_resnet.ResNet18(weights=path, classes=10, input_shape=(32, 32, 3))
    assert "layer3.1.bn2.running_mean: expected, not in the file" in str(caught.value)
    assert "surplus: received (3,), no such weight in the net" in str(caught.value)
    assert "layer1.0.conv1.weight: expected (3, 3, 64, 64)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("cut.safetensors", "cut", "truncated"),
        ("empty.safetensors", b"", "is empty"),
        ("text.safetensors", b"not a weights file\n" * 9, "starts like a text"),
        ("empty.h5", b"", "is empty"),
        ("text.h5", b"not a weights file\n" * 9, "starts like a text"),
        ("text.keras", b"not a weights file\n" * 9, "starts like a text"),
        ("noise.h5", bytes(range(256)) * 9, "truncated, damaged or of another kind"),
        ("other.bin", b"x", "unknown kind"),
    ],
)
def test_damaged_files_are_named(name, content, cause, torch_file, tmp_path):
    path = tmp_path / name
    path.write_bytes(torch_file[1].read_bytes()[:100_000] if content == "cut" else content)
    with pytest.raises(ValueError, match=cause) as caught:
        keras_resnet.ResNet18(weights=path, input_shape=(32, 32, 3))
    assert "\n" not in str(caught.value)


def test_files_of_other_nets_are_named(tmp_path):
    save_file({"encoder.weight": np.zeros(3, "float32")}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds no ResNet of a known layout.*encoder.weight"):
        keras_resnet.ResNet18(weights=tmp_path / "other.safetensors")


@needs_torch
def test_torch_files_that_carry_code_are_refused(tmp_path):
    script = (
        "import os, sys, torch\n"
        "class Evil:\n"
        "    def __reduce__(self): return os.system, (f'touch {sys.argv[1]}/ran',)\n"
        "torch.save({'conv1.weight': Evil()}, sys.argv[1] + '/evil.pth')"
    )
    run("-c", script, tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        keras_resnet.ResNet18(weights=tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_without_torch_the_message_says_how_to_convert(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "w.pth").write_bytes(b"x")
    with pytest.raises(ImportError, match=r"pip install torch. Or convert"):
        keras_resnet.ResNet18(weights=tmp_path / "w.pth")


def test_a_keras_file_with_a_lambda_gives_its_arrays_and_runs_nothing(tmp_path):
    model = keras_resnet.ResNet20(weights=None)
    model.save(tmp_path / "own.keras")
    with zipfile.ZipFile(tmp_path / "own.keras") as own, zipfile.ZipFile(tmp_path / "evil.keras", "w") as evil:
        evil.writestr("config.json", json.dumps({"class_name": "Lambda", "config": {"function": "x"}}))
        evil.writestr("model.weights.h5", own.read("model.weights.h5"))
    again = keras_resnet.ResNet20(weights=tmp_path / "evil.keras")
    assert np.array_equal(again.get_layer("stem_conv").kernel, model.get_layer("stem_conv").kernel)


def test_links_out_of_a_file_are_refused(tmp_path):
    keras_resnet.ResNet20(weights=None).save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "r+") as file:
        name = next(key for key in file["layers"] if len(file["layers"][key].get("vars", ())) > 0)
        with h5py.File(tmp_path / "secret.h5", "w") as secret:
            secret["data"] = file["layers"][name]["vars"]["0"][...]
        del file["layers"][name]["vars"]["0"]
        file["layers"][name]["vars"]["0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "data")
    with pytest.raises(ValueError, match=r"is a link, which may point to another file"):
        keras_resnet.ResNet20(weights=tmp_path / "w.weights.h5")


def test_a_link_in_place_of_all_layers_is_refused(tmp_path):
    keras_resnet.ResNet20(weights=None).save_weights(tmp_path / "secret.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file["layers"] = h5py.ExternalLink(str(tmp_path / "secret.weights.h5"), "layers")
    with pytest.raises(ValueError, match=r"is a link, which may point to another file"):
        keras_resnet.ResNet20(weights=tmp_path / "w.weights.h5")


def test_weights_that_are_not_finite_are_refused(torch_file):
    _, path = torch_file
    arrays = load_file(path)
    arrays["module.bn1.running_var"][3] = np.nan
    save_file(arrays, path)
    with pytest.raises(ValueError, match=r"not finite: bn1.running_var"):
        keras_resnet.ResNet18(weights=path, classes=10, input_shape=(32, 32, 3))


def test_strides_that_torch_has_not_are_not_written(tmp_path):
    for model, layer in (
        (keras_resnet.ResNet50(weights=None), "stage2_block1_conv1, 1x1"),
        (keras_resnet.ResNet8(), "stage2_block1_conv1, padded on one side"),
        (keras_resnet.ResNet50V2(weights=None), "torchvision's layout"),
    ):
        with pytest.raises(ValueError, match=layer):
            keras_resnet.export_weights(model, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"ends in .safetensors"):
        keras_resnet.export_weights(model, tmp_path / "w.pth")
    assert not [*tmp_path.iterdir()]


def test_a_stride_that_torchs_files_have_not_is_warned_of(tmp_path):
    keras_resnet.export_weights(keras_resnet.ResNet50(weights=None, stride_in="3x3"), tmp_path / "w.safetensors")
    with pytest.warns(UserWarning, match="are of nets with stride_in='3x3'"):
        keras_resnet.ResNet50(weights=tmp_path / "w.safetensors", stride_in="1x1")
    model = keras_resnet.ResNet50(weights=tmp_path / "w.safetensors")
    assert model.get_layer("stage2_block1_conv2").strides == (2, 2)


@pytest.mark.parametrize("weights", [5, ["a"], "a1_in1K", "no/such.h5"])
def test_what_is_no_weights_is_named(weights):
    with pytest.raises(ValueError, match=r"Expected None, a tag of ResNet18 \(tv_in1k, a1_in1k\), or the path"):
        keras_resnet.ResNet18(weights=weights)


def test_other_nets_of_keras_are_named(tmp_path):
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, name="conv2d")(image)
    keras.Model(image, x).save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ValueError, match="arrays differ"):
        keras_resnet.ResNet20(weights=tmp_path / "other.weights.h5")


def test_nets_have_the_size_that_their_weights_were_evaluated_at(tmp_path, monkeypatch):
    file = tmp_path / "w.safetensors"
    keras_resnet.export_weights(keras_resnet.ResNet101D(weights=None, input_shape=(64, 64, 3)), file)
    monkeypatch.setattr("keras_resnet.downloads.fetch", lambda row: str(file))
    model = keras_resnet.ResNet101D()
    assert model.input_shape == (None, 256, 256, 3)
    assert keras_resnet.preprocessor(model)(np.zeros((300, 300, 3), "uint8")).shape == (1, 256, 256, 3)


@pytest.mark.contract
@pytest.mark.parametrize("key", WEIGHTS)
def test_rows_are_complete(key):
    row = WEIGHTS[key]
    assert key == f"{row.variant}.{row.tag}"
    assert row.stride_in in VARIANTS[row.variant].strides_in
    assert re.fullmatch(r"([0-9a-f]{32}|[0-9a-f]{64})?", row.digest)
    assert row.digest or row.location.startswith("hub:timm/")
    assert row.url.startswith("https://")
    assert row.url.endswith((".h5", "model.safetensors"))
    assert 69 < row.top1 < row.top5 < 97
    assert row.preprocessing.resize >= row.preprocessing.crop
    assert keras_resnet.preprocessor(key).preprocessing is row.preprocessing


def test_rows_that_users_expect_are_there(capsys):
    for depth in (18, 34, 50, 101, 152):
        assert {f"ResNet{depth}.tv_in1k", f"ResNet{depth}.a1_in1k"} <= {*WEIGHTS}
    for depth in (50, 101, 152):
        rows = {f"ResNet{depth}.tv2_in1k", f"ResNet{depth}.keras_in1k", f"ResNet{depth}V2.keras_in1k"}
        assert rows <= {*WEIGHTS}
    best = {"ResNet18": "a1_in1k", "ResNet34": "a1_in1k", "ResNet50": "tv2_in1k", "ResNet152V2": "keras_in1k"}
    assert {name: published.best(name).tag for name in best} == best
    keras_resnet.list_weights("ResNet18")
    printed = capsys.readouterr().out
    assert "a1_in1k   *  71.49" in printed
    assert "ResNet50" not in printed


def test_the_readme_shows_the_table():
    readme = (ROOT / "README.md").read_text()
    for row in WEIGHTS.values():
        mark, steps = " *" if row is published.best(row.variant) else "", row.preprocessing
        assert (
            f"| {row.variant} | `{row.tag}`{mark} | {row.top1:.2f} | {row.top5:.2f} | {steps.resize}, {steps.crop} "
            f"{steps.interpolation} | {row.licence} |"
        ) in readme, row
    assert readme.count("_in1k` ") == len(WEIGHTS)


def test_a_tag_fixes_the_architecture():
    with pytest.raises(ValueError, match=r"trained with stride_in='1x1'. Received: stride_in='3x3'"):
        _with_file_by_hand("ResNet50", "keras_in1k", stride_in="3x3")
    with pytest.raises(ValueError, match=r"no weights 'tv2_in1k' of ResNet18. Expected one of tv_in1k, a1_in1k"):
        keras_resnet.ResNet18(weights="tv2_in1k")
    with pytest.raises(ValueError, match="no published ImageNet weights of PlainNet34"):
        keras_resnet.PlainNet34(weights="imagenet")


def _with_file_by_hand(name, tag, **arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_resnet.downloads.fetch", lambda row: str(ROOT / "README.md"))
        patch.setattr("keras_resnet.stored._READERS", {".md": lambda path, stack: None})
        return keras_resnet.build(name, weights=tag, **arguments)


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of huggingface.co and of a plain file server that downloads need."""

    files = {}  # noqa: RUF012
    requests = []  # noqa: RUF012

    def do_GET(self):
        self.requests.append(f"{self.command} {self.path}")
        content = self.files.get(self.path.partition("?")[0])
        if content is None:
            self.send_error(404)
            return
        digest = self.files.get("digest") or hashlib.sha256(content).hexdigest()
        start = int((self.headers.get("Range") or "bytes=0-").partition("=")[2].partition("-")[0])
        self.send_response(206 if start else 200)
        for name, value in {
            "ETag": f'"{digest}"',
            "X-Repo-Commit": "0" * 40,
            "Content-Length": len(content) - start,
            "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET" and self.files.pop("cut", None):
            self.wfile.write(content[: len(content) // 2])
            self.connection.close()
        elif self.command == "GET":
            self.requests.append(f"from {start}")
            self.wfile.write(content[start:])

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(tmp_path):
    """Address of a file server on loopback, and its files."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.files, Hub.requests = {}, []
    yield f"http://127.0.0.1:{server.server_port}", Hub.files
    server.shutdown()
    server.server_close()


def fetch(address, home, row, code=0):
    """Fetches a row in a new process whose hub is `address` and whose caches are in `home`."""
    script = (
        "import train; train.import_tensorflow_quietly()\n"
        "import dataclasses, sys\n"
        "from keras_resnet import downloads, weights\n"
        "row = weights.WEIGHTS[sys.argv[1]]\n"
        "row = row if 'hub:' in row.location else dataclasses.replace(row, location=sys.argv[2], digest=sys.argv[3])\n"
        "try: print(downloads.fetch(row))\n"
        "except ValueError as error: sys.exit(str(error))"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "HF_ENDPOINT": address,
        "HF_HOME": str(home / "hf"),
        "KERAS_HOME": str(home / "keras"),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
    }
    return run("-c", script, row[0], *row[1:], code=code, env=environment)


@pytest.mark.smoke
def test_hub_files_are_cached_and_their_hash_is_checked(hub, tmp_path):
    address, files = hub
    content = bytes(range(256)) * 1000
    files["/timm/resnet18.tv_in1k/resolve/main/model.safetensors"] = content
    path = pathlib.Path(fetch(address, tmp_path, ["ResNet18.tv_in1k"]).stdout.strip())
    assert path.read_bytes() == content
    assert pathlib.Path(fetch(address, tmp_path, ["ResNet18.tv_in1k"]).stdout.strip()) == path
    assert sum("GET" in line and "safetensors" in line for line in Hub.requests) == 1
    path.resolve().chmod(0o644)
    path.resolve().write_bytes(content[:-1] + b"x")
    failed = fetch(address, tmp_path, ["ResNet18.tv_in1k"], code=1)
    assert "has the wrong hash and is not used" in failed.stderr
    files["/timm/resnet50.a1_in1k/resolve/main/model.safetensors"] = content  # not the published file
    failed = fetch(address, tmp_path, ["ResNet50.a1_in1k"], code=1)
    assert "Expected: 773525d5821de224" in failed.stderr
    assert "Delete it and fetch" in failed.stderr


@pytest.mark.smoke
def test_a_download_goes_on_where_it_was_cut(hub, tmp_path):
    address, files = hub
    content = np.random.default_rng(0).bytes(40_000_000)  # hub clients keep chunks of 10 MB
    files["/timm/resnet34.tv_in1k/resolve/main/model.safetensors"] = content
    files["cut"] = b"once"
    path = fetch(address, tmp_path, ["ResNet34.tv_in1k"]).stdout.strip()
    assert pathlib.Path(path).read_bytes() == content
    assert [line for line in Hub.requests if line.startswith("from ") and line != "from 0"]


@pytest.mark.smoke
def test_url_files_are_cached_and_their_hash_is_checked(hub, tmp_path):
    address, files = hub
    files["/resnet50.h5"] = content = b"weights" * 1000
    row = ["ResNet50.keras_in1k", f"{address}/resnet50.h5", hashlib.md5(content).hexdigest()]
    path = fetch(address, tmp_path, row).stdout.strip().splitlines()[-1]
    assert pathlib.Path(path).read_bytes() == content
    failed = fetch(address, tmp_path, [*row[:2], "0" * 32], code=1)
    assert f"has the wrong hash and is not used: it is damaged or another file. Expected: {'0' * 32}" in failed.stderr


@pytest.mark.smoke
def test_without_a_network_the_message_says_what_to_do(tmp_path):
    for key in ("ResNet50.tv2_in1k", "ResNet50.keras_in1k"):
        row = WEIGHTS[key]
        failed = fetch("http://127.0.0.1:9", tmp_path, [key, "http://127.0.0.1:9/x.h5", row.digest], code=1)
        assert "cannot be downloaded" in failed.stderr
        by_hand = tmp_path / "keras" / "models" / "keras_resnet" / f"{key}{pathlib.Path(row.location).suffix}"
        assert f"put it here as {by_hand}" in failed.stderr
    by_hand.parent.mkdir(parents=True, exist_ok=True)
    by_hand.write_bytes(b"weights")
    digest = hashlib.md5(b"weights").hexdigest()
    assert fetch("http://127.0.0.1:9", tmp_path, [key, "http://x/x.h5", digest]).stdout.strip() == str(by_hand)
