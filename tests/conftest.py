"""What several test files need: the real data, commands in processes of their own, a trained run."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import train

train.import_tensorflow_quietly()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent
DATA = pathlib.Path(os.environ.get("KERAS_RESNET_TEST_DATA", ROOT / "../shared/data")).resolve()
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed: pip install -e '.[test,torch]'")


@pytest.fixture
def shared_data():
    """Folder of real images and trained weights; absent outside the project's own machines."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; set KERAS_RESNET_TEST_DATA")
    return DATA


@pytest.fixture(autouse=True)
def _clean_keras():
    """Each test starts from the same seed, policy and data format."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")


def run(*arguments, code=0, **options):
    """Runs Python with these arguments from the repository's root and checks its exit code."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """Run folder of ResNet8, four epochs on the digits, two replicas, by the real command."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    done = run(
        "train/main.py",
        "--strategy=mirrored",
        "--model=ResNet8",
        "--epochs=4",
        "--warmup_epochs=1",
        f"--workdir={workdir}",
    )
    (workdir / "output.txt").write_text(done.stdout)
    (workdir / "errors.txt").write_text(done.stderr)
    return workdir


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Folder of the real nets as .safetensors files, in torchvision's names."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; set KERAS_RESNET_TEST_DATA")
    folder = tmp_path_factory.mktemp("weights")
    run(DATA.parent / "tools" / "unpack_weights.py", folder)
    return folder


@pytest.fixture
def photographs(tmp_path):
    """Two classes of three photographs a split: JPEG and PNG, grey and colour, wide and high."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number, shape in enumerate([(90, 120, 3), (120, 90, 1), (64, 64, 3)]):
                image = tf.constant(np.full(shape, 60 + 100 * label) + rng.integers(-9, 9, shape), tf.uint8)
                encoded = tf.io.encode_png(image) if number == 1 else tf.io.encode_jpeg(image)
                (folder / f"{number}.{'png' if number == 1 else 'JPEG'}").write_bytes(encoded.numpy())
            (folder / ".hidden").write_text("not an image")
    return tmp_path
