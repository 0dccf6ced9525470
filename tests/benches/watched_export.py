"""export/main.py with its memory looked at: `python -m benches.watched_export FLAG ...` in tests/.

Prints at the end, as JSON, what the process held after each format, in MiB, and its largest.
"""

import json
import os
import runpy

import train

train.import_tensorflow_quietly()

from benches.rounds import ROOT, resident_mb  # noqa: E402

from export import pipeline  # noqa: E402

held = []  # pairs of a format and the memory after it
produce = pipeline.produce


def produced(name, *arguments):
    """`pipeline.produce`, watched; a file that was not made took no memory that counts."""
    result = produce(name, *arguments)
    if result.path is None:
        raise RuntimeError(f"{name} was not made: {' '.join(result.failures)}")
    held.append((name, resident_mb()))
    return result


if __name__ == "__main__":
    pipeline.produce = produced
    try:
        runpy.run_path(os.path.join(ROOT, "export/main.py"), run_name="__main__")
    except SystemExit as end:
        if end.code not in (0, 1):  # 1: made, and refused, as files of random weights may be
            raise
    print(json.dumps({"held": held, "peak_mb": resident_mb("VmHWM")}))
