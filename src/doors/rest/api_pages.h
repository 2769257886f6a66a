// ApiPages: the OpenAPI document and the pages that show it. They need no credentials: the contract is public.
// Private to the REST door. Immutable after construction; any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "call/handler.h"
#include "doors/rest/http.h"

namespace uccp::doors {

struct ApiPagesOptions {
  std::string version;
  const call::HandlerTable* handlers = nullptr;  // null: all methods count as built
  std::string directory;  // of the pages' files; empty: ../share/apidocs beside the program's own folder
};

class ApiPages {
 public:
  explicit ApiPages(const ApiPagesOptions& options);

  // True for /openapi.json, /openapi-3.0.json, /docs and what is below it.
  static bool has(std::string_view path);
  // Requires has(request.path).
  HttpResponse answer(const HttpRequest& request, const std::string& call_id) const;

 private:
  struct Page {
    std::string type;
    std::string policy;  // Content-Security-Policy; empty: none
    std::string etag;
    std::string body;
  };
  void add(std::string path, std::string type, std::string policy, std::string body);

  std::map<std::string, Page, std::less<>> pages_;
};

}  // namespace uccp::doors
