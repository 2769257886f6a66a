// Which services call which: nodes, edges, cycles, and the picture of it. Pure; any thread.
#pragma once

#include <string>
#include <vector>

#include "services/discovery/discovery_state.h"

namespace uccp::discovery {

inline constexpr size_t kGraphNodesMax = 2'000;
inline constexpr size_t kGraphEdgesMax = 10'000;

// Errors: invalid GRAPH_TOO_LARGE, CATALOG_TOO_LARGE.
Result<v1::DependencyGraph> dependency_graph(const machine::KeyReader& state, const Scope& scope,
                                             const v1::GetDependencyGraphRequest& request);

// Groups of nodes that reach each other, each with its smallest first; a node alone is one only if it calls itself.
// `calls[i]`: the nodes that node i calls. Tarjan (1972), without recursion.
std::vector<std::vector<size_t>> find_cycles(const std::vector<std::vector<size_t>>& calls);

// Graphviz's language. What is not healthy is red, cycles are bold.
std::string graph_as_dot(const v1::DependencyGraph& graph);
// A picture in layers: whoever calls stands left of what it calls, but for cycles.
std::string graph_as_svg(const v1::DependencyGraph& graph);

}  // namespace uccp::discovery
