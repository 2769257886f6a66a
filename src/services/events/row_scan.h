// Rows of one namespace, or of all of a tenant, behind a place: what lists go through.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "machine/table.h"

namespace uccp::events {

// Visits rows behind `after` in the order of their keys, until `visit`(position, scope of the row, row) returns false.
// If the namespace is "-", those of all namespaces; a position is what `after` may be.
template <typename Row, typename Visit>
void scan_rows(const machine::KeyReader& state, machine::TableId table, const machine::Scope& scope,
               std::string_view after, const Visit& visit) {
  const bool everywhere = scope.name_space == "-";
  ByteWriter begin = machine::table_key::begin(table);
  begin.key_part(scope.tenant);
  if (!everywhere) begin.key_part(scope.name_space);
  const std::string prefix = begin.take();
  // Right behind the row at `after`: a key that is longer by a zero byte.
  const std::string from = after.empty() ? prefix : prefix + std::string(after) + std::string(1, '\0');
  state.scan(from, machine::prefix_end(prefix), [&](std::string_view key, std::string_view bytes) {
    const std::string_view position = key.substr(prefix.size());
    machine::Scope at = scope;
    if (everywhere) at.name_space = ByteReader(position).key_part();
    Row row;
    UCCP_CHECK(row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())), "a stored row is readable");
    return visit(position, at, row);
  });
}

}  // namespace uccp::events
