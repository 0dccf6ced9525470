"""Rounds, ratios and limits: what every row of the bench is made of."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import numpy as np

ROUNDS = 7
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(TESTS)
DATA = os.environ.get("KERAS_RESNET_TEST_DATA", os.path.join(ROOT, "../shared/data"))
OVER = []  # a bool a row: whether its limit is exceeded


def timed(function):
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def judged(holds):
    """A verdict, counted for the exit code."""
    OVER.append(not holds)
    return "ok" if holds else "OVER"


def report(title, ours, theirs, limit=None):
    """Prints one row from the seconds of each round; without a limit nothing is judged."""
    ratios = np.array(ours) / np.array(theirs)
    verdict = f"limit {limit:.3g}  {judged(np.median(ratios) <= limit)}" if limit else "no limit"
    print(
        f"{title:<58} ours {np.median(ours) * 1000:8.4g} ms  theirs {np.median(theirs) * 1000:8.4g} ms  "
        f"ratio {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}), {verdict}, n={len(ratios)}",
        flush=True,
    )


def bounded(title, value, limit, unit):
    """Prints one figure and judges it."""
    print(f"{title}: {value:,.1f} {unit}, limit {limit:,} {unit}  {judged(value <= limit)}", flush=True)


def absent(*packages):
    """Names of the packages that are not installed: what needs them is left out, and says so."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        print(f"left out for lack of {', '.join(missing)}: pip install -e '.[bench]'", flush=True)
    return missing


def child(module, *arguments, **options):
    """A module of this folder, started in a process of its own with pipes to it."""
    command = [sys.executable, "-m", f"benches.{module}", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS, **options)


def answer(module, *arguments):
    """What such a process prints last, from JSON.

    Raises:
        RuntimeError: with its last words, if it fails.
    """
    process = child(module, *arguments, stderr=subprocess.PIPE)
    printed, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"benches.{module} ended with code {process.returncode}: {said.strip()[-1000:]}")
    return json.loads(printed.splitlines()[-1])


def spent(work):
    """Seconds and processor seconds of a call, and the largest memory of this process in MiB: dict."""
    start, processor = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
        "peak_mb": resident_mb("VmHWM"),
    }


def unpack_weights(folder):
    """Writes the trained nets of ../shared into a folder, as .safetensors files in torchvision's names."""
    tool = os.path.join(os.path.dirname(DATA), "tools/unpack_weights.py")
    subprocess.run([sys.executable, tool, folder], check=True, stdout=subprocess.DEVNULL)


def resident_mb(field="VmRSS"):
    """Resident memory of this process in MiB; the largest so far is "VmHWM"."""
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))
