"""Packaging: the wheel holds keras_resnet alone.

`train` and `export` are too generic for site-packages; they run from the checkout, which
`pip install -e .` puts on the path (package_dir is written out because setuptools then links the
whole folder instead of one package).
"""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent

setuptools.setup(
    name="keras-resnet",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "keras_resnet/__init__.py").read_text())[1],
    description="ResNets in Keras 3, from the paper to a phone",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    packages=["keras_resnet"],
    package_dir={"": "."},
    python_requires=">=3.11",
    install_requires=["keras>=3.11", "numpy", "h5py"],
    extras_require={
        "weights": ["huggingface_hub", "pillow", "safetensors"],  # published weights, and photographs to classify
        # What the trainer and the exporter need besides; the tested versions are in requirements.lock.
        "train": [
            "absl-py",
            "ai-edge-litert",
            "flatbuffers",
            "importlib_resources",  # tensorflow-datasets 4.9.10 needs it and does not declare it
            "litert-quantizer",
            "matplotlib",
            "pillow",
            "scikit-learn",  # carries the digits
            "scipy",
            "tensorflow>=2.21",
            "tensorflow-datasets",
            "tensorflow-model-optimization",
            "tf_keras",  # that one needs it
            "tqdm",
        ],
        "test": ["jax", "pytest", "pytest-xdist", "ruff"],
        "torch": ["torch>=2.13"],
        "bench": ["onnx", "onnxruntime", "torch>=2.13"],  # rivals of make bench, which leaves out what is absent
    },
)
