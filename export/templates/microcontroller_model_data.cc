#include "@STEM@_model_data.h"

alignas(@ALIGNMENT@) const unsigned char g_@SYMBOL@[] = {
@ARRAY@
};
const unsigned int g_@SYMBOL@_size = @SIZE@;
