// Results, references, intrusive lists and the kernel log.
#include <unistd.h>

#include <catch2/catch.hpp>

#include "base/host_process.hpp"
#include "base/list.hpp"
#include "base/log.hpp"
#include "base/rate_limit.hpp"
#include "base/ref.hpp"
#include "base/result.hpp"
#include "base/unique_fd.hpp"

using namespace cowbird;

namespace {

struct Counted : RefCounted<Counted> {
  explicit Counted(int &d) : deaths(d) {}
  ~Counted() { ++deaths; }
  int &deaths;
};

struct Element {
  int value;
  ListNode link;
  explicit Element(int v) : value(v) {}
};

Result<int> half(int n) {
  if (n % 2) return Err(Errno::Inval);
  return n / 2;
}

Result<int> quarter(int n) { return TRY(half(TRY(half(n)))); }

Result<void> check_even(int n) {
  TRY(half(n));
  return {};
}

}  // namespace

TEST_CASE("TRY unwraps a value and passes an error on") {
  CHECK(*quarter(8) == 2);
  CHECK(quarter(6).is(Errno::Inval));
  CHECK(check_even(2));
  CHECK(check_even(3).is(Errno::Inval));
}

TEST_CASE("a result owns its value") {
  int deaths = 0;
  {
    Result<Ref<Counted>> a = make_ref<Counted>(deaths);
    Result<Ref<Counted>> b = std::move(a);
    CHECK((*b)->ref_count() == 1);
    b = Err(Errno::Io);
    CHECK(deaths == 1);
  }
  CHECK(deaths == 1);
}

TEST_CASE("host errors translate by number, unknown ones become EIO") {
  CHECK(errno_from_host(2) == Errno::NoEnt);
  CHECK(errno_from_host(9999) == Errno::Io);
  CHECK(errno_from_host(512) == Errno::Io);
  CHECK(errno_name(Errno::NotEmpty) == "ENOTEMPTY");
}

TEST_CASE("an intrusive list keeps order and elements unlink themselves") {
  List<Element, &Element::link> list;
  Element a(1), c(3);
  {
    Element b(2);
    list.push_back(a);
    list.push_back(b);
    list.push_back(c);
    CHECK(list.size() == 3);
  }
  CHECK(list.size() == 2);
  CHECK(list.pop_front() == &a);
  CHECK(list.back() == &c);
  list.push_front(a);
  CHECK(list.front() == &a);
}

TEST_CASE("the log keeps lines in order, splits at newlines and drops the oldest") {
  const auto first = log_next_sequence();
  log_info("one {}", 1);
  log_err("two\nthree");
  CHECK(log_read(first)->text == "one 1");
  CHECK(log_read(first + 2)->text == "three");
  CHECK(log_read(first + 2)->level == LogLevel::Err);
  CHECK_FALSE(log_read(first + 3));
  for (int i = 0; i < 5000; ++i) log_debug("fill {}", i);
  CHECK(log_first_sequence() > first);
  CHECK(log_read(0)->sequence == log_first_sequence());
  CHECK(log_tail(2)[1].text == "fill 4999");
}

TEST_CASE("messages that a guest provokes are limited, and what is left out is counted") {
  RateLimit limit(3, 1000);
  for (int i = 0; i < 3; ++i) CHECK(limit.pass(5) == 0u);
  for (int i = 0; i < 7; ++i) CHECK_FALSE(limit.pass(10));
  CHECK(limit.pass(1001) == 7u);
  CHECK_FALSE(limit.pass(1002));
  // A long silence gives no more than the burst.
  CHECK(limit.pass(1'000'000) == 1u);
  for (int i = 0; i < 2; ++i) CHECK(limit.pass(1'000'000) == 0u);
  CHECK_FALSE(limit.pass(1'000'000));
}

TEST_CASE("what the host says about a process") {
  CHECK(host_process_status(::getpid(), "Pid") == static_cast<std::uint64_t>(::getpid()));
  CHECK(host_process_status(::getpid(), "VmRSS").value_or(0) > 0);
  CHECK_FALSE(host_process_status(::getpid(), "Vm"));    // the beginning of a key is none
  CHECK_FALSE(host_process_status(::getpid(), "Name"));  // no number
  CHECK_FALSE(host_process_status(0, "Pid"));
  CHECK(host_process_tracer(0) == 0);
}

TEST_CASE("the first line of a child") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  UniqueFd reader(ends[0]), writer(ends[1]);
  CHECK(read_first_line(reader.get(), 0).empty());
  REQUIRE(::write(writer.get(), "half", 4) == 4);
  CHECK(read_first_line(reader.get(), 0) == "half");
  REQUIRE(::write(writer.get(), "one\ntwo\n", 8) == 8);
  CHECK(read_first_line(reader.get(), -1) == "one");
  const std::string endless(5000, 'x');
  REQUIRE(::write(writer.get(), endless.data(), endless.size()) == 5000);
  CHECK(read_first_line(reader.get(), -1).size() == 4096);
  CHECK(read_first_line(reader.get(), 0).size() == 904);
  writer.reset();
  CHECK(read_first_line(reader.get(), -1).empty());
}

TEST_CASE("words for execve") {
  std::vector<std::string> words = {"a", "", "b c"};
  const auto argv = exec_pointers(words);
  REQUIRE(argv.size() == 4);
  CHECK(std::string(argv[2]) == "b c");
  CHECK(argv[1] == words[1].data());
  CHECK(argv[3] == nullptr);
}
