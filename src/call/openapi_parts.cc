#include "call/openapi_parts.h"

#include <array>
#include <string>

namespace uccp::call {
namespace {

constexpr auto kErrors = std::to_array<ErrorAnswer>({
    {400, "Invalid", "The request can never succeed as it is; `fields` says what is wrong with it."},
    {401, "Unauthenticated", "No valid credentials."},
    {403, "Forbidden", "The caller lacks the permission, or has no access to the namespace."},
    {404, "NotFound", "There is no such resource."},
    {409, "Conflict", "It exists already, changed meanwhile, or the idempotency key was used for another request."},
    {412, "PreconditionFailed",
     "`If-Match` is not the etag in force, or the system is not in the state that the request needs."},
    {413, "TooLarge", "The request body is larger than 4 MiB, before or after decompression."},
    {415, "MediaTypeUnsupported", "The content type or encoding of the request body is not taken."},
    {429, "Exhausted", "A rate, quota or limit is reached; retry after the time given."},
    {431, "HeaderTooLarge", "Path, query and headers have more than 16 KiB together."},
    {499, "Cancelled", "The call was cancelled."},
    {500, "Internal", "A defect of the server, or damaged data."},
    {501, "Unimplemented", "This route is part of the contract and not built yet."},
    {503, "Unavailable", "Not possible just now and nothing was done; retry."},
    {504, "DeadlineOrUnknown",
     "The deadline passed. With the reason OUTCOME_UNKNOWN the change may have happened: repeat it with the same "
     "idempotency key."},
});

struct Parameter {
  std::string_view component, name, in, description, schema;
};
constexpr auto kParameters = std::to_array<Parameter>({
    {"Pretty", "pretty", "query", "True: the answer is indented.", R"({"type":"boolean","default":false})"},
    {"DryRun", "dryRun", "query",
     "True: check the change and do not make it. Where there is `validateOnly` it is the same, and checked against the "
     "state; elsewhere credentials, permission and the request itself are checked.",
     R"({"type":"boolean","default":false})"},
    {"Consistency", "consistency", "query",
     "How fresh a read has to be: `linearizable`, `lease`, `bounded:MS` or `session:TOKEN` with the token of a former "
     "`Uccp-Session`.",
     R"({"type":"string","pattern":"^(linearizable|lease|bounded:[0-9]{1,7}|session:.+)$"})"},
    {"Namespace", "namespace", "query", "Namespace of the resource, where the body names none.",
     R"({"type":"string","pattern":"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"})"},
    {"RequestId", "X-Request-Id", "header",
     "Id of this call for logs; comes back with the answer. One is made when there is none.",
     R"({"type":"string","pattern":"^[!#-\\[\\]-~]{1,128}$"})"},
    {"IdempotencyKey", "Idempotency-Key", "header",
     "Deduplication key: a repeat with the same key and content answers the first result. Stands for `requestId`.",
     R"({"type":"string","pattern":"^[!-~]{1,128}$"})"},
    {"IfMatch", "If-Match", "header", "Change only what still has this entity tag. Stands for `ifMatch`.",
     R"({"type":"string","pattern":"^\"[!#-~]{1,64}\"$"})"},
    {"IfNoneMatch", "If-None-Match", "header", "Answer 304 without a body if the resource still has this entity tag.",
     R"({"type":"string","pattern":"^\"[!#-~]{1,64}\"$"})"},
    {"LastEventId", "Last-Event-ID", "header", "Cursor of the last item seen: the stream goes on behind it.",
     R"({"type":"string","pattern":"^[!-~]{1,255}$"})"},
});

struct Header {
  std::string_view component, description, schema;
};
constexpr auto kHeaders = std::to_array<Header>({
    {"X-Request-Id", "Id of the call, for logs.", R"({"type":"string"})"},
    {"ETag", "Version of the resource, for `If-Match` and `If-None-Match`.", R"({"type":"string"})"},
    {"Location", "Path of the resource that was created.", R"({"type":"string"})"},
    {"Link", "The next page, with rel=\"next\"; absent on the last one.", R"({"type":"string"})"},
    {"Uccp-Session", "Token for reads that have to see this change: `consistency=session:TOKEN`.",
     R"({"type":"string"})"},
    {"Retry-After", "Seconds after which a retry makes sense.", R"({"type":"integer","minimum":0})"},
    {"WWW-Authenticate", "Kinds of credentials that are taken.", R"({"type":"string"})"},
    {"RateLimit-Limit", "Calls of this class that the caller may make in a second; absent: not limited.",
     R"({"type":"integer","minimum":0})"},
});

constexpr std::string_view kBatchPath =
    R"({"post":{"tags":["Batch"],"operationId":"Batch","summary":"Runs several calls, one after the other","description":"Each call passes all checks of its own and has its own status; they are not one transaction. Streams and batches cannot be in a batch. The credentials are those of the batch.","security":[{"bearer":[]},{"clientCertificate":[]}],"parameters":[{"$ref":"#/components/parameters/RequestId"}],"requestBody":{"required":true,"content":{"application/json":{"schema":{"type":"object","required":["requests"],"additionalProperties":false,"properties":{"requests":{"type":"array","minItems":1,"maxItems":100,"items":{"type":"object","required":["method","path"],"additionalProperties":false,"properties":{"method":{"type":"string","enum":["GET","POST","PUT","PATCH","DELETE"]},"path":{"type":"string","description":"With its query.","pattern":"^/api/v1/[!-~]*$","maxLength":8192},"headers":{"type":"object","description":"`Idempotency-Key`, `If-Match`, `If-None-Match`, `Uccp-Consistency`, `X-Request-Id`.","additionalProperties":{"type":"string"}},"body":{"description":"JSON, as the path takes it.","type":"object"}}}}}}}}},"responses":{"200":{"description":"The answers, in the order of the requests.","content":{"application/json":{"schema":{"type":"object","required":["responses"],"properties":{"responses":{"type":"array","items":{"type":"object","required":["status","headers"],"properties":{"status":{"type":"integer"},"headers":{"type":"object","additionalProperties":{"type":"string"}},"body":{"description":"Absent when there is none."}}}}}}}}})";

void own_get(JsonWriter& json, std::string_view path, std::string_view id, std::string_view summary, bool is_public,
             std::initializer_list<int> errors, bool may_fail) {
  json.key(path).begin_object().key("get").begin_object();
  json.key("tags").begin_array().value("Node").end_array();
  json.key("operationId").value(id).key("summary").value(summary);
  if (is_public) json.key("security").begin_array().end_array();
  json.key("responses").begin_object();
  const auto document = [&](std::string_view status, std::string_view what) {
    json.key(status).begin_object().key("description").value(what).key("content").begin_object();
    json.key("application/json").begin_object().key("schema").begin_object().key("type").value("object").end_object();
    json.end_object().end_object().end_object();
  };
  document("200", may_fail ? "It works." : "The document.");
  for (const int status : errors) put_error(json, status);
  if (may_fail) {
    json.key("503")
        .begin_object()
        .key("description")
        .value("It does not work, or the call was refused.")
        .key("content")
        .begin_object();
    json.key("application/json")
        .begin_object()
        .key("schema")
        .begin_object()
        .key("type")
        .value("object")
        .end_object()
        .end_object();
    json.key("application/problem+json").begin_object().key("schema").begin_object();
    json.key("$ref").value("#/components/schemas/Problem").end_object().end_object();
    json.end_object().end_object();
  }
  json.end_object().end_object().end_object();
}

}  // namespace

std::span<const ErrorAnswer> error_answers() { return kErrors; }

void put_error(JsonWriter& json, int status) {
  for (const ErrorAnswer& answer : kErrors) {
    if (answer.status != status) continue;
    json.key(std::to_string(status)).begin_object();
    json.key("$ref").value("#/components/responses/" + std::string(answer.name)).end_object();
  }
}

void put_parameter_reference(JsonWriter& json, std::string_view name) {
  json.begin_object().key("$ref").value("#/components/parameters/" + std::string(name)).end_object();
}

void put_header_reference(JsonWriter& json, std::string_view name) {
  json.key(name).begin_object().key("$ref").value("#/components/headers/" + std::string(name)).end_object();
}

void put_shared_components(JsonWriter& json, OpenApiLevel level) {
  json.key("responses").begin_object();
  for (const ErrorAnswer& answer : kErrors) {
    json.key(answer.name).begin_object().key("description").value(answer.description);
    json.key("headers").begin_object();
    put_header_reference(json, "X-Request-Id");
    if (answer.status == 401) put_header_reference(json, "WWW-Authenticate");
    if (answer.status == 429 || answer.status == 503) put_header_reference(json, "Retry-After");
    json.end_object();
    json.key("content").begin_object().key("application/problem+json").begin_object().key("schema").begin_object();
    json.key("$ref").value("#/components/schemas/Problem").end_object().end_object().end_object().end_object();
  }
  json.end_object().key("parameters").begin_object();
  for (const Parameter& parameter : kParameters) {
    json.key(parameter.component).begin_object().key("name").value(parameter.name).key("in").value(parameter.in);
    json.key("description").value(parameter.description).key("schema").raw(parameter.schema).end_object();
  }
  json.end_object().key("headers").begin_object();
  for (const Header& header : kHeaders) {
    json.key(header.component).begin_object().key("description").value(header.description);
    json.key("schema").raw(header.schema).end_object();
  }
  json.end_object().key("securitySchemes").begin_object();
  json.key("bearer")
      .begin_object()
      .key("type")
      .value("http")
      .key("scheme")
      .value("bearer")
      .key("bearerFormat")
      .value("JWT");
  json.key("description")
      .value("A token of the cluster: `Authorization: Bearer TOKEN`. `uccp dev` prints where it keeps one.")
      .end_object();
  json.key("clientCertificate").begin_object();
  if (level == OpenApiLevel::k31) {
    json.key("type").value("mutualTLS").key("description").value("A client certificate of the cluster's authority.");
  } else {
    // 3.0 has no word for it.
    json.key("type").value("apiKey").key("in").value("header").key("name").value("X-Client-Certificate");
    json.key("description")
        .value(
            "A client certificate of the cluster's authority, shown in the TLS handshake (mutualTLS in "
            "OpenAPI 3.1). The header named here is not read.");
  }
  json.end_object().end_object();
}

void put_problem_schema(JsonWriter& json) {
  json.key("Problem").raw(
      R"({"type":"object","description":"An error, RFC 9457. `reason` is stable: programs compare it.","required":["type","title","status","detail","code","reason"],"properties":{"type":{"type":"string"},"title":{"type":"string"},"status":{"type":"integer"},"detail":{"type":"string","description":"What was tried, what was seen and what to do, for people."},"code":{"type":"string","description":"Class of the error: invalid, not_found, ..."},"reason":{"type":"string","example":"SERVICE_NOT_FOUND"},"fields":{"type":"array","items":{"type":"object","required":["field","description"],"properties":{"field":{"type":"string"},"description":{"type":"string"},"example":{"type":"string"}}}},"retryAfterMs":{"type":"integer","minimum":0},"resource":{"type":"object","properties":{"type":{"type":"string"},"name":{"type":"string"}}},"help":{"type":"string","description":"Page below docs/."},"leaderHint":{"type":"string"},"callId":{"type":"string"}}})");
}

void put_own_paths(JsonWriter& json) {
  JsonWriter errors;
  errors.begin_object();
  for (const int status : {400, 401, 413, 415, 429, 431, 500, 503}) put_error(errors, status);
  std::string list = errors.end_object().take();
  // The path's responses are still open: the errors follow the success.
  json.key("/api/v1/batch").raw(std::string(kBatchPath) + "," + list.substr(1) + "}}");
  own_get(json, "/health", "Health", "Whether the node works", true, {431}, true);
  own_get(json, "/health/live", "HealthLive", "Whether the process should go on", true, {431}, true);
  own_get(json, "/health/ready", "HealthReady", "Whether the node takes calls", true, {431}, true);
  own_get(json, "/health/startup", "HealthStartup", "Whether the node has started", true, {431}, true);
  for (const auto& [path, id, summary] : {std::array{"/health/detailed", "HealthDetailed", "All parts of the node"},
                                          {"/health/raft", "HealthRaft", "The replication groups"},
                                          {"/health/storage", "HealthStorage", "The storage"},
                                          {"/health/cache", "HealthCache", "The caches"}}) {
    own_get(json, path, id, summary, false, {401, 403, 429, 431, 500, 504}, true);
  }
  own_get(json, "/openapi.json", "OpenApi", "This document", true, {431, 503}, false);
  own_get(json, "/openapi-3.0.json", "OpenApi30", "This document as OpenAPI 3.0", true, {431, 503}, false);
}

}  // namespace uccp::call
