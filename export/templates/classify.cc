// Classifies one image with @FILE@. Pixels come as raw bytes, row by row, @CHANNEL_WORDS@; an image of the net's
// size as it is, of another one the centre:
//   magick golden/0.png -depth 8 @MAGICK@:- | ./classify
//   magick photo.jpg -auto-orient -resize "@RESIZE@x@RESIZE@^" -gravity center -extent @WIDTH@x@HEIGHT@ -depth 8 @MAGICK@:- | ./classify
// Link with LiteRT's C++ library (libtensorflow-lite). Input: @PIXEL@ (1, @HEIGHT@, @WIDTH@, @CHANNELS@), pixels 0 to 255 as
// they are; output (1, @CLASSES@): @SCORE@.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include "tensorflow/lite/interpreter.h"
#include "tensorflow/lite/kernels/register.h"
#include "tensorflow/lite/model_builder.h"

// Probabilities by class of @HEIGHT@ x @WIDTH@ x @CHANNELS@ pixels, of golden/0.png "scores"[0] of bundle.json; empty where LiteRT refuses.
std::vector<float> Probabilities(tflite::Interpreter& interpreter, const std::vector<uint8_t>& pixels) {
  std::copy(pixels.begin(), pixels.end(), interpreter.typed_input_tensor<@PIXEL_CPP@>(0));
  if (interpreter.Invoke() != kTfLiteOk) return {};
  const @SCORE_CPP@* scores = interpreter.typed_output_tensor<@SCORE_CPP@>(0);
  std::vector<float> found(@CLASSES@);
  std::transform(scores, scores + @CLASSES@, found.begin(), [](@SCORE_CPP@ score) { return @VALUE_CPP@; });
  return found;
}

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
  const std::vector<float> found = Probabilities(*interpreter, pixels);
  if (found.empty()) return 2;
  const auto best = std::max_element(found.begin(), found.end());
  std::printf("line %td of labels.txt: %.2f %%\n", best - found.begin() + 1, 100 * *best);
}
