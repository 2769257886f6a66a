// Output: how the answer of a contract method is printed in each format.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/session.h"

namespace uccp::cli {

// The rows of a list, already collected. `columns_of` is the method whose columns are used.
Status print_rows(Session& session, const Command& command, const std::vector<std::string>& items);
// The single answer of a method: a resource, a confirmation of a change, or rows if the method has items.
Status print_answer(Session& session, const Command& command, const std::string& request, const std::string& response);
// "task/task_01J... cancelled"
std::string confirmation(const Session& session, const Command& command, const std::string& request,
                         const std::string& response);

// Prints the items of a stream as they come.
class StreamPrinter {
 public:
  StreamPrinter(Session& session, const Command& command);
  Status print(const std::string& item);

 private:
  Status print_row(const std::string& item);
  Status print_end(const std::string& item, const std::string& reason);

  Session& session_;
  const Command& command_;
  const call::MessagePlan& plan_;
  call::FieldPath data_;  // raw bytes of a chunk; empty: none
  std::vector<size_t> widths_;
};

// A chunk's or answer's `data` field; empty if the message has none that is bytes.
call::FieldPath raw_data_field(const call::MessagePlan& plan);

}  // namespace uccp::cli
