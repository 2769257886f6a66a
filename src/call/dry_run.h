// Dry runs: a change is checked and not made. Every unary change of the contract can be asked for so, over every door.
//
// A method whose request has `validate_only`, or with a handler for it (HandlerTable::add_dry), is checked against the
// state. Any other passes all stages of the pipeline (credentials, rate, form, permission) and ends where the handler
// would begin; the state is not looked at.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "call/method.h"

namespace uccp::call {

// Sets `validate_only` where the method has it. Errors: invalid DRY_RUN_UNSUPPORTED for reads, streams, and methods
// that need no credentials.
Status prepare_dry_run(const Method& method, std::string& request);
// The handler answers dry runs itself.
bool checks_dry_runs(const Method& method);
// The answer without a handler: the resource as it was sent where the method makes one, its name where it changes one,
// else the texts that request and answer both have.
std::string dry_run_answer(const Method& method, std::string_view request);

}  // namespace uccp::call
