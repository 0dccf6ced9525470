"""Every ResNet of He et al. 2015 and 2016 in Keras 3, on any backend."""

from keras_resnet import resnet
from keras_resnet.inspection import count_flops, feature_pyramid
from keras_resnet.resnet import build
from keras_resnet.variants import list_models

__version__ = "0.1.0"
__all__ = ["build", "count_flops", "feature_pyramid", "list_models"]
__all__ += list(resnet.BUILDERS)

globals().update(resnet.BUILDERS)  # ResNet50, PlainNet34, ...: one public builder a row of the table
