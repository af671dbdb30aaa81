// Result<T>: a value or an Errno. All kernel functions that can fail return one; no exception
// crosses kernel code. TRY(expr) unwraps a result or returns its error from the enclosing function.
// Anyone may include this header.
#pragma once

#include <cassert>
#include <new>
#include <type_traits>
#include <utility>

#include "base/errno.hpp"

namespace cowbird {

// An error on its way into a Result of any type: `return Err(Errno::Inval);`
struct Err {
  explicit constexpr Err(Errno e) : code(e) {}
  Errno code;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : ok_(true) { new (&value_) T(std::move(value)); }  // NOLINT: implicit on purpose
  template <typename U>
  requires(std::is_convertible_v<U &&, T> && !std::is_same_v<std::remove_cvref_t<U>, T> &&
           !std::is_same_v<std::remove_cvref_t<U>, Result<T>> &&
           !std::is_same_v<std::remove_cvref_t<U>, Err>) Result(U &&value)
      : ok_(true) {  // NOLINT: implicit on purpose
    new (&value_) T(std::forward<U>(value));
  }
  Result(Err err) : ok_(false), error_(err.code) {}  // NOLINT: implicit on purpose
  Result(Result &&other) noexcept : ok_(other.ok_), error_(other.error_) {
    if (ok_) new (&value_) T(std::move(other.value_));
  }
  Result(const Result &other) requires std::is_copy_constructible_v<T> : ok_(other.ok_),
                                                                         error_(other.error_) {
    if (ok_) new (&value_) T(other.value_);
  }
  Result &operator=(Result &&other) noexcept {
    if (this == &other) return *this;
    if (ok_) value_.~T();
    ok_ = other.ok_;
    error_ = other.error_;
    if (ok_) new (&value_) T(std::move(other.value_));
    return *this;
  }
  Result &operator=(const Result &) = delete;
  ~Result() {
    if (ok_) value_.~T();
  }

  explicit operator bool() const { return ok_; }
  bool ok() const { return ok_; }
  Errno error() const {
    assert(!ok_);
    return error_;
  }
  bool is(Errno e) const { return !ok_ && error_ == e; }

  T &value() & {
    assert(ok_);
    return value_;
  }
  const T &value() const & {
    assert(ok_);
    return value_;
  }
  T &&value() && {
    assert(ok_);
    return std::move(value_);
  }
  T &operator*() & { return value(); }
  const T &operator*() const & { return value(); }
  T &&operator*() && { return std::move(*this).value(); }
  T *operator->() { return &value(); }
  const T *operator->() const { return &value(); }
  template <typename U>
  T value_or(U &&fallback) && {
    return ok_ ? std::move(value_) : static_cast<T>(std::forward<U>(fallback));
  }

 private:
  bool ok_;
  Errno error_{};
  union {
    T value_;
  };
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;

  Result() = default;
  Result(Err err) : ok_(false), error_(err.code) {}  // NOLINT: implicit on purpose
  explicit operator bool() const { return ok_; }
  bool ok() const { return ok_; }
  Errno error() const {
    assert(!ok_);
    return error_;
  }
  bool is(Errno e) const { return !ok_ && error_ == e; }
  void value() const { assert(ok_); }

 private:
  bool ok_ = true;
  Errno error_{};
};

// Unwraps a Result, or returns its error from the enclosing function (which returns a Result too).
#define TRY(expr) COWBIRD_TRY(expr, __COUNTER__)
#define COWBIRD_TRY(expr, n) COWBIRD_TRY_NAMED(expr, COWBIRD_TRY_NAME(n))
#define COWBIRD_TRY_NAME(n) cowbird_try_##n
#define COWBIRD_TRY_NAMED(expr, name)      \
  __extension__({                          \
    auto &&name = (expr);                  \
    if (!name) [[unlikely]]                \
      return ::cowbird::Err(name.error()); \
    std::move(name).value();               \
  })

}  // namespace cowbird
