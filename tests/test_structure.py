"""The house rules: who imports whom, and that the papers in the house are in order."""

import ast
import re

import pytest
from conftest import ROOT

from export.formats import FORMATS

pytestmark = pytest.mark.contract

ALLOWED = {
    "keras_resnet": {"keras", "keras_resnet", "numpy", "h5py", "huggingface_hub", "safetensors", "torch", "PIL"},
    "train": {"train", "keras", "keras_resnet", "numpy", "tensorflow", "tensorflow_datasets", "absl", "tqdm",
              "matplotlib", "sklearn", "scipy", "ai_edge_litert", "PIL"},
    "export": {"export", "train", "keras", "keras_resnet", "numpy", "tensorflow", "absl", "ai_edge_litert",
               "flatbuffers", "litert_quantizer", "matplotlib", "tensorflow_model_optimization", "tf_keras"},
}  # fmt: skip
# What the exporter may take from the trainer: data with its augmentation, fine-tuning, and the code that runs and
# scores files (BUILD_NOTES.md).
FROM_TRAIN = {
    "train",
    "config",
    "data",
    "decoding",
    "distillation",
    "input_pipeline",
    "network",
    "predictor",
    "scoring",
    "sources",
    "run_folder.written_aside",
    "run_folder.CONFIG",
}


def imports(path):
    """(module, name or None) of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def files(package):
    return sorted([*(ROOT / package).glob("*.py"), *(ROOT / package / "experiments").glob("*.py")])


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_they_may(package):
    import sys

    for path in files(package):
        for module, name in imports(path):
            top = module.partition(".")[0]
            assert top in ALLOWED[package] | sys.stdlib_module_names, f"{path.name} imports {module}"
            assert "main" not in (module.rpartition(".")[2], name), f"{path.name} imports a main"
            if package == "export" and top == "train":
                taken = ".".join(filter(None, (module.partition(".")[2], name))) or "train"
                assert taken in FROM_TRAIN, f"{path.name} imports {module}.{name}"


def test_the_converter_is_called_in_one_file():
    users = [path.name for package in ALLOWED for path in files(package) if "lite.TFLiteConverter" in path.read_text()]
    assert users == ["convert.py"]


@pytest.mark.parametrize("package", ["tensorflow_model_optimization", "tf_keras"])
def test_the_legacy_packages_are_imported_in_one_file(package):
    users = [
        path.name
        for folder in ALLOWED
        for path in files(folder)
        if package in {module.partition(".")[0] for module, _ in imports(path)}
    ]
    assert users == ["twin.py"]


def test_nothing_imports_the_twin():
    """It runs as a script: the packages that it brings stay out of the exporter's process."""
    for folder in ALLOWED:
        for path in files(folder):
            assert ("export", "twin") not in imports(path)
            assert ("export.twin", None) not in imports(path)


def test_the_lock_pins_everything_that_setup_asks_for():
    def names(text):
        return {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.M)}

    pinned = names((ROOT / "requirements.lock").read_text())
    asked = re.findall(
        r'"([A-Za-z][\w-]*)(?:>=[\d.]+)?"', (ROOT / "setup.py").read_text().partition("install_requires")[2]
    )
    asked = {re.sub(r"[-_.]+", "-", name).lower() for name in asked} - {"train", "test", "torch", "weights"}
    asked -= {"bench", "onnx", "onnxruntime"}  # rivals that no test runs
    assert len(asked) > 12
    assert asked <= pinned


def test_the_readme_names_its_commands_and_its_files_exist():
    readme = (ROOT / "README.md").read_text()
    for command in (
        "make demo",
        "make test",
        "python train/main.py",
        "python train/evaluate.py",
        "python train/lab.py",
        "python export/main.py",
    ):
        assert command in readme
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_the_readme_has_the_promises_of_every_format():
    readme = (ROOT / "README.md").read_text()
    for name, row in FORMATS.items():
        size = "" if row.max_size is None else f"{row.max_size:g}"
        assert f"| `{name}` | {size} | {row.min_agreement:.1%} | {row.suits} |" in readme, name
