#include "doors/rest/api_pages.h"

#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "call/contract_docs.h"
#include "call/openapi.h"
#include "doors/rest/contract_image.h"
#include "doors/rest/problem.h"

namespace uccp::doors {
namespace {

// Nothing from elsewhere, no inline script. Redoc makes its style sheets while it runs.
constexpr std::string_view kStrict =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
constexpr std::string_view kRedoc =
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src "
    "'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct File {
  std::string_view path, file, type, policy;
};
constexpr auto kFiles = std::to_array<File>({
    {"/docs", "swagger.html", "text/html; charset=utf-8", kStrict},
    {"/docs/redoc", "redoc.html", "text/html; charset=utf-8", kRedoc},
    {"/docs/swagger-init.js", "swagger-init.js", "text/javascript; charset=utf-8", {}},
    {"/docs/redoc-init.js", "redoc-init.js", "text/javascript; charset=utf-8", {}},
    {"/docs/swagger-ui.css", "swagger-ui.css", "text/css; charset=utf-8", {}},
    {"/docs/swagger-ui-bundle.js", "swagger-ui-bundle.js", "text/javascript; charset=utf-8", {}},
    {"/docs/redoc.standalone.js", "redoc.standalone.js", "text/javascript; charset=utf-8", {}},
    {"/docs/favicon-32x32.png", "favicon-32x32.png", "image/png", {}},
});

std::string folder_of_program() {
  char path[4096];
  const ssize_t size = ::readlink("/proc/self/exe", path, sizeof path);
  const std::string whole(path, size > 0 ? static_cast<size_t>(size) : 0);
  return whole.substr(0, whole.rfind('/'));
}

std::string read_whole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

ApiPages::ApiPages(const ApiPagesOptions& options) {
  const auto docs = call::ContractDocs::parse(contract_image());
  if (!docs) log::warn("the document has no comments", {{"reason", docs.error().message()}});
  call::OpenApiOptions openapi;
  openapi.version = options.version;
  if (options.handlers != nullptr) {
    openapi.is_built = [handlers = options.handlers](const call::Method& method) {
      return handlers->find(&method) != nullptr;
    };
  }
  const call::ContractDocs none;
  for (const auto& [path, level] :
       {std::pair{"/openapi.json", call::OpenApiLevel::k31}, {"/openapi-3.0.json", call::OpenApiLevel::k30}}) {
    openapi.level = level;
    add(path, "application/json", {}, call::openapi_json(call::Contract::get(), docs ? *docs : none, openapi));
  }
  const std::string directory =
      options.directory.empty() ? folder_of_program() + "/../share/apidocs" : options.directory;
  for (const File& file : kFiles) {
    std::string body = read_whole(directory + "/" + std::string(file.file));
    if (!body.empty()) add(std::string(file.path), std::string(file.type), std::string(file.policy), std::move(body));
  }
}

void ApiPages::add(std::string path, std::string type, std::string policy, std::string body) {
  Page page{std::move(type), std::move(policy), "\"" + to_hex(ByteWriter().u64(hash64(body)).data()) + "\"",
            std::move(body)};
  pages_.emplace(std::move(path), std::move(page));
}

bool ApiPages::has(std::string_view path) {
  return path == "/openapi.json" || path == "/openapi-3.0.json" || path == "/docs" || path.starts_with("/docs/");
}

HttpResponse ApiPages::answer(const HttpRequest& request, const std::string& call_id) const {
  std::string_view path = request.path;
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const auto at = pages_.find(path);
  if (at == pages_.end()) {
    return problem_response(
        Status(Code::kNotFound, "PAGE_NOT_FOUND",
               "there is no page " + std::string(path.substr(0, 200)) +
                   " here; /docs and /docs/redoc need `tools/setup test` and a build, /openapi.json is always there"),
        call_id);
  }
  if (request.verb != "GET" && request.verb != "HEAD") {
    HttpResponse response =
        problem_response(Status(Code::kInvalid, "METHOD_NOT_ALLOWED", std::string(path) + " takes GET"), call_id);
    response.headers.emplace_back("Allow", "GET, HEAD");
    return response;
  }
  const Page& page = at->second;
  HttpResponse response;
  response.headers = {{"Cache-Control", "no-cache"}, {"ETag", page.etag}, {"X-Request-Id", call_id}};
  if (request.header("if-none-match").find(page.etag) != std::string_view::npos) {
    response.status = 304;
    return response;
  }
  response.headers.emplace_back("Content-Type", page.type);
  response.headers.emplace_back("X-Content-Type-Options", "nosniff");
  response.headers.emplace_back("Referrer-Policy", "no-referrer");
  if (!page.policy.empty()) response.headers.emplace_back("Content-Security-Policy", page.policy);
  response.body = page.body;
  return response;
}

}  // namespace uccp::doors
