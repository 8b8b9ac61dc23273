/* The CUDA driver's interface without a GPU: what Triton's own launcher hands over is held to the limits that the CUDA
 * driver API documents and given to the simulator. Compiled and connected by library.py. */
#include "cuda.h"
#include <stdio.h>
#include <string.h>

/* The simulator's side. Each returns 0, or 1 where it has an error to raise. */
typedef struct {
  int (*load)(const char *image, unsigned long long *handle);
  int (*launch)(unsigned long long handle, const unsigned *grid, unsigned threads, unsigned shared, void **values);
  int (*attribute)(int device, int attribute);
} Simulator;

static Simulator simulator;
static char complaint[256];

void simulator_connect(const Simulator *given) { simulator = *given; }

static CUresult refuse(const char *what, long long value) {
  snprintf(complaint, sizeof complaint, "%s: %lld", what, value);
  return CUDA_ERROR_INVALID_VALUE;
}

static CUresult failed(void) {
  snprintf(complaint, sizeof complaint, "the simulated kernel failed");
  return CUDA_ERROR_LAUNCH_FAILED;
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
CUresult cuModuleUnload(CUmodule module) { return CUDA_SUCCESS; }
CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_SUCCESS; }
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
  *status = CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute *attributes, void **data, CUdeviceptr pointer) {
  for (unsigned i = 0; i < count; i++)
    if (attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_POINTER) *(CUdeviceptr *)data[i] = pointer;
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveClusters(int *count, CUfunction function, const CUlaunchConfig *config) {
  *count = 1;
  return CUDA_SUCCESS;
}

/* A module is one kernel, and its function has the module's handle. */
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  unsigned long long handle = 0;
  if (simulator.load(image, &handle)) return failed();
  *module = (CUmodule)handle;
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  *function = (CUfunction)module;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  *value = simulator.attribute(device, attribute);
  return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  *(CUdeviceptr *)data = pointer; /* the host's tensors are the device's */
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

/* The requirements are those of the CUDA driver API reference, "Tensor Map Object Management"; 0 where those that the
 * two kinds of map share are met. `row`: bytes of a box's innermost row. */
static CUresult refuse_map(const CUtensorMap *map, cuuint32_t rank, const void *address, const cuuint64_t *sizes,
                           const cuuint64_t *strides, unsigned long long row, CUtensorMapInterleave interleave,
                           CUtensorMapSwizzle swizzle) {
  static const unsigned widest[] = {1u << 30, 32, 64, 128}; /* bytes of a box's row, by kind of swizzle */
  if ((size_t)map % 64) return refuse("tensor map not at a multiple of 64 bytes", (size_t)map);
  if ((size_t)address % 16) return refuse("address of a tensor map not at a multiple of 16 bytes", (size_t)address);
  if (interleave) return refuse("interleaved tensor map, which is not simulated", interleave);
  for (unsigned i = 0; i < rank; i++) {
    if (sizes[i] < 1 || sizes[i] > (1ull << 32)) return refuse("size of a tensor map", sizes[i]);
    if (i + 1 < rank && (strides[i] % 16 || strides[i] >= (1ull << 40))) return refuse("stride, bytes", strides[i]);
  }
  if (swizzle > 3) return refuse("kind of swizzle", swizzle);
  if (!row || row % 16 || row > widest[swizzle]) return refuse("bytes in a row of a box", row);
  return CUDA_SUCCESS;
}

/* What is put into a map is read by library.py: word 0 has rank, swizzle, bytes of an element, fill, and 1 for im2col;
 * 2 to 6 the sizes, 7 to 10 the strides in bytes, 11 to 13 what a box is, 14 the address. Word 1 stays free: Triton
 * clears a bit of it that older drivers set wrongly. */
static unsigned long long *fill_map(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                    const cuuint64_t *sizes, const cuuint64_t *strides, CUtensorMapSwizzle swizzle,
                                    CUtensorMapFloatOOBfill fill, int im2col) {
  unsigned long long *words = memset(map, 0, sizeof *map);
  words[0] = rank | (unsigned long long)swizzle << 8 | (unsigned long long)element_bytes(type) << 16 |
             (unsigned long long)(fill != 0) << 24 | (unsigned long long)im2col << 32;
  words[14] = (unsigned long long)address;
  for (unsigned i = 0; i < rank; i++) {
    words[2 + i] = sizes[i];
    if (i + 1 < rank) words[7 + i] = strides[i];
  }
  return words;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  if (rank < 1 || rank > 5) return refuse("rank of a tensor map", rank);
  for (unsigned i = 0; i < rank; i++) {
    if (box[i] < 1 || box[i] > 256) return refuse("side of a box", box[i]);
    if (steps[i] != 1) return refuse("step of a box", steps[i]);
  }
  unsigned long long row = (unsigned long long)box[0] * element_bytes(type);
  CUresult refused = refuse_map(map, rank, address, sizes, strides, row, interleave, swizzle);
  if (refused) return refused;
  unsigned long long *words = fill_map(map, type, rank, address, sizes, strides, swizzle, fill, 0);
  for (unsigned i = 0; i < rank; i++) ((unsigned *)(words + 11))[i] = box[i];
  return CUDA_SUCCESS;
}

/* Corners and steps innermost first, as W, H, D. The first step is ignored; one from image to image is not simulated. */
CUresult cuTensorMapEncodeIm2col(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                 const cuuint64_t *sizes, const cuuint64_t *strides, const int *lower, const int *upper,
                                 cuuint32_t channels, cuuint32_t pixels, const cuuint32_t *steps,
                                 CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                 CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  static const int widest[] = {1 << 15, 1 << 7, 1 << 4}; /* corners lie below, by rank */
  if (rank < 3 || rank > 5) return refuse("rank of an im2col tensor map", rank);
  if (channels < 1 || channels > 256) return refuse("channels per pixel", channels);
  if (pixels < 1 || pixels > 1024) return refuse("pixels per column", pixels);
  CUresult refused = refuse_map(map, rank, address, sizes, strides, (unsigned long long)channels * element_bytes(type),
                                interleave, swizzle);
  if (refused) return refused;
  if (steps[rank - 1] != 1) return refuse("step from image to image, which is not simulated", steps[rank - 1]);
  for (unsigned i = 0; i + 2 < rank; i++) {
    int limit = widest[rank - 3];
    if (lower[i] < -limit || lower[i] >= limit) return refuse("lower corner of a bounding box", lower[i]);
    if (upper[i] < -limit || upper[i] >= limit) return refuse("upper corner of a bounding box", upper[i]);
    if (lower[i] > (long long)sizes[i + 1] - 1 + upper[i]) return refuse("empty bounding box in dimension", i);
    if (steps[i + 1] < 1 || steps[i + 1] > 8) return refuse("step of an im2col tensor map", steps[i + 1]);
  }
  unsigned long long *words = fill_map(map, type, rank, address, sizes, strides, swizzle, fill, 1);
  unsigned char *bytes = (unsigned char *)(words + 11);
  memcpy(bytes, (unsigned[]){channels, pixels}, 8);
  for (unsigned i = 0; i + 2 < rank; i++) {
    ((short *)(bytes + 8))[i] = (short)lower[i];
    ((short *)(bytes + 14))[i] = (short)upper[i];
    bytes[20 + i] = (unsigned char)steps[i + 1];
  }
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **values, void **extra) {
  unsigned grid[3] = {config->gridDimX, config->gridDimY, config->gridDimZ};
  if (grid[0] < 1 || grid[0] > 2147483647u) return refuse("grid x", grid[0]);
  if (grid[1] < 1 || grid[1] > 65535) return refuse("grid y", grid[1]);
  if (grid[2] < 1 || grid[2] > 65535) return refuse("grid z", grid[2]);
  if (config->blockDimX > 1024 || config->blockDimY != 1 || config->blockDimZ != 1)
    return refuse("threads", config->blockDimX);
  return simulator.launch((unsigned long long)function, grid, config->blockDimX, config->sharedMemBytes, values)
             ? failed()
             : CUDA_SUCCESS;
}
