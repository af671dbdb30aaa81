// The examples are valid machine files for our own plugins.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>

#include "machine/machine_file.hpp"

using namespace cowbird;

TEST_CASE("every example is valid") {
  ::setenv("COWBIRD_PLUGIN_PATH", OWN_PLUGIN_DIR, 1);
  int count = 0;
  for (const auto &entry : std::filesystem::directory_iterator(EXAMPLES_DIR)) {
    if (entry.path().extension() != ".toml") continue;
    CAPTURE(entry.path());
    RegistryCatalog plugins;
    const auto loaded = load_machine_file(entry.path(), {}, plugins);
    for (const auto &error : loaded.errors) UNSCOPED_INFO(error.text());
    CHECK(loaded.config);
    ++count;
  }
  CHECK(count >= 2);
}

TEST_CASE("a missing plugin is an error at its place") {
  ::setenv("COWBIRD_PLUGIN_PATH", OWN_PLUGIN_DIR, 1);
  RegistryCatalog plugins;
  const auto loaded = parse_machine("[[block]]\nname = \"ubd0\"\nplugin = \"fiel\"\npath = \"x\"\n",
                                    "m.toml", "/", {}, plugins);
  REQUIRE(loaded.errors.size() == 1);
  CHECK(loaded.errors[0].where == "m.toml:3:10");
  CHECK(loaded.errors[0].message.starts_with(
      "There is no block backend plugin \"fiel\". Did you mean \"file\"?"));
}
