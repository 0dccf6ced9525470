"""How far the tf_keras twins of nets are from the nets: `python tests/twins.py CASE...` prints JSON.

In a process of its own: tfmot sets TF_USE_LEGACY_KERAS where it is imported.
"""

import json
import sys

import golden

from export import twin


def deviation(case):
    model = golden.build(case)
    return twin.difference(twin.mirror(model), model)


if __name__ == "__main__":
    print(json.dumps({case: deviation(case) for case in sys.argv[1:]}))
