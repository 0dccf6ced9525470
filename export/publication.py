"""The output folder: what kept its promise moves in as a whole, and what the new card does not tell of goes."""

import json
import os
import tempfile

from export import microcontroller, pictures
from export.bundle import FOLDER
from export.formats import FORMATS
from train.run_folder import CONFIG, written_aside


def publish(folder, results, report, page, output_dir):
    """Moves what kept its promise into the output folder, and writes the card beside it.

    Args:
        folder: the staging folder, on the same disk, with the bundle and the pictures.
        results: dict from format to `pipeline.Result`.
        report: the card as plain data.
        page: the card in Markdown.
        output_dir: the folder, made if need be.
    """
    os.makedirs(output_dir, exist_ok=True)
    extras = (FOLDER, pictures.CARD, *map(pictures.SCAN.format, FORMATS))
    with tempfile.TemporaryDirectory(prefix=".replaced-", dir=output_dir) as replaced:
        earlier = [f"{report['model']['name']}{row.suffix}" for row in FORMATS.values()]
        earlier += [f"{os.path.splitext(name)[0]}{suffix}" for name in earlier for suffix in microcontroller.SUFFIXES]
        for name in (*earlier, *extras):  # of which the new card does not tell
            if os.path.exists(os.path.join(output_dir, name)):
                os.replace(os.path.join(output_dir, name), os.path.join(replaced, name))
        for result in results.values():
            for path in () if result.failures else (result.path, *result.companions):
                os.replace(path, os.path.join(output_dir, os.path.basename(path)))
        for name in extras:
            if os.path.exists(os.path.join(folder, name)):
                os.replace(os.path.join(folder, name), os.path.join(output_dir, name))
    texts = {"card.json": json.dumps(report, indent=2) + "\n", "card.md": page}
    config = os.path.join(os.path.dirname(report["model"]["file"]), CONFIG)
    if os.path.exists(config):  # so that evaluate.py scores these files on the run's data, split as it was
        with open(config, encoding="utf-8") as file:
            texts[CONFIG] = file.read()
    for name, text in texts.items():
        with (
            written_aside(os.path.join(output_dir, name)) as aside,
            open(aside, "w", encoding="utf-8") as file,
        ):
            file.write(text)
