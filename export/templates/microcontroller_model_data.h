// @STEM@.tflite as an array, for tflite::GetModel(g_@SYMBOL@).
#ifndef @GUARD@_MODEL_DATA_H_
#define @GUARD@_MODEL_DATA_H_

extern const unsigned char g_@SYMBOL@[];
extern const unsigned int g_@SYMBOL@_size;

#endif
