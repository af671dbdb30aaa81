// Intrusive reference counting for kernel objects. Objects derive from RefCounted<T> and are held
// by Ref<T>. The count is atomic, so a reference may be dropped on any host thread; the object's
// destructor then runs there, and must not sleep. Anyone may include this header.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace cowbird {

template <typename T>
class RefCounted {
 public:
  RefCounted() = default;
  RefCounted(const RefCounted &) = delete;
  RefCounted &operator=(const RefCounted &) = delete;

  void ref() const { count_.fetch_add(1, std::memory_order_relaxed); }
  void unref() const {
    if (count_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete static_cast<const T *>(this);
  }
  std::uint32_t ref_count() const { return count_.load(std::memory_order_relaxed); }

 protected:
  ~RefCounted() = default;

 private:
  mutable std::atomic<std::uint32_t> count_{1};
};

// Owns one reference. Ref<T>::adopt(new T) takes over the first one; Ref<T>(pointer) adds one.
template <typename T>
class Ref {
 public:
  Ref() = default;
  Ref(std::nullptr_t) {}  // NOLINT: implicit on purpose
  explicit Ref(T *object) : object_(object) {
    if (object_) object_->ref();
  }
  Ref(const Ref &other) : object_(other.object_) {
    if (object_) object_->ref();
  }
  Ref(Ref &&other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <typename U>
  requires std::is_convertible_v<U *, T *> Ref(const Ref<U> &other)
      : object_(other.get()) {  // NOLINT: implicit on purpose
    if (object_) object_->ref();
  }
  template <typename U>
  requires std::is_convertible_v<U *, T *> Ref(Ref<U> &&other)
  noexcept : object_(other.release()) {}  // NOLINT: implicit on purpose
  Ref &operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_) object_->unref();
  }

  static Ref adopt(T *object) {
    Ref ref;
    ref.object_ = object;
    return ref;
  }

  T *get() const { return object_; }
  T *operator->() const { return object_; }
  T &operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  T *release() { return std::exchange(object_, nullptr); }
  void reset() { *this = Ref(); }
  friend bool operator==(const Ref &a, const Ref &b) { return a.object_ == b.object_; }
  friend bool operator==(const Ref &a, const T *b) { return a.object_ == b; }

 private:
  T *object_ = nullptr;
};

template <typename T, typename... Args>
Ref<T> make_ref(Args &&...args) {
  return Ref<T>::adopt(new T(std::forward<Args>(args)...));
}

}  // namespace cowbird
