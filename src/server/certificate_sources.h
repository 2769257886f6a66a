// Where the certificates of a node come from while it runs.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/dev_pki.h"

namespace uccp::server {

struct CertificateSources {
  runtime::DevPkiOptions pki;  // directory, names, life of what is issued
  std::string node_name;       // "n1"
  bool has_peers = false;      // shows the node's certificate to others
  // Files that somebody else keeps; empty: the own authority.
  std::string certificate_file, key_file, authority_file, crl_file;
  std::string client_pins;  // as parse_pins() takes them; empty: any key of a client counts
  int64_t alert_before_s = 14 * 24 * 3600;
};

class Config;
// What the configuration says of them. `pki` as it is used at the start.
CertificateSources certificate_sources(const Config& config, const runtime::DevPkiOptions& pki);

}  // namespace uccp::server
