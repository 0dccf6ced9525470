"""Figures of the papers that the lab puts beside ours: plain data, each with its source."""

# He 2015 (arXiv 1512.03385), table 6: test error on CIFAR-10, per cent; of ResNet-110 the best of five.
CIFAR10_ERROR = {
    "ResNet-20": 8.75, "ResNet-32": 7.51, "ResNet-44": 7.17, "ResNet-56": 6.97, "ResNet-110": 6.43, "ResNet-1202": 7.93,
    "plain-110": "above 60 (section 4.2)",
}  # fmt: skip
