// zlib, for gzip-compressed heap dumps.
#include <zlib.h>
