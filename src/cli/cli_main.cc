// uccp-cli: the command line of the platform. See docs/cli.md.
#include <string>
#include <vector>

#include "cli/app.h"
#include "cli/grpc_transport.h"
#include "cli/io.h"
#include "doors/grpc_client/process.h"

// The contract with its comments, put into the program by contract_image_main.cc.
extern "C" const char uccp_contract_image_begin[];
extern "C" const char uccp_contract_image_end[];

int main(int argc, char** argv) {
  uccp::doors::prepare_grpc();
  const std::vector<std::string> args(argv + 1, argv + argc);
  const std::string_view image(uccp_contract_image_begin,
                               static_cast<size_t>(uccp_contract_image_end - uccp_contract_image_begin));
  return uccp::cli::run(args, uccp::cli::process_io(), {.connect = uccp::cli::connect_grpc, .contract_image = image});
}
