// Classifies one image with @FILE@. Pixels come as raw bytes, row by row, @CHANNEL_WORDS@:
//   magick golden/0.png -depth 8 @MAGICK@:- | ./classify
// Link with LiteRT's C++ library (libtensorflow-lite). Input: @PIXEL@ (1, @HEIGHT@, @WIDTH@, @CHANNELS@), pixels 0 to 255 as
// they are; output: float (1, @CLASSES@), probabilities.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include "tensorflow/lite/interpreter.h"
#include "tensorflow/lite/kernels/register.h"
#include "tensorflow/lite/model_builder.h"

int main() {
  std::vector<uint8_t> pixels(@HEIGHT@ * @WIDTH@ * @CHANNELS@);
  if (std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) {
    std::fprintf(stderr, "Expected %zu bytes of pixels.\n", pixels.size());
    return 2;
  }
  auto model = tflite::FlatBufferModel::BuildFromFile("@FILE@");
  if (!model) return 2;
  tflite::ops::builtin::BuiltinOpResolver operators;
  std::unique_ptr<tflite::Interpreter> interpreter;
  if (tflite::InterpreterBuilder(*model, operators)(&interpreter) != kTfLiteOk) return 2;
  if (interpreter->AllocateTensors() != kTfLiteOk) return 2;
  std::copy(pixels.begin(), pixels.end(), interpreter->typed_input_tensor<@PIXEL_CPP@>(0));
  if (interpreter->Invoke() != kTfLiteOk) return 2;
  const float* scores = interpreter->typed_output_tensor<float>(0);
  const auto best = std::max_element(scores, scores + @CLASSES@) - scores;
  std::printf("line %td of labels.txt: %.2f %%\n", best + 1, 100 * scores[best]);
}
