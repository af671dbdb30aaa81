// The schema's helpers.
#include <catch2/catch.hpp>

#include "machine/schema.hpp"

TEST_CASE("the nearest name") {
  using cowbird::nearest_name;
  const std::vector<std::string> names{"memory", "name", "vcpus"};
  CHECK(nearest_name("memroy", names) == "memory");
  CHECK(nearest_name("Memory", names) == "memory");
  CHECK(nearest_name("vcpu", names) == "vcpus");
  CHECK(nearest_name("zzz", names) == std::nullopt);
  CHECK(nearest_name("", names) == std::nullopt);
  CHECK(nearest_name(std::string(5000, 'm'), names) == std::nullopt);
}
