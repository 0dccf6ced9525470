"""The zoo: exact counts, pinned logits, arguments, files."""

import inspect
import json
import os
import zipfile

import golden
import keras
import numpy as np
import pytest
from conftest import ROOT, run

import keras_resnet
from keras_resnet.variants import VARIANTS

# He et al. 2015, table 1 and section 4.2, and keras.applications: FACTS of the field, exact.
PARAMETERS = {
    ("ResNet18", "B"): 11_689_512,
    ("ResNet18", "A"): 11_515_688,
    ("ResNet34", "A"): 21_623_848,
    ("ResNet34", "B"): 21_797_672,
    ("ResNet34", "C"): 22_716_840,
    ("ResNet50", "B"): 25_557_032,
    ("ResNet101", "B"): 44_549_160,
    ("ResNet152", "B"): 60_192_808,
    # torchvision's documentation and timm's model cards.
    ("ResNeXt50_32x4d", "B"): 25_028_904,
    ("ResNeXt101_32x8d", "B"): 88_791_336,
    ("ResNeXt101_64x4d", "B"): 83_455_272,
    ("WideResNet50_2", "B"): 68_883_240,
    ("WideResNet101_2", "B"): 126_886_696,
    ("ResNet50D", "B"): 25_576_264,
    ("ResNet101D", "B"): 44_568_392,
    ("SEResNet50", "B"): 28_088_024,
    ("ResNet26", "B"): 15_995_176,
    ("ResNet200", "B"): 64_673_832,
    ("PlainNet18", None): 11_515_688,
    ("PlainNet34", None): 21_623_848,
    **{(f"{kind}{depth}", shortcut): count
       for kind, shortcut in (("ResNet", "A"), ("PlainNet", None))
       for depth, count in {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}.items()},
}  # fmt: skip
TOTAL_PARAMETERS = {"ResNet50V2": 25_613_800, "ResNet101V2": 44_675_560, "ResNet152V2": 60_380_648}
MULTIPLY_ADDS = {
    ("ResNet18", "shortcut", "A"): 1.795e9,
    ("ResNet18", "shortcut", "B"): 1.814e9,
    ("ResNet34", "shortcut", "A"): 3.644e9,
    ("ResNet34", "shortcut", "B"): 3.664e9,
    ("ResNet34", "shortcut", "C"): 3.831e9,
    ("ResNet50", "stride_in", "1x1"): 3.858e9,
    ("ResNet50", "stride_in", "3x3"): 4.089e9,
    ("ResNet101", "stride_in", "1x1"): 7.570e9,
    ("ResNet101", "stride_in", "3x3"): 7.801e9,
    ("ResNet152", "stride_in", "1x1"): 11.282e9,
    ("ResNet152", "stride_in", "3x3"): 11.514e9,
    ("ResNet20", "shortcut", "A"): 40.6e6,
    ("ResNet110", "shortcut", "A"): 252.9e6,
}


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.contract
@pytest.mark.parametrize(("name", "shortcut"), PARAMETERS)
def test_parameters_are_exactly_the_published_ones(name, shortcut):
    model = keras_resnet.build(name, weights=None, shortcut=shortcut)
    assert trainable(model) == PARAMETERS[name, shortcut]


@pytest.mark.contract
@pytest.mark.parametrize("name", TOTAL_PARAMETERS)
def test_v2_parameters_are_exactly_those_of_keras_applications(name):
    assert keras_resnet.build(name, weights=None).count_params() == TOTAL_PARAMETERS[name]


@pytest.mark.unit
def test_resnet8_parameters_are_mlperf_tinys_after_folding():
    # MLPerf Tiny counts 78,666: a bias in front of each BN (240), and biased projections without BN (96)
    # where ours have a BN (4 x 96).
    assert keras_resnet.ResNet8().count_params() == 78_666 - 240 - 96 + 4 * 96


@pytest.mark.contract
@pytest.mark.parametrize(("name", "argument", "value"), MULTIPLY_ADDS)
def test_multiply_adds_are_the_published_ones(name, argument, value):
    published = MULTIPLY_ADDS[name, argument, value]
    model = keras_resnet.build(name, weights=None, **{argument: value})
    unit = 1e6 if published > 1e9 else 1e5
    assert round(keras_resnet.count_flops(model) / unit) == round(published / unit)


@pytest.mark.slow
def test_resnet1202_builds_counts_and_saves(tmp_path):
    model = keras_resnet.ResNet1202()
    assert trainable(model) == 19_421_274
    assert round(keras_resnet.count_flops(model) / 1e7) == 283
    model.save_weights(tmp_path / "deep.weights.h5")
    again = keras_resnet.ResNet1202(weights=tmp_path / "deep.weights.h5")
    assert np.array_equal(again.weights[-2].numpy(), model.weights[-2].numpy())


@pytest.mark.contract
@pytest.mark.parametrize("case", golden.CASES)
def test_logits_are_the_pinned_ones(case):
    assert golden.deviation(case) < golden.TOLERANCE


@pytest.mark.contract
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_logits_are_the_pinned_ones_on_another_backend(backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed: pip install -e '.[test,torch]'")
    done = run("tests/golden.py", "check", env=os.environ | {"KERAS_BACKEND": backend})
    deviations = json.loads(done.stdout.splitlines()[-1])
    assert {*deviations} == {*golden.BACKEND_CASES}
    assert max(deviations.values()) < golden.TOLERANCE


SEEDED_FAULTS = {
    "epsilon": lambda layer: setattr(layer, "epsilon", 1e-3) if hasattr(layer, "epsilon") else None,
    "missing ReLU": lambda layer: setattr(layer, "call", lambda x: x) if layer.name == "stage1_block1_relu1" else None,
    "uneven padding": lambda layer: (
        setattr(layer, "padding", ((0, 1), (0, 1))) if layer.name == "stage2_block1_conv1_pad" else None
    ),
}


@pytest.mark.unit
@pytest.mark.parametrize("fault", SEEDED_FAULTS)
def test_pinned_logits_catch_a_seeded_fault(fault):
    model = golden.build("ResNet20")
    for layer in model.layers:
        SEEDED_FAULTS[fault](layer)
    assert golden.deviation("ResNet20", model) > 10 * golden.TOLERANCE


@pytest.mark.contract
@pytest.mark.parametrize("name", VARIANTS)
def test_builders_have_real_signatures_names_and_docstrings(name):
    builder = getattr(keras_resnet, name)
    parameters = inspect.signature(builder).parameters
    applications = inspect.signature(keras.applications.ResNet50).parameters
    assert [*parameters][: len(applications)] == [*applications]
    assert parameters["classes"].default == VARIANTS[name].classes
    assert builder.__name__ == name
    assert VARIANTS[name].source in builder.__doc__


@pytest.mark.unit
def test_list_models_takes_wildcards():
    assert keras_resnet.list_models("*v2") == ["ResNet50V2", "ResNet101V2", "ResNet152V2"]
    assert keras_resnet.list_models() == [*VARIANTS]
    assert keras_resnet.list_models("vgg*") == []


@pytest.mark.unit
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(("name", "size"), [("ResNet20", 4), ("ResNet18", 32)])
def test_any_number_of_channels_and_the_smallest_image(name, size, channels):
    model = keras_resnet.build(name, weights=None, input_shape=(size, size, channels), classes=7)
    scores = model(np.zeros((2, size, size, channels), "float32"))
    assert scores.shape == (2, 7)
    assert np.allclose(np.sum(scores, axis=1), 1)


@pytest.mark.unit
@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_without_a_top_any_image_size_passes(pooling):
    model = keras_resnet.ResNet18(include_top=False, weights=None, input_shape=(None, None, 3), pooling=pooling)
    features = model(np.ones((1, 64, 96, 3), "float32"))
    assert features.shape == ((1, 2, 3, 512) if pooling is None else (1, 512))


@pytest.mark.unit
def test_builds_on_an_input_tensor():
    image = keras.Input((40, 40, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    model = keras_resnet.ResNet20(input_tensor=x, dropout=0.5, name="mine")
    assert model.inputs[0] is image
    assert model.name == "mine"
    assert model.get_layer("dropout").rate == 0.5


@pytest.mark.unit
def test_stride_stands_where_it_is_asked_for():
    for stride_in, strides in (("1x1", [(2, 2), (1, 1)]), ("3x3", [(1, 1), (2, 2)])):
        model = keras_resnet.ResNet50(weights=None, stride_in=stride_in, input_shape=(32, 32, 3))
        assert [model.get_layer(f"stage2_block1_conv{conv}").strides for conv in (1, 2)] == strides


@pytest.mark.unit
def test_zero_init_residual_makes_every_block_an_identity_at_first():
    model = keras_resnet.ResNet20(zero_init_residual=True)
    last = [layer.gamma.numpy() for layer in model.layers if layer.name.endswith("_bn2")]
    assert len(last) == 9
    assert not any(map(np.any, last))
    assert np.all(model.get_layer("stage1_block1_bn1").gamma.numpy() == 1)


@pytest.mark.unit
def test_kernels_are_drawn_as_he_et_al_do_and_each_anew():
    model = keras_resnet.ResNet18(weights=None)
    first, second = (model.get_layer(f"stage4_block2_conv{conv}").kernel.numpy() for conv in (1, 2))
    assert abs(first.std() / np.sqrt(2 / (3 * 3 * 512)) - 1) < 0.01
    assert abs(np.abs(first / first.std()).max()) > 4  # not truncated
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.01
    keras.utils.set_random_seed(1)
    one = keras_resnet.ResNet20().get_weights()
    keras.utils.set_random_seed(1)
    assert all(map(np.array_equal, one, keras_resnet.ResNet20().get_weights()))


@pytest.mark.unit
def test_batch_norm_is_torchvisions():
    norms = [layer for layer in keras_resnet.ResNet20().layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}


@pytest.mark.unit
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_logits_come_out_in_float32_under_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = keras_resnet.ResNet20(classifier_activation=None)
    assert model.get_layer("stem_conv").compute_dtype == policy.removeprefix("mixed_")
    assert model(np.zeros((1, 32, 32, 3), "float32")).dtype == "float32"


@pytest.mark.unit
@pytest.mark.parametrize("name", ["ResNet20", "ResNet18", "ResNet50V2"])
def test_channels_first_has_the_same_weights_and_shapes(name):
    last = keras_resnet.build(name, weights=None, shortcut=VARIANTS[name].shortcuts[0], input_shape=(64, 64, 3))
    keras.config.set_image_data_format("channels_first")
    first = keras_resnet.build(name, weights=None, input_shape=(3, 64, 64))
    assert [weight.shape for weight in first.weights] == [weight.shape for weight in last.weights]
    assert keras_resnet.count_flops(first) == keras_resnet.count_flops(last)


@pytest.mark.unit
@pytest.mark.parametrize(("name", "last"), [("ResNet20", "bn2"), ("ResNet50", "bn3")])
def test_zeroed_gammas_make_every_block_its_shortcut(name, last):
    model = keras_resnet.build(name, weights=None, zero_init_residual=True, input_shape=(32, 32, 3))
    gammas = {layer.name: np.unique(layer.gamma) for layer in model.layers if hasattr(layer, "gamma")}
    assert {key for key, values in gammas.items() if values.tolist() == [0]} == {
        key for key in gammas if key.endswith(last) and "block" in key
    }


@pytest.mark.unit
def test_multiply_adds_do_not_depend_on_a_later_setting():
    model = keras_resnet.ResNet20()
    before = keras_resnet.count_flops(model)
    keras.config.set_image_data_format("channels_first")
    assert keras_resnet.count_flops(model) == before


@pytest.mark.contract
@pytest.mark.parametrize("name", ["ResNet50V2", "ResNet50D", "SEResNet50", "ResNeXt50_32x4d", "ResNet8", "PlainNet20"])
def test_every_weight_of_a_net_comes_back_from_its_file(name, tmp_path):
    model = keras_resnet.build(name, weights=None)
    golden.seed_weights(model)
    model.save_weights(tmp_path / "w.weights.h5")
    again = keras_resnet.build(name, weights=tmp_path / "w.weights.h5")
    assert all(map(np.array_equal, again.get_weights(), model.get_weights()))


@pytest.mark.contract
def test_channels_first_is_the_same_net():
    script = (
        "import golden, keras, numpy as np\n"
        "expected = [golden.logits(golden.build(case)) for case in ('ResNet20', 'ResNet18')]\n"
        "keras.config.set_image_data_format('channels_first')\n"
        "import keras_resnet\n"
        "for case, old in zip(('ResNet20', 'ResNet18'), expected):\n"
        "    size = 32 if case == 'ResNet20' else 64\n"
        "    net = keras_resnet.build(case, weights=None, input_shape=(3, size, size + 8), classes=10,\n"
        "                             classifier_activation=None)\n"
        "    golden.seed_weights(net)\n"
        "    images = np.random.default_rng(0).standard_normal((2, size, size + 8, 3)).astype('float32')\n"
        "    found = keras.ops.convert_to_numpy(net(images.transpose(0, 3, 1, 2), training=False))\n"
        "    print(np.abs(found - old).max() / np.abs(old).max())"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = run("-c", script, env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": path})
    assert max(map(float, done.stdout.split())) < golden.TOLERANCE


@pytest.mark.contract
@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "ResNet50V2", "PlainNet34"])
def test_feature_pyramid_has_strides_4_to_32(name):
    pyramid = keras_resnet.feature_pyramid(keras_resnet.build(name, weights=None, input_shape=(64, 96, 3)))
    maps = pyramid(np.ones((1, 64, 96, 3), "float32"))
    assert {level: tuple(x.shape[1:3]) for level, x in maps.items()} == {
        "C2": (16, 24), "C3": (8, 12), "C4": (4, 6), "C5": (2, 3)
    }  # fmt: skip
    assert all(np.min(x) >= 0 for x in maps.values())


@pytest.mark.contract
@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "ResNet50V2", "ResNeXt50_32x4d", "PlainNet34"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_nets_see_what_strided_ones_see_and_more(name, output_stride):
    """Every 32 / output_stride-th position of the denser map is the strided net's (arXiv 1606.00915, section 3.1)."""
    options = {"weights": None, "include_top": False, "input_shape": (64, 96, 3)}
    strided = keras_resnet.build(name, **options)
    dilated = keras_resnet.build(name, output_stride=output_stride, **options)
    golden.seed_weights(strided)
    dilated.set_weights(strided.get_weights())
    expected, dense = golden.logits(strided), golden.logits(dilated)
    step = 32 // output_stride
    assert dense.shape[1:3] == (64 // output_stride, 96 // output_stride)
    assert np.abs(dense[:, ::step, ::step] - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.smoke
def test_a_saved_model_loads_without_this_package(tmp_path):
    model = golden.build("ResNet20")
    model.save(tmp_path / "net.keras")
    images = np.random.default_rng(0).standard_normal((2, *model.input_shape[1:])).astype("float32")
    np.savez(tmp_path / "images.npz", images=images)
    script = (
        "import sys; sys.modules['keras_resnet'] = None; import keras, numpy as np\n"
        "model = keras.saving.load_model('net.keras'); images = np.load('images.npz')['images']\n"
        "np.save('logits.npy', keras.ops.convert_to_numpy(model(images, training=False)))\n"
    )
    (tmp_path / "load.py").write_text(script)
    run("-c", f"import os; os.chdir({str(tmp_path)!r}); exec(open('load.py').read())")
    assert np.array_equal(np.load(tmp_path / "logits.npy"), golden.logits(model))


@pytest.mark.unit
@pytest.mark.parametrize("file", ["net.keras", "net.weights.h5"])
def test_weights_load_exactly_and_leave_the_head_out_on_request(tmp_path, file):
    model = golden.build("ResNet20-B")
    (model.save if file.endswith(".keras") else model.save_weights)(tmp_path / file)
    arguments = {"shortcut": "B", "input_shape": (32, 40, 3), "weights": tmp_path / file}
    again = keras_resnet.ResNet20(**arguments)
    assert all(map(np.array_equal, again.get_weights(), model.get_weights()))
    assert again.get_layer("stem_conv").kernel_initializer.distribution == "untruncated_normal"
    headless = keras_resnet.ResNet20(include_top=False, **arguments)
    assert all(map(np.array_equal, headless.get_weights(), model.get_weights()))


@pytest.fixture
def stored(tmp_path):
    keras_resnet.ResNet20(input_shape=(32, 32, 3)).save(tmp_path / "net.keras")
    whole = (tmp_path / "net.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.weights.h5").write_text("not HDF5")
    (tmp_path / "empty.weights.h5").write_bytes(b"")
    (tmp_path / "net.onnx").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    return tmp_path


BAD_WEIGHTS = {
    "no such file": ("ResNet20", "absent.keras", {}, "do not exist"),
    "kind": ("ResNet20", "net.onnx", {}, "unknown kind"),
    "cut off": ("ResNet20", "cut.keras", {}, "damaged"),
    "text": ("ResNet20", "text.weights.h5", {}, "damaged"),
    "empty": ("ResNet20", "empty.weights.h5", {}, "is empty"),
    "no weights": ("ResNet20", "other.keras", {}, "damaged"),
    "depth": ("ResNet32", "net.keras", {}, "file lacks: stage1_block4_add"),
    "plain": ("PlainNet20", "net.keras", {}, "net lacks: stage1_block1_add"),
    "shortcut": ("ResNet20", "net.keras", {"shortcut": "B"}, "stage2_block1_shortcut_conv"),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_refused(stored, case):
    name, file, arguments, text = BAD_WEIGHTS[case]
    with pytest.raises(ValueError, match=text):
        keras_resnet.build(name, weights=str(stored / file), **arguments)


@pytest.mark.unit
def test_stride_in_of_the_weights_is_checked(tmp_path):
    keras_resnet.ResNet50(weights=None, input_shape=(32, 32, 3)).save_weights(tmp_path / "paper.weights.h5")
    with (
        pytest.raises(ValueError, match="file lacks: stage2_block1_conv2_pad"),
        pytest.warns(UserWarning, match="are of nets with stride_in='1x1'"),
    ):
        keras_resnet.ResNet50(weights=tmp_path / "paper.weights.h5", stride_in="3x3")


BAD_ARGUMENTS = {
    "unknown": (lambda: keras_resnet.build("ResNet51"), "Nearest: ResNet56, ResNet50"),
    "shortcut": (lambda: keras_resnet.ResNet18(shortcut="D"), "one of 'B', 'A', 'C', None. Received: shortcut='D'"),
    "gate": (lambda: keras_resnet.ResNet18(shortcut="gated"), "one of 'B', 'A', 'C', None. Received: shortcut='gated'"),
    "plain shortcut": (lambda: keras_resnet.PlainNet20(shortcut="A"), "must be one of None"),
    "stride_in": (lambda: keras_resnet.ResNet50(weights=None, stride_in="5x5"), "'1x1', '3x3'"),
    "no stride_in": (lambda: keras_resnet.ResNet18(weights=None, stride_in="3x3"), "must be one of None"),
    "small": (lambda: keras_resnet.ResNet50(weights=None, input_shape=(31, 64, 3)), "at least 32 pixels"),
    "rank": (lambda: keras_resnet.ResNet20(input_shape=(32, 32)), r"must be \(height, width, channels\)"),
    "channels": (lambda: keras_resnet.ResNet20(input_shape=(32, 32, None)), "number of channels known"),
    "tensor": (lambda: keras_resnet.ResNet20(input_tensor=np.zeros((1, 32, 32, 3))), "Received: ndarray"),
    "pooling": (lambda: keras_resnet.ResNet20(pooling="sum"), "pooling must be one of"),
    "classes": (lambda: keras_resnet.ResNet20(classes=0), "Received: classes=0"),
    "dropout type": (lambda: keras_resnet.ResNet20(dropout="x"), "Received: 'x'"),
    "shape type": (lambda: keras_resnet.ResNet20(input_shape=32), "a tuple of height, width and channels"),
    "zero gammas of a plain net": (lambda: keras_resnet.PlainNet20(zero_init_residual=True), "residual branches"),
    "zero gammas of V2": (lambda: keras_resnet.ResNet50V2(weights=None, zero_init_residual=True), "Leave it out"),
    "dropout": (lambda: keras_resnet.ResNet20(dropout=1.0), "Received: 1.0"),
    "imagenet": (lambda: keras_resnet.ResNet200(weights="imagenet"), "no published ImageNet weights of ResNet200"),
    "output_stride": (lambda: keras_resnet.ResNet50(weights=None, output_stride=4), "must be one of 32, 16, 8"),
    "cifar output_stride": (lambda: keras_resnet.ResNet20(output_stride=2), "must be one of 4"),
    "preprocessing": (
        lambda: keras_resnet.ResNet20(input_shape=(32, 32, 5), include_preprocessing=True),
        "1 or 3 channels. Received: 5",
    ),
    "flops": (
        lambda: keras_resnet.count_flops(keras_resnet.ResNet20(input_shape=(None, None, 3))),
        "known height and width",
    ),
    "pyramid": (lambda: keras_resnet.feature_pyramid(keras_resnet.ResNet20()), "four stages"),
}  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_say_what_was_expected(case):
    call, text = BAD_ARGUMENTS[case]
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.unit
def test_importing_the_package_imports_nothing_heavy_besides_keras():
    script = (
        "import sys, keras; before = {*sys.modules}; import keras_resnet\n"
        "print(sorted({name.partition('.')[0] for name in {*sys.modules} - before} - sys.stdlib_module_names))"
    )
    done = run("-c", script, env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)})
    assert done.stdout.strip().splitlines()[-1] == "['keras_resnet']"


@pytest.mark.unit
def test_stochastic_depth_rises_with_depth_and_drops_whole_images():
    model = keras_resnet.ResNet20(weights=None, stochastic_depth=0.9)
    drops = [layer for layer in model.layers if layer.name.endswith("_drop")]
    assert np.allclose([layer.rate for layer in drops], np.linspace(0.1, 0.9, 9))
    branch = keras.ops.ones((200, 2, 2, 3))
    kept = np.asarray(drops[-1](branch, training=True)).reshape(200, -1)
    assert {*kept.ravel().round(4)} == {0.0, 10.0}
    assert np.all(kept == kept[:, :1])  # an image is dropped whole
    assert np.array_equal(drops[-1](branch, training=False), branch)
    plain = keras_resnet.ResNet20(weights=None)
    assert not [layer for layer in plain.layers if layer.name.endswith("_drop")]
    assert [w.path for w in plain.weights] == [w.path for w in model.weights]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "rate", "text"), [("PlainNet20", 0.1, "needs shortcuts"), ("ResNet20", 1.0, "must be a rate from 0")]
)
def test_stochastic_depth_that_cannot_be_is_refused(name, rate, text):
    with pytest.raises(ValueError, match=text):
        keras_resnet.build(name, weights=None, stochastic_depth=rate)
