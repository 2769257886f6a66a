# Language, warnings and sanitizers for every target.
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

set(UCCP_SANITIZE "" CACHE STRING "Sanitizers to build with, e.g. address,undefined or thread")
option(UCCP_FUZZ "Build the libFuzzer targets" OFF)
option(UCCP_PLANTED_BUGS "Compile the planted bugs that the simulator has to find" OFF)

add_compile_options(-Wall -Wextra -Werror -Wno-missing-field-initializers -Wno-unused-parameter
                    -fno-omit-frame-pointer -gline-tables-only -fcolor-diagnostics)
add_link_options(-fuse-ld=lld)
if(UCCP_SANITIZE)
  add_compile_options(-fsanitize=${UCCP_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${UCCP_SANITIZE})
endif()
if(UCCP_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(UCCP_PLANTED_BUGS)
  add_compile_definitions(UCCP_PLANTED_BUGS=1)
endif()
