"""Every ResNet of He et al. 2015 and 2016, and their family, in Keras 3, on any backend."""

from keras_resnet import resnet
from keras_resnet.importers import export_weights
from keras_resnet.inspection import count_flops, feature_pyramid
from keras_resnet.picture import summary_picture
from keras_resnet.predictions import decode_predictions
from keras_resnet.resnet import build
from keras_resnet.variants import list_models
from keras_resnet.weights import WEIGHTS, list_weights, preprocessor

__version__ = "0.1.0"
__all__ = ["WEIGHTS", "build", "count_flops", "decode_predictions", "export_weights", "feature_pyramid"]
__all__ += ["list_models", "list_weights", "preprocessor", "summary_picture"]
__all__ += list(resnet.BUILDERS)

globals().update(resnet.BUILDERS)  # ResNet50, PlainNet34, ...: one public builder a row of the table
