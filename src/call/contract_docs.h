// The comments of the contract, read from the descriptor image (uccp_contract.binpb) for CLI help and documents.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/status.h"

namespace uccp::call {

class ContractDocs {
 public:
  // Errors: invalid IMAGE_INVALID if `image` is not a FileDescriptorSet.
  static Result<ContractDocs> parse(std::string_view image);

  // The whole comment of a full name ("uccp.v1.TaskScheduling.ScheduleTask", "uccp.v1.Task.name",
  // "uccp.v1.TaskStatus.TASK_STATUS_QUEUED", "uccp.v1.Task"); empty if there is none.
  std::string_view comment(std::string_view full_name) const;
  // Its first sentence on one line, without the full stop.
  std::string sentence(std::string_view full_name) const;

 private:
  std::map<std::string, std::string, std::less<>> comments_;
};

}  // namespace uccp::call
