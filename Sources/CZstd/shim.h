// libzstd, including the frame-inspection calls its header keeps behind this macro (stable since 1.3).
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>
