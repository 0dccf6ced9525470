"""The experiments of the paper lab: what `train/lab.py` has in its table. Nets are trained by `train.trainer` alone."""
