// The descriptor image of the contract as bytes of the program, so that help needs no file beside it.
__asm__(
    ".section .rodata\n"
    ".balign 16\n"
    ".global uccp_contract_image_begin\n"
    "uccp_contract_image_begin:\n"
    ".incbin \"" UCCP_CONTRACT_IMAGE
    "\"\n"
    ".global uccp_contract_image_end\n"
    "uccp_contract_image_end:\n"
    ".byte 0\n"
    ".previous\n");
