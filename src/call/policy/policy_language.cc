// Parsing of statements, and their heads.
#include "call/policy/policy_language.h"

#include <algorithm>

#include "base/bytes.h"
#include "call/contract.h"
#include "call/policy/policy_expression.h"
#include "call/policy/words.h"

namespace uccp::call {
namespace {

class StatementParser {
 public:
  explicit StatementParser(std::string_view text) : lexer_(text) {}

  Result<std::vector<Statement>> parse() {
    std::vector<Statement> all;
    for (;;) {
      UCCP_TRY(const Token token, lexer_.next());
      if (token.kind == Token::Kind::kEnd) break;
      if (all.size() >= kStatementsMax) {
        return policy_error(token.at, "a policy has at most " + std::to_string(kStatementsMax) + " rules");
      }
      UCCP_TRY(Statement statement, this->statement(token));
      all.push_back(std::move(statement));
    }
    if (all.empty()) return policy_error({}, "there is no rule; one begins with 'permit' or 'forbid'");
    return all;
  }

 private:
  Status expect(std::string_view sign) {
    UCCP_TRY(const Token token, lexer_.next());
    if (token.is(sign)) return Status::ok();
    return policy_error(token.at, "'" + std::string(sign) + "' belongs here, not " + token.shown()).error();
  }
  Result<bool> take(std::string_view sign) {
    UCCP_TRY(const Token token, lexer_.peek());
    if (!token.is(sign)) return false;
    UCCP_RETURN_IF_ERROR(lexer_.next());
    return true;
  }
  Result<std::string> string() {
    UCCP_TRY(Token token, lexer_.next());
    if (token.kind != Token::Kind::kString)
      return policy_error(token.at, "a string belongs here, not " + token.shown());
    if (token.text.empty()) return policy_error(token.at, "an empty string matches nothing; leave the clause out");
    return std::move(token.text);
  }

  Result<Statement> statement(const Token& first) {
    Statement out;
    out.line = first.at.line;
    if (first.is("forbid")) {
      out.effect = Effect::kForbid;
    } else if (!first.is("permit")) {
      return policy_error(first.at, "a rule begins with 'permit' or 'forbid', not with " + first.shown());
    }
    UCCP_RETURN_IF_ERROR(expect("("));
    UCCP_RETURN_IF_ERROR(principal(out));
    UCCP_RETURN_IF_ERROR(expect(","));
    UCCP_RETURN_IF_ERROR(action(out));
    UCCP_RETURN_IF_ERROR(expect(","));
    UCCP_RETURN_IF_ERROR(resource(out));
    UCCP_RETURN_IF_ERROR(expect(")"));
    for (;;) {
      UCCP_TRY(const Token token, lexer_.next());
      if (token.is(";")) return out;
      auto& condition = token.is("when") ? out.when : out.unless;
      if (!token.is("when") && !token.is("unless")) {
        return policy_error(token.at, "'when', 'unless' or ';' belongs here, not " + token.shown());
      }
      if (condition)
        return policy_error(token.at, "a rule has one 'when' and one 'unless'; join conditions with && or ||");
      UCCP_TRY(Expression expression, parse_condition(lexer_, out.methods));
      condition = std::make_shared<const Expression>(std::move(expression));
    }
  }

  Status principal(Statement& out) {
    UCCP_RETURN_IF_ERROR(expect("principal"));
    UCCP_TRY(const bool equals, take("=="));
    if (equals) {
      UCCP_TRY(out.principal, string());
      return Status::ok();
    }
    UCCP_TRY(const bool in, take("in"));
    if (in) {
      UCCP_RETURN_IF_ERROR(expect("group"));
      UCCP_TRY(out.group, string());
      return Status::ok();
    }
    UCCP_TRY(const bool is, take("is"));
    if (!is) return Status::ok();
    UCCP_TRY(const Token token, lexer_.next());
    if (token.is("user") || token.is("service") || token.is("agent")) {
      out.kind = token.text;
      return Status::ok();
    }
    return policy_error(token.at, "a principal is 'user', 'service' or 'agent', not " + token.shown()).error();
  }

  Status action(Statement& out) {
    UCCP_RETURN_IF_ERROR(expect("action"));
    UCCP_TRY(const bool equals, take("=="));
    if (equals) return method(out);
    UCCP_TRY(const bool in, take("in"));
    if (!in) return Status::ok();
    UCCP_TRY(const bool by_permission, take("permission"));
    if (by_permission) return permission(out);
    UCCP_RETURN_IF_ERROR(expect("["));
    for (;;) {
      UCCP_RETURN_IF_ERROR(method(out));
      UCCP_TRY(const Token token, lexer_.next());
      if (token.is("]")) return Status::ok();
      if (!token.is(",")) return policy_error(token.at, "',' or ']' belongs here, not " + token.shown()).error();
    }
  }

  Status method(Statement& out) {
    UCCP_TRY(const Token at, lexer_.peek());
    UCCP_TRY(const std::string name, string());
    const auto methods = Contract::get().methods();
    out.methods.resize(methods.size());
    size_t found = 0;
    std::vector<std::string> known;
    for (const Method& m : methods) {
      known.push_back(m.name);
      if (m.name != name && m.full_name != name) continue;
      out.methods[m.index] = true;
      ++found;
    }
    if (found == 1) return Status::ok();
    if (found > 1) {
      return policy_error(at.at, "several services have a method '" + name + "'; write it in full: " + full_names(name))
          .error();
    }
    const std::string near = nearest_word(name, known);
    return policy_error(at.at, "there is no method '" + name.substr(0, 80) + "'" +
                                   (near.empty() ? "; `uccp-cli api` lists them" : "; did you mean '" + near + "'?"))
        .error();
  }

  static std::string full_names(const std::string& name) {
    std::string out;
    for (const Method& m : Contract::get().methods()) {
      if (m.name == name) out += (out.empty() ? "" : " or ") + m.full_name;
    }
    return out;
  }

  Status permission(Statement& out) {
    UCCP_TRY(const Token at, lexer_.peek());
    UCCP_TRY(const std::string grant, string());
    const auto methods = Contract::get().methods();
    out.methods.resize(methods.size());
    bool any = false;
    for (const Method& m : methods) {
      if (m.is_public || !grant_covers(grant, m.permission)) continue;
      out.methods[m.index] = any = true;
    }
    if (any) return Status::ok();
    const std::string near = PermissionTable::get().nearest(grant);
    return policy_error(at.at, "no method needs the permission '" + grant.substr(0, 80) + "'" +
                                   (near.empty() ? "" : "; did you mean '" + near + "'?"))
        .error();
  }

  Status resource(Statement& out) {
    UCCP_RETURN_IF_ERROR(expect("resource"));
    UCCP_TRY(const bool equals, take("=="));
    UCCP_TRY(const bool like, equals ? Result<bool>(false) : take("like"));
    if (equals || like) {
      UCCP_TRY(const Token at, lexer_.peek());
      UCCP_TRY(out.resource, string());
      if (equals && out.resource.find('*') != std::string::npos) {
        return policy_error(at.at, "a name with '*' is a pattern: resource like \"" + out.resource.substr(0, 40) + "\"")
            .error();
      }
    }
    UCCP_TRY(const bool in, take("in"));
    if (!in) return Status::ok();
    UCCP_RETURN_IF_ERROR(expect("namespace"));
    UCCP_TRY(out.name_space, string());
    return Status::ok();
  }

  Lexer lexer_;
};

}  // namespace

std::string_view Statement::obstacle(const AccessQuery& query) const {
  if (!covers(*query.method)) return "it is about other methods";
  if (!principal.empty() && principal != query.principal.name) return "it is about another principal";
  if (!group.empty() && std::ranges::find(query.principal.groups, group) == query.principal.groups.end()) {
    return "the principal is not in its group";
  }
  if (!kind.empty() && kind != kind_name(query.principal.kind)) return "it is about another kind of principal";
  if (!name_space.empty() && name_space != query.name_space) return "it is about another namespace";
  if (!resource.empty() && !glob_matches(resource, query.resource)) return "it is about other resources";
  if (when && !when->holds(query)) return "its condition does not hold";
  if (unless && unless->holds(query)) return "its exception holds";
  return {};
}

bool Statement::applies(const AccessQuery& query) const { return obstacle(query).empty(); }

Result<std::vector<Statement>> compile_policy(std::string_view text) {
  if (text.size() > kPolicyBytesMax) {
    return policy_error({}, "the text has more than " + std::to_string(kPolicyBytesMax) + " bytes");
  }
  if (!is_utf8(text)) return policy_error({}, "the text is not UTF-8");
  return StatementParser(text).parse();
}

std::string_view kind_name(Principal::Kind kind) {
  static constexpr std::string_view kNames[] = {"anonymous", "user", "service", "agent", "node"};
  return kNames[static_cast<size_t>(kind)];
}

std::string_view credential_name(Principal::Credential how) {
  static constexpr std::string_view kNames[] = {"", "certificate", "token", "apikey", "oidc"};
  return kNames[static_cast<size_t>(how)];
}

}  // namespace uccp::call
