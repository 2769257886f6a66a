#include "doors/rest/contract_image.h"

// Names of their own: uccp-cli embeds the image too, and a program may link both.
__asm__(
    ".section .rodata\n"
    ".balign 16\n"
    ".global uccp_rest_contract_image_begin\n"
    "uccp_rest_contract_image_begin:\n"
    ".incbin \"" UCCP_CONTRACT_IMAGE
    "\"\n"
    ".global uccp_rest_contract_image_end\n"
    "uccp_rest_contract_image_end:\n"
    ".byte 0\n"
    ".previous\n");

extern "C" const char uccp_rest_contract_image_begin[];
extern "C" const char uccp_rest_contract_image_end[];

namespace uccp::doors {

std::string_view contract_image() {
  return {uccp_rest_contract_image_begin,
          static_cast<size_t>(uccp_rest_contract_image_end - uccp_rest_contract_image_begin)};
}

}  // namespace uccp::doors
