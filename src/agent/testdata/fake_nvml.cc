// A library with the functions of nvml.h that the agent calls, for a machine with four devices: the second fell off
// the bus, the last two are joined by NVLink, and the very last one is partitioned.
#include <cstdint>
#include <cstring>

extern "C" {

constexpr int kLost = 15;  // NVML_ERROR_GPU_IS_LOST

struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;
};

int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 4;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = reinterpret_cast<void*>(static_cast<uintptr_t>(index + 1));
  return index == 1 ? kLost : 0;
}
int nvmlDeviceGetName(void* device, char* name, unsigned size) {
  const bool partition = reinterpret_cast<uintptr_t>(device) > 100;
  std::strncpy(name, partition ? "NVIDIA H100 80GB HBM3 MIG 1g.10gb" : "NVIDIA H100 80GB HBM3", size);
  return 0;
}
int nvmlDeviceGetUUID(void*, char* uuid, unsigned size) {
  std::strncpy(uuid, "GPU-0", size);
  return 0;
}
int nvmlDeviceGetMemoryInfo(void*, Memory* memory) {
  *memory = {80ull << 30, 79ull << 30, 1ull << 30};
  return 0;
}
int nvmlSystemGetDriverVersion(char* version, unsigned size) {
  std::strncpy(version, "535.104.05", size);
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(void*, int* major, int* minor) {
  *major = 9;
  *minor = 0;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void*, Utilization* utilization) {
  *utilization = {25, 10};
  return 0;
}
int nvmlDeviceGetTemperature(void*, int, unsigned* celsius) {
  *celsius = 41;
  return 0;
}
int nvmlDeviceGetP2PStatus(void*, void*, int, int* status) {
  *status = 0;
  return 0;
}
int nvmlDeviceGetTopologyCommonAncestor(void*, void*, int* level) {
  *level = 50;
  return 0;
}
int nvmlDeviceGetMigMode(void* device, unsigned* current, unsigned* pending) {
  *current = *pending = reinterpret_cast<uintptr_t>(device) == 4 ? 1 : 0;
  return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void*, unsigned* count) {
  *count = 7;
  return 0;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void*, unsigned index, void** device) {
  *device = reinterpret_cast<void*>(static_cast<uintptr_t>(101 + index));
  return index < 2 ? 0 : 6;  // NVML_ERROR_NOT_FOUND
}
}
