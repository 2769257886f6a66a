// Signing in: the session of a person, kept in a file of mode 0600 between invocations, and refreshed when it has to
// be.
//
// The file holds one session: $UCCP_SESSION_FILE, else session.json in the folder of the contexts. It counts for
// commands that go to the cluster it was made at and name no other credential.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/commands.h"
#include "cli/io.h"
#include "cli/transport.h"

namespace uccp::cli {

// Empty if there is no home directory.
std::string session_path(const Io& io);
// Nothing if there is none, or the file is damaged.
std::optional<StoredSession> load_session(const Io& io);
Status save_session(const Io& io, const StoredSession& session);

// Exchanges the refresh token when the access token is about to expire, so that `context` has a fresh one. Errors:
// those of ExchangeToken.
Status refresh_session(const Io& io, const Connect& connect, Context& context);

// Asks for a secret that neither arguments nor the body gave.
Status fill_secret(const Session& session, const call::Method& method, std::string_view field,
                   const std::string& prompt, std::string& wire);

Result<int> run_auth_login(Session& session, const Command& command, Args args);
Result<int> run_auth_logout(Session& session, const Command& command, Args args);
Result<int> run_set_password(Session& session, const Command& command, Args args);

}  // namespace uccp::cli
