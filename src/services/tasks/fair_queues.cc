#include "services/tasks/fair_queues.h"

#include <algorithm>
#include <cmath>

namespace uccp::tasks {

struct FairQueues::Node {
  struct ByShare {
    bool operator()(const std::pair<double, Node*>& a, const std::pair<double, Node*>& b) const {
      return a.first != b.first ? a.first < b.first : a.second->number < b.second->number;
    }
  };
  Node* parent = nullptr;
  std::string name;
  uint64_t number = 0;
  double weight = 1;
  double share = 0;
  std::vector<double> held, past;  // by dimension
  std::map<std::string, std::unique_ptr<Node>> children;
  // Of the children that have something to place, those of each band by share; in a leaf, its queues.
  std::array<std::set<std::pair<double, Node*>, ByShare>, kBands> turns;
  std::array<std::vector<Queue*>, kBands> ready_queues;
  std::map<int32_t, Queue> queues;  // by priority
  uint16_t bands = 0;               // in which it has something to place

  bool has_turn(size_t band) const { return !turns[band].empty() || !ready_queues[band].empty(); }
};

namespace {

// What is left of past use is forgotten below this share, so that names that are gone leave nothing behind.
constexpr double kForgottenShare = 1e-6;

}  // namespace

FairQueues::FairQueues(FairnessOptions options) : options_(options), root_(std::make_unique<Node>()) {
  keep_ = std::exp2(-static_cast<double>(options_.refresh_ms) / static_cast<double>(options_.half_life_ms));
}

FairQueues::~FairQueues() = default;

FairQueues::Node* FairQueues::leaf(const std::vector<std::string>& path) {
  Node* node = root_.get();
  std::vector<std::string> so_far;
  for (const std::string& name : path) {
    so_far.push_back(name);
    auto& child = node->children[name];
    if (!child) {
      child = std::make_unique<Node>();
      child->parent = node;
      child->name = name;
      child->number = next_number_++;
      if (const auto weight = weights_.find(so_far); weight != weights_.end()) child->weight = weight->second;
    }
    node = child.get();
  }
  return node;
}

void FairQueues::set_weight(const std::vector<std::string>& path, double weight) {
  if (weight == 1) weights_.erase(path);
  else weights_[path] = weight;
  Node* node = root_.get();
  for (const std::string& name : path) {
    const auto child = node->children.find(name);
    if (child == node->children.end()) return;
    node = child->second.get();
  }
  node->weight = weight;
  compute_share(node);
}

// --- turns

int32_t FairQueues::risen(const Queue& queue) const {
  const int64_t steps = std::max<int64_t>(0, now_ms_ - queue.waiting_since_ms) / options_.age_step_ms;
  return static_cast<int32_t>(std::min<int64_t>(kPriorityMax, queue.priority + steps));
}

void FairQueues::enlist(Queue* queue) {
  if (queue->ready.empty()) return;
  queue->risen = risen(*queue);
  queue->band = queue->risen / 10;
  const auto band = static_cast<size_t>(queue->band);
  queue->leaf->ready_queues[band].push_back(queue);
  for (Node* node = queue->leaf; (node->bands >> band & 1) == 0; node = node->parent) {
    node->bands = static_cast<uint16_t>(node->bands | 1u << band);
    if (node->parent == nullptr) break;
    node->parent->turns[band].emplace(node->share, node);
  }
}

void FairQueues::delist(Queue* queue) {
  if (queue->band < 0) return;
  const auto band = static_cast<size_t>(queue->band);
  queue->band = -1;
  std::erase(queue->leaf->ready_queues[band], queue);
  for (Node* node = queue->leaf; node != nullptr && !node->has_turn(band); node = node->parent) {
    node->bands = static_cast<uint16_t>(node->bands & ~(1u << band));
    if (node->parent != nullptr) node->parent->turns[band].erase({node->share, node});
  }
}

FairQueues::Line* FairQueues::push(Node* leaf, int32_t priority, uint64_t class_number, void* owner, Position task,
                                   int64_t queued_ms) {
  priority = std::clamp(priority, 0, kPriorityMax);
  Queue& queue = leaf->queues[priority];
  queue.leaf = leaf;
  queue.priority = priority;
  if (queue.lines.empty()) queue.waiting_since_ms = queued_ms > 0 ? std::min(queued_ms, now_ms_) : now_ms_;
  Line& line = queue.lines[class_number];
  line.queue = &queue;
  line.owner = owner;
  line.number = class_number;
  if (line.parked) {
    line.tasks.insert(task);
    return &line;
  }
  if (!line.tasks.empty()) queue.ready.erase({*line.tasks.begin(), &line});
  line.tasks.insert(task);
  queue.ready.emplace(*line.tasks.begin(), &line);
  if (queue.band < 0) enlist(&queue);
  return &line;
}

void FairQueues::erase(Line* line, Position task) {
  Queue& queue = *line->queue;
  if (!line->parked) queue.ready.erase({*line->tasks.begin(), line});
  line->tasks.erase(task);
  if (!line->parked && !line->tasks.empty()) queue.ready.emplace(*line->tasks.begin(), line);
  if (queue.ready.empty()) delist(&queue);
  if (!line->tasks.empty()) return;
  queue.lines.erase(line->number);
  if (!queue.lines.empty()) return;
  Node* leaf = queue.leaf;
  leaf->queues.erase(queue.priority);
}

void FairQueues::park(Line* line) {
  if (line->parked) return;
  line->parked = true;
  Queue& queue = *line->queue;
  queue.ready.erase({*line->tasks.begin(), line});
  if (queue.ready.empty()) delist(&queue);
}

void FairQueues::unpark(Line* line) {
  if (!line->parked) return;
  line->parked = false;
  Queue& queue = *line->queue;
  queue.ready.emplace(*line->tasks.begin(), line);
  if (queue.band < 0) enlist(&queue);
}

FairQueues::Line* FairQueues::next() const {
  if (root_->bands == 0) return nullptr;
  size_t band = kBands - 1;
  while ((root_->bands >> band & 1) == 0) --band;
  const Node* node = root_.get();
  // A leaf may be an inner node as well; what is queued in it goes before what is below.
  while (node->ready_queues[band].empty()) node = node->turns[band].begin()->second;
  const auto before = [](const Queue* a, const Queue* b) {
    if (a->risen != b->risen) return a->risen > b->risen;
    return ByPosition()(a->ready.begin()->first, b->ready.begin()->first);
  };
  const Queue* queue = *std::ranges::min_element(node->ready_queues[band], before);
  return queue->ready.begin()->second;
}

void FairQueues::served(Line* line) {
  Queue& queue = *line->queue;
  queue.waiting_since_ms = now_ms_;
  if (queue.risen == queue.priority) return;
  const bool waits = queue.band >= 0;
  delist(&queue);
  if (waits) enlist(&queue);
}

// --- shares

void FairQueues::reposition(Node* node, double share) {
  if (share == node->share) return;
  if (node->parent != nullptr) {
    for (size_t band = 0; band < kBands; ++band) {
      if ((node->bands >> band & 1) == 0) continue;
      auto moved = node->parent->turns[band].extract({node->share, node});
      moved.value().first = share;
      node->parent->turns[band].insert(std::move(moved));
    }
  }
  node->share = share;
}

void FairQueues::compute_share(Node* node) {
  double share = 0;
  for (size_t d = 0; d < node->held.size(); ++d) {
    if (d < total_.size() && total_[d] > 0) share = std::max(share, (node->held[d] + node->past[d]) / total_[d]);
  }
  reposition(node, share / node->weight);
}

void FairQueues::charge(Node* leaf, const Needs& needs, int64_t sign) {
  for (Node* node = leaf; node != nullptr; node = node->parent) {
    for (const Need& need : needs) {
      if (node->held.size() <= need.dimension) {
        node->held.resize(need.dimension + 1);
        node->past.resize(need.dimension + 1);
      }
      node->held[need.dimension] += static_cast<double>(sign * need.amount);
    }
    compute_share(node);
  }
}

template <typename Visit>
void FairQueues::each_node(Node* node, const Visit& visit) {
  for (auto it = node->children.begin(); it != node->children.end();) {
    Node* child = it->second.get();
    ++it;  // the visit may drop the child
    each_node(child, visit);
  }
  visit(node);
}

void FairQueues::drop_if_idle(Node* node) {
  if (node->parent == nullptr || !node->children.empty() || !node->queues.empty() || node->share > kForgottenShare)
    return;
  if (std::ranges::any_of(node->held, [](double held) { return held != 0; })) return;
  node->parent->children.erase(std::string(node->name));
}

void FairQueues::refresh(int64_t now_ms, const Fleet& fleet) {
  now_ms_ = std::max(now_ms, now_ms_);
  if (refreshed_ms_ >= 0 && now_ms_ < refreshed_ms_ + options_.refresh_ms && total_.size() == fleet.dimensions())
    return;
  // Past use is decayed in whole steps; the rest is taken up next time.
  const int64_t steps = refreshed_ms_ < 0 ? 0 : (now_ms_ - refreshed_ms_) / options_.refresh_ms;
  refreshed_ms_ = refreshed_ms_ < 0 ? now_ms_ : refreshed_ms_ + steps * options_.refresh_ms;
  double keep = 1;
  double factor = keep_;
  for (int64_t rest = steps; rest > 0; rest >>= 1, factor *= factor) {
    if ((rest & 1) != 0) keep *= factor;
  }
  total_.resize(fleet.dimensions());
  for (Dimension d = 0; d < total_.size(); ++d) total_[d] = static_cast<double>(fleet.total(d));
  each_node(root_.get(), [&](Node* node) {
    for (size_t d = 0; d < node->held.size(); ++d)
      node->past[d] = node->held[d] + (node->past[d] - node->held[d]) * keep;
    compute_share(node);
    for (auto& [priority, queue] : node->queues) {
      if (queue.band < 0 || risen(queue) == queue.risen) continue;
      delist(&queue);
      enlist(&queue);
    }
    drop_if_idle(node);
  });
}

double FairQueues::share(const Node* leaf) const { return leaf->share; }

size_t FairQueues::ahead(const Line* line, const Position& task) const {
  size_t count = 0;
  const Queue& own = *line->queue;
  const int32_t own_risen = risen(own);
  const auto count_in = [&](const auto& self, const Node* node) -> void {
    for (const auto& [name, child] : node->children) self(self, child.get());
    for (const auto& [priority, queue] : node->queues) {
      const int32_t theirs = risen(queue);
      const bool before = node == own.leaf ? theirs > own_risen : theirs / 10 > own_risen / 10;
      if (!before && (node != own.leaf || theirs != own_risen)) continue;
      for (const auto& [number, other] : queue.lines) {
        count += before ? other.tasks.size()
                        : static_cast<size_t>(std::distance(other.tasks.begin(), other.tasks.lower_bound(task)));
      }
    }
  };
  count_in(count_in, root_.get());
  return count;
}

}  // namespace uccp::tasks
