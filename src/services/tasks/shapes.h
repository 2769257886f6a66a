// What tasks ask for and workers have: amounts, labels, marks. The vocabulary of the scheduler's parts.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/dotted_version.h"

namespace uccp::tasks {

// Fixed point: CPU in thousandths of a core.
struct Shape {
  int64_t cpu_milli = 0;
  int64_t memory = 0;
  int64_t disk = 0;
  int64_t gpus = 0;
  int64_t network_bps = 0;
  // What has no field of its own, in thousandths, by name: accelerators ("tpu", and "tpu v5e-8" for a type of them),
  // and what workers declare under names of their own ("licence/matlab"). Never with an amount of zero.
  std::map<std::string, int64_t> counted;

  auto operator<=>(const Shape&) const = default;
  bool fits_in(const Shape& free) const;
  Shape& operator+=(const Shape& other);
  Shape& operator-=(const Shape& other);
};

using LabelMap = std::map<std::string, std::string>;

// Tenant, namespace and id in one key; equal ids of two namespaces are two tasks.
struct TaskRef {
  std::string tenant, name_space, id;
  auto operator<=>(const TaskRef&) const = default;
};

struct TaskRefHash {
  size_t operator()(const TaskRef& ref) const {
    const std::hash<std::string> hash;
    return hash(ref.id) * 31 + hash(ref.name_space) * 7 + hash(ref.tenant);
  }
};

// The name under which shares of a graphics processor are counted, in thousandths; it is nobody's own.
inline constexpr const char* kGpuShare = "gpu share";
// The share of one device that is asked for; 0: none.
int64_t gpu_share(const Shape& shape);

// The name under which the CPU is counted that tasks may use which nobody waits for, if some is kept for others. Read
// by people who ask why a task waits.
inline constexpr const char* kOrdinaryCpu = "CPU beside the headroom for interactive tasks";

// How the devices of a kind are connected; each is better than those before it.
enum class GpuLink : uint8_t { kAny, kNuma, kPcie, kNvlink };

// What the graphics processors of a task have to be; how many is in its shape.
struct GpuNeed {
  std::string type;  // prefix of vendor and model; empty: any
  int64_t memory = 0;
  GpuLink link = GpuLink::kAny;  // at least
  DottedVersion driver{};        // at least

  auto operator<=>(const GpuNeed&) const = default;
};

// Graphics processors of one kind in a worker.
struct GpuKind {
  std::string type;
  int64_t count = 0;
  int64_t memory = 0;  // of each
  GpuLink link = GpuLink::kAny;
  DottedVersion driver{};

  auto operator<=>(const GpuKind&) const = default;
};

enum class TaintKind : uint8_t { kAny, kNoSchedule, kPreferNot, kNoExecute };

// A mark that keeps tasks away, and what a task says to pass by it: then an empty key or value, and kAny, fit
// everything.
struct Mark {
  std::string key, value;
  TaintKind kind = TaintKind::kAny;

  auto operator<=>(const Mark&) const = default;
};
using Marks = std::vector<Mark>;

// True if one of the tolerations fits the taint.
bool tolerates(const Marks& tolerations, const Mark& taint);

// Tasks near which a task has to run, or away from which: those of its namespace whose labels match.
struct NearTerm {
  std::string selector;      // of labels of tasks
  std::string topology_key;  // label of workers whose equal values are near; empty: the same worker
  bool away = false;
  bool preferred = false;  // only a wish

  auto operator<=>(const NearTerm&) const = default;
};

// Where among the workers that fit a task goes.
enum class Packing : uint8_t { kTight, kSpread };

// What may take room that something waits for, until it could have it: what ends in time, besides those that wait
// longest (EASY), or besides all that wait (conservative).
enum class Backfill : uint8_t { kEasy, kConservative };

// All that decides where a task may run. Tasks of equal demand are one class: what holds for one holds for all.
struct Demand {
  Shape shape;
  GpuNeed gpu;
  LabelMap selector;                                       // labels that the worker must have
  std::vector<std::string> required;                       // label selectors that it must match, all of them
  std::vector<std::pair<std::string, int32_t>> preferred;  // label selectors that make it better, with their weights
  Marks tolerations;
  bool preemptible = false;             // may be stopped at any moment, and so runs where that is likely
  int64_t duration_ms = 0;              // it is expected to end within that time; 0: not known
  Backfill backfill = Backfill::kEasy;  // how room is kept for it while it waits
  // Only with `near`, or a share of a device: whose tasks are meant, and its own labels.
  std::string tenant, name_space;
  LabelMap labels;
  std::vector<NearTerm> near;

  auto operator<=>(const Demand&) const = default;
};

struct WorkerView {
  std::string id;
  Shape capacity;
  LabelMap labels;
  std::vector<GpuKind> gpus;
  Marks taints;
  size_t slots = 0;       // most attempts at a time
  bool accepts = true;    // not cordoned, not draining
  bool connected = true;  // its agent
  bool spot = false;      // its owner may take it away at any moment
  int64_t price = 0;      // of a core for an hour, in millionths; 0: none is set
};

}  // namespace uccp::tasks
