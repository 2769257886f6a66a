// uccp-cli: the command line of the platform. See docs/cli.md.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/app.h"
#include "cli/catalog.h"
#include "cli/grpc_transport.h"
#include "cli/io.h"
#include "doors/grpc_client/process.h"

// The contract with its comments, put into the program by contract_image_main.cc.
extern "C" const char uccp_contract_image_begin[];
extern "C" const char uccp_contract_image_end[];

namespace {

// Returns only if it cannot be run.
int run_server_program(const std::vector<std::string>& args) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = (self.parent_path() / "uccp").string();
  std::vector<char*> words = {const_cast<char*>(program.c_str())};
  for (const std::string& arg : args) words.push_back(const_cast<char*>(arg.c_str()));
  words.push_back(nullptr);
  execv(program.c_str(), words.data());
  std::fprintf(stderr, "error: cannot run %s, which makes the files of a cluster\n", program.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  uccp::doors::prepare_grpc();
  const std::vector<std::string> args(argv + 1, argv + argc);
  const bool wants_help =
      std::ranges::any_of(args, [](const std::string& arg) { return arg == "--help" || arg == "-h"; });
  if (args.size() >= 2 && !wants_help && uccp::cli::find_file_command(args[0], args[1]) != nullptr) {
    return run_server_program(args);
  }
  const std::string_view image(uccp_contract_image_begin,
                               static_cast<size_t>(uccp_contract_image_end - uccp_contract_image_begin));
  return uccp::cli::run(args, uccp::cli::process_io(), {.connect = uccp::cli::connect_grpc, .contract_image = image});
}
