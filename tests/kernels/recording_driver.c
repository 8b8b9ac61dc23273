/* A libcuda.so.1 without a GPU: takes what Triton's own launcher hands to the driver, holds it to the limits that the CUDA
 * driver API documents for compute capability 9.0, and keeps it. Compiled and loaded by launches_recorded.py. */
#include "cuda.h"
#include <stdio.h>
#include <string.h>

#define LAUNCHES 1024
#define PARAMETERS 96
#define BYTES 128

typedef struct {
  char kernel[128];
  unsigned grid[3], threads, shared;
  int parameters;
  unsigned char values[PARAMETERS][BYTES];
} Launch;

static Launch launches[LAUNCHES];
static int launched, sizes[PARAMETERS], expected, descriptors;
static char complaint[256];
static char names[4096][128];
static int loaded;

/* For Python: what the next launch's parameters are, and what came. */
void recording_expect(int count, const int *bytes) {
  expected = count;
  memcpy(sizes, bytes, count * sizeof(int));
}
int recording_launched(void) { return launched; }
int recording_descriptors(void) { return descriptors; }
const char *recording_complaint(void) { return complaint; }
const Launch *recording_launch(int index) { return &launches[index]; }
void recording_reset(void) {
  launched = descriptors = 0;
  complaint[0] = 0;
  memset(launches, 0, sizeof launches);
}

static CUresult refuse(const char *what, unsigned long long value) {
  if (!complaint[0])
    snprintf(complaint, sizeof complaint, "%s: %llu", what, value);
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text) { *text = complaint; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = ordinal; return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) { *context = (CUcontext)1; return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *device) { *device = 0; return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { *context = (CUcontext)1; return CUDA_SUCCESS; }
CUresult cuCtxGetLimit(size_t *value, CUlimit limit) { *value = 0; return CUDA_SUCCESS; }
CUresult cuCtxSetLimit(CUlimit limit, size_t value) { return CUDA_SUCCESS; }
CUresult cuModuleLoadData(CUmodule *module, const void *image) { *module = (CUmodule)1; return CUDA_SUCCESS; }
CUresult cuModuleUnload(CUmodule module) { return CUDA_SUCCESS; }
CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_SUCCESS; }
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) { return CUDA_SUCCESS; }
CUresult cuOccupancyMaxActiveClusters(int *count, CUfunction function, const CUlaunchConfig *config) {
  *count = 1;
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  snprintf(names[loaded], sizeof names[0], "%s", name);
  *function = (CUfunction)names[loaded++];
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  switch (attribute) {
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = 227 * 1024; break;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = 228 * 1024; break;
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = 65536; break;
  case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
  case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
  default: *value = 1;
  }
  return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  *(CUdeviceptr *)data = pointer; /* the host's tensors stand for the device's */
  return CUDA_SUCCESS;
}

static unsigned element_bytes(CUtensorMapDataType type) {
  switch (type) {
  case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
  case CU_TENSOR_MAP_DATA_TYPE_UINT16:
  case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
  case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
  case CU_TENSOR_MAP_DATA_TYPE_INT64:
  case CU_TENSOR_MAP_DATA_TYPE_UINT64:
  case CU_TENSOR_MAP_DATA_TYPE_FLOAT64: return 8;
  default: return 4;
  }
}

/* The requirements are those of the CUDA driver API reference, "Tensor Map Object Management". */
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  unsigned long long row = (unsigned long long)box[0] * element_bytes(type);
  static const unsigned widest[] = {1u << 30, 32, 64, 128}; /* bytes of a box's row, by kind of swizzle */
  if ((size_t)map % 64) return refuse("tensor map not at a multiple of 64 bytes", (size_t)map);
  if (rank < 1 || rank > 5) return refuse("rank of a tensor map", rank);
  if ((size_t)address % 16) return refuse("address of a tensor map not at a multiple of 16 bytes", (size_t)address);
  for (unsigned i = 0; i < rank; i++) {
    if (sizes[i] < 1 || sizes[i] > (1ull << 32)) return refuse("size of a tensor map", sizes[i]);
    if (box[i] < 1 || box[i] > 256) return refuse("side of a box", box[i]);
    if (steps[i] != 1) return refuse("step of a box", steps[i]);
    if (i + 1 < rank && (strides[i] % 16 || strides[i] >= (1ull << 40))) return refuse("stride, bytes", strides[i]);
  }
  if (row % 16 || (swizzle < 4 && row > widest[swizzle])) return refuse("bytes in a row of a box", row);
  unsigned long long *words = memset(map, 0, sizeof *map);
  words[0] = rank | (unsigned long long)swizzle << 8 | (unsigned long long)type << 16;
  for (unsigned i = 0; i < rank; i++) {
    words[1 + i] = sizes[i];
    words[6 + i] = i + 1 < rank ? strides[i] : 0;
    ((unsigned *)(words + 11))[i] = box[i];
  }
  descriptors++;
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **values, void **extra) {
  if (config->gridDimX > 2147483647u) return refuse("grid x", config->gridDimX);
  if (config->gridDimY > 65535) return refuse("grid y", config->gridDimY);
  if (config->gridDimZ > 65535) return refuse("grid z", config->gridDimZ);
  if (config->blockDimX > 1024) return refuse("threads", config->blockDimX);
  if (config->sharedMemBytes > 227 * 1024) return refuse("shared memory", config->sharedMemBytes);
  if (launched == LAUNCHES || expected > PARAMETERS) return refuse("more than can be kept", launched);
  Launch *launch = &launches[launched++];
  snprintf(launch->kernel, sizeof launch->kernel, "%s", (const char *)function);
  launch->grid[0] = config->gridDimX;
  launch->grid[1] = config->gridDimY;
  launch->grid[2] = config->gridDimZ;
  launch->threads = config->blockDimX;
  launch->shared = config->sharedMemBytes;
  launch->parameters = expected;
  for (int i = 0; i < expected; i++)
    memcpy(launch->values[i], values[i], sizes[i]);
  return CUDA_SUCCESS;
}
