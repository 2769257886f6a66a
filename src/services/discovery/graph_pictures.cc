// The dependency graph as DOT and as SVG.
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "services/discovery/dependency_graph.h"

namespace uccp::discovery {
namespace {

constexpr int kBoxWidth = 180, kBoxHeight = 44, kGapX = 90, kGapY = 24, kMargin = 20;
constexpr size_t kShownNameMax = 24;

// Node ids are names of services and namespaces: no character of them means anything in DOT strings or in XML, but that
// must not depend on it.
std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

// Which cycle a node is in; absent: none.
std::map<std::string, int> cycle_of(const v1::DependencyGraph& graph) {
  std::map<std::string, int> out;
  for (int i = 0; i < graph.cycles_size(); ++i) {
    for (const std::string& id : graph.cycles(i).services()) out[id] = i;
  }
  return out;
}
bool in_cycle(const std::map<std::string, int>& cycles, const v1::DependencyEdge& edge) {
  const auto from = cycles.find(edge.source()), to = cycles.find(edge.target());
  return from != cycles.end() && to != cycles.end() && from->second == to->second;
}

std::string counts(const v1::DependencyNode& node) {
  return node.instances() == 0
             ? "not registered"
             : std::to_string(node.healthy()) + " of " + std::to_string(node.instances()) + " healthy";
}

struct Spot {
  int column = 0, row = 0;
  int x() const { return kMargin + column * (kBoxWidth + kGapX); }
  int y() const { return kMargin + row * (kBoxHeight + kGapY); }
};

// The longest way to a node, edges inside of cycles aside, is its column.
std::map<std::string, Spot> place(const v1::DependencyGraph& graph, const std::map<std::string, int>& cycles) {
  std::map<std::string, Spot> spots;
  for (const auto& node : graph.nodes()) spots[node.id()];
  bool moved = true;
  for (int round = 0; moved && round <= graph.nodes_size(); ++round) {
    moved = false;
    for (const auto& edge : graph.edges()) {
      if (in_cycle(cycles, edge)) continue;
      Spot& to = spots[edge.target()];
      const int column = spots[edge.source()].column + 1;
      if (to.column < column) {
        to.column = column;
        moved = true;
      }
    }
  }
  std::map<int, int> used;
  for (auto& [id, spot] : spots) spot.row = used[spot.column]++;
  return spots;
}

std::string line(const Spot& from, const Spot& to, const v1::DependencyEdge& edge, bool cycle) {
  const int x1 = from.x() + kBoxWidth, y1 = from.y() + kBoxHeight / 2, x2 = to.x(), y2 = to.y() + kBoxHeight / 2;
  const int bend = std::max(kGapX / 2, (x2 - x1) / 2);
  char path[160];
  std::snprintf(path, sizeof path, "M%d,%d C%d,%d %d,%d %d,%d", x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2);
  return std::string("<path d=\"") + path + "\" class=\"" + (edge.satisfied() ? "ok" : "missing") +
         (cycle ? " cycle" : "") + (edge.optional() ? " optional" : "") + "\"><title>" + escape(edge.source()) +
         " calls " + escape(edge.target()) + " " + escape(edge.version()) + "</title></path>\n";
}

std::string box(const v1::DependencyNode& node, const Spot& at) {
  std::string name = node.id();
  if (name.size() > kShownNameMax) name = name.substr(0, kShownNameMax - 3) + "...";
  const std::string x = std::to_string(at.x()), middle = std::to_string(at.x() + kBoxWidth / 2);
  const std::string kind = node.instances() == 0 ? "unknown" : node.healthy() == 0 ? "down" : "up";
  return "<g class=\"" + kind + "\"><title>" + escape(node.id()) + "</title><rect x=\"" + x + "\" y=\"" +
         std::to_string(at.y()) + "\" width=\"" + std::to_string(kBoxWidth) + "\" height=\"" +
         std::to_string(kBoxHeight) + "\" rx=\"6\"/><text x=\"" + middle + "\" y=\"" + std::to_string(at.y() + 18) +
         "\">" + escape(name) + "</text><text class=\"small\" x=\"" + middle + "\" y=\"" + std::to_string(at.y() + 35) +
         "\">" + counts(node) + "</text></g>\n";
}

}  // namespace

std::string graph_as_dot(const v1::DependencyGraph& graph) {
  const auto cycles = cycle_of(graph);
  std::string out = "digraph dependencies {\n  rankdir=LR;\n  node [shape=box];\n";
  for (const auto& node : graph.nodes()) {
    out += "  " + quoted(node.id()) + " [label=" + quoted(node.id() + " (" + counts(node) + ")") +
           (node.healthy() == 0 ? ", color=red" : "") + "];\n";
  }
  for (const auto& edge : graph.edges()) {
    out += "  " + quoted(edge.source()) + " -> " + quoted(edge.target()) + " [";
    if (!edge.version().empty()) out += "label=" + quoted(edge.version()) + ", ";
    out += std::string("style=") +
           (edge.optional()          ? "dashed"
            : in_cycle(cycles, edge) ? "bold"
                                     : "solid") +
           (edge.satisfied() ? "" : ", color=red") + "];\n";
  }
  return out + "}\n";
}

std::string graph_as_svg(const v1::DependencyGraph& graph) {
  const auto cycles = cycle_of(graph);
  const auto spots = place(graph, cycles);
  int width = 0, height = 0;
  for (const auto& [id, spot] : spots) {
    width = std::max(width, spot.x() + kBoxWidth);
    height = std::max(height, spot.y() + kBoxHeight);
  }
  std::string out =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + std::to_string(width + kMargin) + " " +
      std::to_string(height + kMargin) +
      "\" font-family=\"sans-serif\" font-size=\"13\">\n"
      "<style>rect{fill:#fff;stroke:#345}.down rect{stroke:#c22;fill:#fee}.unknown rect{stroke:#c22;"
      "stroke-dasharray:4}text{text-anchor:middle;fill:#123}.small{font-size:11px;fill:#567}path{fill:none;"
      "stroke:#678;marker-end:url(#a)}.missing{stroke:#c22}.cycle{stroke-width:2.5}.optional{"
      "stroke-dasharray:5}</style>\n<defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" "
      "markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0,0 L8,4 L0,8 z\" "
      "style=\"fill:#678;stroke:none;marker-end:none\"/></marker></defs>\n";
  for (const auto& edge : graph.edges()) {
    out += line(spots.at(edge.source()), spots.at(edge.target()), edge, in_cycle(cycles, edge));
  }
  for (const auto& node : graph.nodes()) out += box(node, spots.at(node.id()));
  return out + "</svg>\n";
}

}  // namespace uccp::discovery
