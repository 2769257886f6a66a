// Whose turn it is: a tree of tenants, teams, namespaces, queues and users, and in each leaf queues by priority.
//
// Pure memory; time comes with the calls. Order of service:
//  1. the highest band. A band is ten priorities; a queue that waits without being served rises a priority each
//     `age_step_ms`, so nothing waits for ever;
//  2. in a band, down the tree, the child with the smallest weighted dominant share: the largest part of any resource
//  of
//     the cluster that its tasks hold now and held of late (a moving average with a half-life), divided by its weight;
//  3. in a leaf, the highest priority as it has risen, then the task that was queued first.
//
// A queue consists of lines, one a class of tasks, because tasks of a class are placed or not placed alike: a line
// whose class fits nowhere is parked, and its tasks cost nothing until it is taken up again.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "services/tasks/fleet.h"

namespace uccp::tasks {

struct FairnessOptions {
  int64_t age_step_ms = 60'000;      // time without service that is worth one priority
  int64_t half_life_ms = 1'800'000;  // of past use
  int64_t refresh_ms = 1'000;        // how often ages and past use are taken up
};

class FairQueues {
 public:
  static constexpr int32_t kPriorityMax = 100;
  static constexpr size_t kBands = 11;

  struct Node;
  struct Queue;
  // Position of a task in its line: the revision that queued it, and its name among equals.
  using Position = std::pair<uint64_t, const TaskRef*>;
  struct ByPosition {
    bool operator()(const Position& a, const Position& b) const {
      return a.first != b.first ? a.first < b.first : *a.second < *b.second;
    }
  };
  struct Line;
  struct ByFirst {
    bool operator()(const std::pair<Position, Line*>& a, const std::pair<Position, Line*>& b) const {
      return ByPosition()(a.first, b.first);
    }
  };
  // Tasks of one class, priority and leaf.
  struct Line {
    Queue* queue = nullptr;
    void* owner = nullptr;  // the class, for whoever made it
    uint64_t number = 0;
    std::set<Position, ByPosition> tasks;
    bool parked = false;
  };
  struct Queue {
    Node* leaf = nullptr;
    int32_t priority = 0;
    int64_t waiting_since_ms = 0;
    int32_t risen = 0;                                    // priority with age, as of the last refresh
    int32_t band = -1;                                    // in which it waits for its turn; -1: nothing in it does
    std::map<uint64_t, Line> lines;                       // by number of the class
    std::set<std::pair<Position, Line*>, ByFirst> ready;  // lines that are not parked, by their first task
  };

  explicit FairQueues(FairnessOptions options);
  ~FairQueues();
  FairQueues(const FairQueues&) = delete;
  FairQueues& operator=(const FairQueues&) = delete;

  // Nodes are dropped in refresh() when nothing is queued or held there and their past use is forgotten; a leaf that is
  // to be used again is asked for again.

  // The leaf at the end of a path of names, made if it is missing.
  Node* leaf(const std::vector<std::string>& path);
  // A weight for the node at the end of a path, now and whenever it is made. 1 where none is set.
  void set_weight(const std::vector<std::string>& path, double weight);

  // `queued_ms`: since when the task waits; 0: since now.
  Line* push(Node* leaf, int32_t priority, uint64_t class_number, void* owner, Position task, int64_t queued_ms);
  void erase(Line* line, Position task);
  void park(Line* line);
  void unpark(Line* line);

  // The line whose turn it is; nullptr if all are empty or parked.
  Line* next() const;
  // Notes that a task of the line was placed: its queue waits anew from now on.
  void served(Line* line);
  // What tasks of the leaf hold changes.
  void charge(Node* leaf, const Needs& needs, int64_t sign);

  // Takes up the passing of time: ages and past use. `total` is what the cluster has of each dimension.
  void refresh(int64_t now_ms, const Fleet& fleet);
  int64_t now_ms() const { return now_ms_; }

  // Weighted dominant share of a leaf as it counts now.
  double share(const Node* leaf) const;
  // Tasks that are placed before one at this position, if nothing else happened: of higher bands, and of its own leaf.
  size_t ahead(const Line* line, const Position& task) const;

 private:
  void enlist(Queue* queue);
  void delist(Queue* queue);
  void reposition(Node* node, double share);
  void compute_share(Node* node);
  int32_t risen(const Queue& queue) const;
  void drop_if_idle(Node* node);
  template <typename Visit>
  void each_node(Node* node, const Visit& visit);

  const FairnessOptions options_;
  std::unique_ptr<Node> root_;
  std::map<std::vector<std::string>, double> weights_;
  std::vector<double> total_;
  int64_t now_ms_ = 0;
  int64_t refreshed_ms_ = -1;
  uint64_t next_number_ = 1;
  double keep_ = 1;  // share of past use that a refresh leaves
};

}  // namespace uccp::tasks
