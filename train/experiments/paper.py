"""Figures of the papers that the lab puts beside ours: plain data, each with its source."""

# He 2015 (arXiv 1512.03385), table 1: multiply-adds in 1e9 of one crop of 224 x 224; plain-34: figure 3.
MULTIPLY_ADDS = {
    "ResNet-18": 1.8, "ResNet-34": 3.6, "ResNet-50": 3.8, "ResNet-101": 7.6, "ResNet-152": 11.3, "plain-34": 3.6,
}  # fmt: skip

# Table 6: parameters in 1e6, and test error on CIFAR-10, per cent; of ResNet-110 the best of five (6.61 +- 0.16).
CIFAR10_PARAMETERS = {
    "ResNet-20": 0.27, "ResNet-32": 0.46, "ResNet-44": 0.66, "ResNet-56": 0.85, "ResNet-110": 1.7, "ResNet-1202": 19.4,
}  # fmt: skip
CIFAR10_ERROR = {
    "ResNet-20": 8.75, "ResNet-32": 7.51, "ResNet-44": 7.17, "ResNet-56": 6.97, "ResNet-110": 6.43, "ResNet-1202": 7.93,
}  # fmt: skip

STEPS, EPOCHS = 64_000, 182  # of training on CIFAR-10, section 4.2: batches of 128 of 45,000 images
CIFAR10_SPREAD = "6.61 ± 0.16 %"  # table 6: mean and standard deviation of five runs of ResNet-110

# Table 2 and 3: ImageNet top-1 error, ten crops, per cent.
TEN_CROP_ERROR = {
    "plain-18": 27.94, "plain-34": 28.54, "ResNet-18": 27.88, "ResNet-34 A": 25.03, "ResNet-34 B": 24.52,
    "ResNet-34 C": 24.19, "ResNet-50": 22.85, "ResNet-101": 21.75, "ResNet-152": 21.43,
}  # fmt: skip
# Table 4: the same at the scales 224, 256, 384, 480 and 640, fully convolutional.
MULTI_SCALE_ERROR = {
    "ResNet-34 B": 21.84, "ResNet-34 C": 21.53, "ResNet-50": 20.74, "ResNet-101": 19.87, "ResNet-152": 19.38,
}  # fmt: skip
# One crop, of the nets that the authors released: github.com/KaimingHe/deep-residual-networks, README.
ONE_CROP_ERROR = {"ResNet-50": 24.7, "ResNet-101": 23.6, "ResNet-152": 23.0}

# He 2016 (arXiv 1603.05027), table 1: ResNet-110 on CIFAR-10, test error in per cent, by `Net.option`. "fails" is the
# paper's word for above 20 %. The gates' biases started at -6.
SHORTCUT_ERROR = {
    "A": 6.61, "scaled": 12.35, "gated": 8.70, "gated_shortcut": 6.91, "C": 12.22, "dropout": "fails",
}  # fmt: skip
