"""The output folder: what kept its promise moves in as a whole, and what the new card does not tell of goes.

Nothing good is lost to a failure: where a format fails of which an earlier export has the file, all stays as it was.
"""

import json
import os

from export import microcontroller, pictures
from export.bundle import FOLDER
from export.formats import FORMATS
from train.run_folder import CONFIG


def lost(results, model_name, output_dir):
    """The formats that failed now and of which an earlier export in the output folder has the file: list of str."""
    files = {name: os.path.join(output_dir, f"{model_name}{FORMATS[name].suffix}") for name in results}
    return [name for name, result in results.items() if result.failures and os.path.exists(files[name])]


def publish(folder, results, report, page, output_dir):
    """Moves what kept its promise into the output folder, and writes the card beside it.

    Args:
        folder: the staging folder, on the same disk, with the bundle and the pictures.
        results: dict from format to `pipeline.Result`.
        report: the card as plain data.
        page: the card in Markdown.
        output_dir: the folder.
    """
    texts = {"card.md": page, "card.json": json.dumps(report, indent=2) + "\n"}
    config = os.path.join(os.path.dirname(report["model"]["file"]), CONFIG)
    if os.path.exists(config):  # so that evaluate.py scores these files on the run's data, split as it was
        with open(config, encoding="utf-8") as file:
            texts[CONFIG] = file.read()
    for name, text in texts.items():  # before the first move, which then takes no room on the disk
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
    extras = (FOLDER, pictures.CARD, *map(pictures.SCAN.format, FORMATS))
    earlier = [f"{report['model']['name']}{row.suffix}" for row in FORMATS.values()]
    earlier += [f"{os.path.splitext(name)[0]}{suffix}" for name in earlier for suffix in microcontroller.SUFFIXES]
    replaced = os.path.join(folder, "replaced")  # goes with the staging folder
    os.mkdir(replaced)
    for name in (*earlier, *extras):  # of which the new card does not tell
        if os.path.exists(os.path.join(output_dir, name)):
            os.replace(os.path.join(output_dir, name), os.path.join(replaced, name))
    for result in results.values():
        for path in () if result.failures else (result.path, *result.companions):
            os.replace(path, os.path.join(output_dir, os.path.basename(path)))
    for name in (*extras, *texts):
        if os.path.exists(os.path.join(folder, name)):
            os.replace(os.path.join(folder, name), os.path.join(output_dir, name))
