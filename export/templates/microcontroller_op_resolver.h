// The @COUNT@ operators of @STEM@.tflite.
#ifndef @GUARD@_OP_RESOLVER_H_
#define @GUARD@_OP_RESOLVER_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using @KIND@OpResolver = tflite::MicroMutableOpResolver<@COUNT@>;

inline TfLiteStatus AddOperators(@KIND@OpResolver& resolver) {
@CALLS@
  return kTfLiteOk;
}

#endif
