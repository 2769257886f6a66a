// docs/settings.md, made of the table of configuration keys: `uccp config docs`.
#pragma once

#include <string>

namespace uccp::server {

// The whole page, Markdown.
std::string settings_page();

}  // namespace uccp::server
