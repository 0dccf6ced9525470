"""The output folder: what kept its promise moves in as a whole, and what the new card does not tell of goes.

Nothing good is lost to a failure: where a format fails of which an earlier export has the file, or every format does,
all stays as it was.
"""

import json
import os

from export import microcontroller, pictures
from export.bundle import FOLDER
from export.formats import FORMATS
from train.run_folder import CONFIG

CARD = "card.json"


def lost(results, model_name, output_dir):
    """What failures would take of an earlier export in the output folder: list of the formats that it has files of.

    Those that failed now; where none was kept, any: nothing takes their place.
    """
    failed = [name for name, result in results.items() if result.failures]
    at_stake = FORMATS if len(failed) == len(results) else failed
    files = {name: os.path.join(output_dir, f"{model_name}{FORMATS[name].suffix}") for name in at_stake}
    return [name for name, file in files.items() if os.path.exists(file)]


def publish(folder, results, report, page, output_dir):
    """Moves what kept its promise into the output folder, and the card with it.

    Args:
        folder: the staging folder, on the same disk, with the bundle and the pictures.
        results: dict from format to `pipeline.Result`.
        report: the card as plain data.
        page: the card in Markdown.
        output_dir: the folder.
    Raises:
        ValueError: if a file cannot be moved; all is as it was.
    """
    texts = {CARD: json.dumps(report, indent=2) + "\n", "card.md": page}
    run = os.path.dirname(report["model"]["file"])
    config, is_here = os.path.join(run, CONFIG), os.path.realpath(run) == os.path.realpath(output_dir)
    # So that evaluate.py scores these files on the run's data, split as it was.
    if os.path.exists(config) and not is_here:
        with open(config, encoding="utf-8") as file:
            texts[CONFIG] = file.read()
    for name, text in texts.items():  # before the first move, which then takes no room on the disk
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
    replaced = os.path.join(folder, "replaced")  # goes with the staging folder
    os.mkdir(replaced)
    extras = (*texts, FOLDER, pictures.CARD, *map(pictures.SCAN.format, FORMATS))
    earlier = [*extras, *_files(report["model"]["name"])]
    if os.path.exists(os.path.join(output_dir, CARD)) and not is_here:
        earlier.append(CONFIG)  # of the run that the earlier export is of
    # The cards go first and come last: what a kill -9 leaves between is without one, not under another's.
    moves = [
        (os.path.join(output_dir, name), os.path.join(replaced, name))
        for name in dict.fromkeys(earlier)
        if os.path.lexists(os.path.join(output_dir, name))
    ]
    made = [path for result in results.values() if not result.failures for path in (result.path, *result.companions)]
    made += [os.path.join(folder, name) for name in reversed(extras) if os.path.exists(os.path.join(folder, name))]
    _move([*moves, *((path, os.path.join(output_dir, os.path.basename(path))) for path in made)])


def _files(model_name):
    """Names that the files of an export may have: list of str."""
    names = [f"{model_name}{row.suffix}" for row in FORMATS.values()]
    return names + [f"{os.path.splitext(name)[0]}{suffix}" for name in names for suffix in microcontroller.SUFFIXES]


def _move(pairs):
    """Renames files, all of them or none: pairs (from, to)."""
    done = []
    try:
        for source, target in pairs:
            os.replace(source, target)
            done.append((target, source))
    except OSError as error:
        for moved, back in reversed(done):
            os.replace(moved, back)
        raise ValueError(
            "The files cannot be moved into the output folder, which stays as it was. Expected names that are free, or "
            f"an earlier export's. Received: {source} to {target} ({error.strerror}). Choose another --output_dir."
        ) from error
