// Session: what one invocation of the command line carries from parsing to printing.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "call/contract_docs.h"
#include "cli/caller.h"
#include "cli/catalog.h"
#include "cli/errors.h"
#include "cli/io.h"
#include "cli/paint.h"
#include "cli/request.h"
#include "cli/settings.h"

namespace uccp::cli {

struct Session {
  Session(const Io& io, Connect connect, const Catalog& catalog, const call::ContractDocs& docs)
      : io(io),
        catalog(catalog),
        docs(docs),
        globals(global_flags(settings)),
        connect(connect),
        caller(settings, io, std::move(connect)) {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // A line for people on standard error; none with -q.
  void note(const std::string& text) const {
    if (!settings.quiet) io.err(text + "\n");
  }

  const Io& io;
  const Catalog& catalog;
  const call::ContractDocs& docs;
  Settings settings;
  const Paint paint{settings, io};
  std::vector<Flag> globals;
  std::vector<std::string> prefix;  // global flags in front of the command, as they were written
  const Connect connect;            // to what is not of the context
  Caller caller;
};

}  // namespace uccp::cli
