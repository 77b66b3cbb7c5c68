// A libcupti without a GPU: it delivers four records when it is asked for what is left, and says that three were dropped.
#include <cupti.h>

#include <cstdlib>
#include <cstring>

namespace {

CUpti_BuffersCallbackRequestFunc request;
CUpti_BuffersCallbackCompleteFunc complete;

size_t bytes_of(const CUpti_Activity& record) {
  switch (record.kind) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: return sizeof(CUpti_ActivityKernel10);
    case CUPTI_ACTIVITY_KIND_MEMCPY: return sizeof(CUpti_ActivityMemcpy6);
    default: return sizeof(CUpti_ActivityMemset4);
  }
}

template <class Record>
size_t put(uint8_t* to, const Record& record) {
  memcpy(to, &record, sizeof record);
  return sizeof record;
}

CUpti_ActivityKernel10 kernel(const char* name, uint64_t start, uint64_t end, uint64_t node) {
  CUpti_ActivityKernel10 record{};
  record.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
  record.name = name;
  record.start = start;
  record.end = end;
  record.streamId = 7;
  record.graphNodeId = node;
  return record;
}

}  // namespace

extern "C" {

CUptiResult cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc asks, CUpti_BuffersCallbackCompleteFunc takes) {
  request = asks;
  complete = takes;
  return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityEnable(CUpti_ActivityKind) { return getenv("STAND_IN_REFUSES") == nullptr ? CUPTI_SUCCESS : CUPTI_ERROR_NOT_INITIALIZED; }

CUptiResult cuptiGetResultString(CUptiResult, const char** text) {
  *text = "CUPTI_ERROR_NOT_INITIALIZED";
  return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext, uint32_t, size_t* dropped) {
  *dropped = 3;
  return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityGetNextRecord(uint8_t* buffer, size_t valid, CUpti_Activity** record) {
  uint8_t* next = *record == nullptr ? buffer : reinterpret_cast<uint8_t*>(*record) + bytes_of(**record);
  if (next >= buffer + valid) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  *record = reinterpret_cast<CUpti_Activity*>(next);
  return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityFlushAll(uint32_t) {
  uint8_t* buffer = nullptr;
  size_t size = 0, most = 0, used = 0;
  request(&buffer, &size, &most);
  CUpti_ActivityMemcpy6 copy{};
  copy.kind = CUPTI_ACTIVITY_KIND_MEMCPY;
  copy.copyKind = CUPTI_ACTIVITY_MEMCPY_KIND_DTOH;
  copy.start = 3000;
  copy.end = 3100;
  copy.bytes = 44;
  CUpti_ActivityMemset4 fill{};
  fill.kind = CUPTI_ACTIVITY_KIND_MEMSET;
  fill.start = 4000;
  fill.end = 4100;
  fill.bytes = 12;
  used += put(buffer + used, kernel("_ZN7lowrank12_GLOBAL__N_19pass_gateEPKfPf", 2000, 3000, 42));
  used += put(buffer + used, kernel("nvjet_tst", 1000, 1500, 0));
  used += put(buffer + used, copy);
  used += put(buffer + used, fill);
  complete(nullptr, 0, buffer, size, used);
  return CUPTI_SUCCESS;
}
}
