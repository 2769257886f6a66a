// Signatures of requests to S3 (AWS Signature Version 4), and what is said in its answers.
//
// Pure functions; callable from any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace uccp::shm {

struct S3Request {
  std::string method;
  std::string host;                            // with the port, as it is sent
  std::string path;                            // encoded, begins with /
  std::map<std::string, std::string> query;    // not encoded
  std::string body_sha256;                     // hexadecimal
  std::map<std::string, std::string> headers;  // further ones, names in lower case
};

struct S3Keys {
  std::string access, secret, region;
  std::string service = "s3";
};

// What is left as it is in a URL: letters, digits, - . _ ~ and, in paths, /.
std::string url_encoded(std::string_view text, bool is_path);
// The query of the request, sorted and encoded.
std::string query_of(const S3Request& request);
// All headers that the request is to be sent with, Host apart.
std::vector<std::pair<std::string, std::string>> signed_headers(const S3Request& request, const S3Keys& keys,
                                                                WallTime now);

// Keys in the answer to a list of objects. Errors: corruption S3_ANSWER_INVALID.
Result<std::vector<std::string>> listed_keys(std::string_view xml);
// Code and message of an error; empty if there are none.
struct S3Error {
  std::string code, message;
};
S3Error error_in(std::string_view xml);

}  // namespace uccp::shm
