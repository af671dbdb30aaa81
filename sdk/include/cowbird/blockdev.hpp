// Block backends in C++: derive from BlockBackend, then
//   COWBIRD_BLOCK_PLUGIN(MyStore, "mine", "1.0", kKeys, "what it is", "MIT",
//   COWBIRD_BLOCK_CAP_WRITE);
// See <cowbird/blockdev.h> for what each function has to do and <cowbird/plugin.hpp> for errors.
#ifndef COWBIRD_BLOCKDEV_HPP
#define COWBIRD_BLOCKDEV_HPP

#include <cowbird/blockdev.h>

#include <algorithm>
#include <cowbird/plugin.hpp>
#include <span>

namespace cowbird::sdk {

// The derived class has a constructor (const Host &, const Config &), which throws Error.
class BlockBackend {
 public:
  explicit BlockBackend(const Host &host) : host_(host) {}
  virtual ~BlockBackend() = default;
  BlockBackend(const BlockBackend &) = delete;
  BlockBackend &operator=(const BlockBackend &) = delete;

  // struct_size is set by the caller.
  virtual cowbird_block_info info() = 0;
  // Starts the requests; each is given to complete() exactly once.
  virtual void submit(std::span<cowbird_block_request *const> requests) noexcept = 0;
  virtual std::string describe() = 0;

 protected:
  const Host &host() const { return host_; }
  // Any thread. 0 or a negative errno.
  void complete(cowbird_block_request *request, int status) const {
    host_.table().block_complete(host_.device(), request, status);
  }
  // info() would answer another size; any thread.
  void resized() const { host_.table().block_resized(host_.device()); }

 private:
  const Host &host_;
};

template <typename Derived>
struct BlockTable {
  using Self = detail::Instance<Derived>;
  static int get_info(void *self, cowbird_block_info *out) noexcept {
    return Self::call(self, [&](Derived &b) -> int {
      // A host older than this header knows a shorter structure.
      const std::uint32_t size = std::min<std::uint32_t>(out->struct_size, sizeof *out);
      cowbird_block_info info = b.info();
      info.struct_size = size;
      std::memcpy(out, &info, size);
      return 0;
    });
  }
  static void submit(void *self, cowbird_block_request *const *requests,
                     std::uint32_t count) noexcept {
    Self::of(self).object.submit({requests, count});
  }

  static constexpr cowbird_block_ops ops = {
      .header = {sizeof(cowbird_block_ops), COWBIRD_KIND_BLOCK},
      .create = &Self::create,
      .destroy = &Self::destroy,
      .get_info = &get_info,
      .submit = &submit,
      .describe = &Self::describe,
  };
};

}  // namespace cowbird::sdk

#define COWBIRD_BLOCK_PLUGIN(Class, name, version, keys, description, license, capabilities)     \
  COWBIRD_DEFINE_PLUGIN(COWBIRD_KIND_BLOCK, cowbird::sdk::BlockTable<Class>::ops, name, version, \
                        keys, description, license, capabilities)

#endif
