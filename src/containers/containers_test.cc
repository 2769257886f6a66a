#include <gtest/gtest.h>
#include <simdjson.h>

#include <algorithm>

#include "containers/archive_reader.h"
#include "containers/bundle.h"
#include "containers/image_reference.h"
#include "containers/oci_documents.h"

namespace uccp::containers {
namespace {

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string descriptor(const std::string& more = "") {
  return R"({"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":")" + kDigest + R"(","size":7)" + more +
         "}";
}

std::string refusal(const Status& status) {
  EXPECT_EQ(status.reason(), "IMAGE_INVALID");
  return std::string(status.message());
}

TEST(OciDocuments, AnIndexNamesManifests) {
  const auto index = parse_index(R"({"schemaVersion":2,"manifests":[)" +
                                 descriptor(R"(,"annotations":{"org.opencontainers.image.ref.name":"1.2"},)"
                                            R"("platform":{"os":"linux","architecture":"amd64"})") +
                                 "]}");
  ASSERT_TRUE(index) << index.error().message();
  ASSERT_EQ(index->size(), 1u);
  EXPECT_EQ((*index)[0].name, "1.2");
  EXPECT_EQ((*index)[0].size, 7u);
  EXPECT_EQ((*index)[0].architecture, "amd64");
  EXPECT_EQ((*index)[0].path(), "blobs/sha256/" + std::string(64, 'a'));
  EXPECT_FALSE((*index)[0].is_index());
}

TEST(OciDocuments, WhatIsWrongIsSaid) {
  EXPECT_EQ(refusal(parse_index("[]").error()), "the image's index is not a JSON object");
  EXPECT_EQ(refusal(parse_index("{}").error()), "the image's index has no manifests");
  EXPECT_EQ(refusal(parse_manifest("{}").error()), "the image's manifest has no config");
  EXPECT_EQ(refusal(parse_index(R"({"manifests":[{"digest":"md5:1","size":1}]})").error()),
            "the image's index has the digest \"md5:1\", which is not sha256:HEX");
  // A digest becomes a path.
  EXPECT_EQ(refusal(parse_index(R"({"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]})").error()),
            "the image's index has the digest \"sha256:../../../etc/passwd\", which is not sha256:HEX");
  EXPECT_EQ(refusal(parse_index(R"({"manifests":[{"digest":")" + kDigest + R"("}]})").error()),
            "the image's index does not say the size of " + kDigest);
  EXPECT_EQ(refusal(parse_bundle_config("{}").error()), "the image's config.json has no root.path");
  std::string layers;
  for (size_t i = 0; i <= kLayersMax; ++i) layers += (i == 0 ? "" : ",") + descriptor();
  EXPECT_EQ(refusal(parse_manifest(R"({"config":)" + descriptor() + R"(,"layers":[)" + layers + "]}").error()),
            "the image's manifest has 129 layers; 128 are the most");
}

TEST(OciDocuments, AConfigurationSaysWhatIsRun) {
  const auto config = parse_image_config(R"({"config":{"Entrypoint":["a"],"Cmd":["b","c"],"Env":["X=1"]}})");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->entrypoint, std::vector<std::string>{"a"});
  EXPECT_EQ(config->command, (std::vector<std::string>{"b", "c"}));
  EXPECT_EQ(config->env, std::vector<std::string>{"X=1"});
  EXPECT_TRUE(parse_image_config("{}")) << "an image may say nothing";
}

TEST(ImageReferences, TransportsAndNames) {
  const auto archive = parse_image_reference("oci-archive:in/image.tar:1.0");
  ASSERT_TRUE(archive);
  EXPECT_EQ(archive->path, "in/image.tar");
  EXPECT_EQ(archive->tag, "1.0");
  EXPECT_FALSE(archive->from_worker);
  EXPECT_FALSE(parse_image_reference("oci:layout")->from_worker);
  EXPECT_TRUE(parse_image_reference("tools:2")->from_worker);
  for (const char* bad :
       {"", "oci:", "oci:/etc", "oci:../x", "a/../b", "./a", "a:", "docker://alpine", "docker:alpine"}) {
    const auto refused = parse_image_reference(bad);
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().reason(), "IMAGE_REFERENCE_INVALID");
  }
}

TEST(InnerPaths, StayInside) {
  EXPECT_EQ(inner_path("./a//b/"), "a/b");
  EXPECT_EQ(inner_path("/a"), "a");
  EXPECT_EQ(inner_path(""), "");
  EXPECT_EQ(inner_path("a/../b"), std::nullopt);
  EXPECT_EQ(inner_path(std::string(5000, 'a')), std::nullopt);
}

TEST(Bundles, TheTaskHasTheLastWordOnItsEnvironmentButForPath) {
  const std::vector<std::string> image = {"PATH=/image", "A=1", "B=1"}, task = {"PATH=/worker", "B=2", "broken"};
  EXPECT_EQ(container_environment(image, task, false), (std::vector<std::string>{"A=1", "B=2", "PATH=/image"}));
  EXPECT_EQ(container_environment(image, task, true), (std::vector<std::string>{"A=1", "B=2", "PATH=/worker"}));
}

TEST(Bundles, NoNetworkAndNoPrivilegesUnlessAskedFor) {
  BundleSpec spec{.arguments = {"a \"b\""}, .env = {"A=1"}, .working_directory = "/w", .root = "/r", .folder = "/f"};
  spec.private_folder = "/f/private";
  simdjson::dom::parser parser;
  const auto parse = [&] { return parser.parse(bundle_config(spec)).value(); };
  const auto namespaces = [&] {
    std::vector<std::string> types;
    for (const auto one : parse()["linux"]["namespaces"].get_array())
      types.emplace_back(one["type"].get_string().value());
    return types;
  };
  EXPECT_EQ(parse()["process"]["args"].at(0).get_string().value(), "a \"b\"");
  EXPECT_TRUE(parse()["process"]["noNewPrivileges"].get_bool().value());
  EXPECT_EQ(std::ranges::count(namespaces(), "network"), 1);
  EXPECT_FALSE(parse()["root"]["readonly"].get_bool().value());
  spec.host_network = spec.read_only = true;
  EXPECT_EQ(std::ranges::count(namespaces(), "network"), 0);
  EXPECT_TRUE(parse()["root"]["readonly"].get_bool().value());
}

}  // namespace
}  // namespace uccp::containers
