// uccp-spawn: the fork server of uccp-agent as a program of its own. Linked statically: the fewer pages and mappings it
// has, the cheaper is each fork, and its children need no symbol to be looked up.
#include <cstdlib>

#include "runtime/fork_server_loop.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  uccp::runtime::run_fork_server(uccp::runtime::kForkServerSocket, static_cast<pid_t>(std::atoi(argv[1])));
}
