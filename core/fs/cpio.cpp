// The parser of cpio archives (newc): only bytes, no file system. Everything in the archive is
// hostile until checked: sizes against what is left, names for termination and "..".
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <vector>

#include "fs/initramfs.hpp"

namespace cowbird {

namespace {

using Bytes = std::span<const std::byte>;

inline constexpr std::size_t kHeaderSize = 110;
inline constexpr std::size_t kMaxName = 4096;
inline constexpr std::uint32_t kTypeMask = 0170000;
inline constexpr std::uint32_t kTypeLink = 0120000;

struct Header {
  std::uint32_t inode, mode, uid, gid, nlink, mtime, file_size, device_major, device_minor,
      rdev_major, rdev_minor, name_size, check;
  bool has_checksum;
};

std::size_t align4(std::size_t value) { return (value + 3) & ~std::size_t{3}; }

std::optional<std::uint32_t> hex8(const char *text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text, text + 8, value, 16);
  if (error != std::errc{} || end != text + 8) return std::nullopt;
  return value;
}

bool is_archive(Bytes bytes) {
  return bytes.size() >= 6 && (std::memcmp(bytes.data(), "070701", 6) == 0 ||
                               std::memcmp(bytes.data(), "070702", 6) == 0);
}

bool is_gzip(Bytes bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

std::optional<Header> parse_header(Bytes bytes) {
  const char *text = reinterpret_cast<const char *>(bytes.data());
  Header header{};
  header.has_checksum = text[5] == '2';
  const std::array fields{&header.inode,      &header.mode,         &header.uid,
                          &header.gid,        &header.nlink,        &header.mtime,
                          &header.file_size,  &header.device_major, &header.device_minor,
                          &header.rdev_major, &header.rdev_minor,   &header.name_size,
                          &header.check};
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const auto value = hex8(text + 6 + 8 * i);
    if (!value) return std::nullopt;
    *fields[i] = *value;
  }
  return header;
}

// Without leading "/" and "./"; empty for the root itself. Nothing when a component is "..".
std::optional<std::string_view> clean_name(std::string_view name) {
  for (;;) {
    if (name.starts_with('/')) {
      name.remove_prefix(1);
    } else if (name.starts_with("./")) {
      name.remove_prefix(2);
    } else {
      break;
    }
  }
  while (name.ends_with('/')) name.remove_suffix(1);
  if (name == ".") return std::string_view{};
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('/', at), name.size());
    if (name.substr(at, end - at) == "..") return std::nullopt;
    at = end + 1;
  }
  return name;
}

bool checksum_fits(Bytes data, std::uint32_t expected) {
  std::uint32_t sum = 0;
  for (const std::byte byte : data) sum += static_cast<std::uint32_t>(byte);
  return sum == expected;
}

// One archive, up to its trailer; `bytes` loses what was read.
std::string parse_archive(Bytes &bytes, std::size_t base, const CpioSink &sink) {
  const Bytes whole = bytes;
  std::size_t at = 0;
  for (;;) {
    const auto where = [&] { return fmt::format("at byte {} of the archive", base + at); };
    if (whole.size() - at < kHeaderSize)
      return fmt::format("The cpio archive ends within the header {}.", where());
    if (!is_archive(whole.subspan(at)))
      return fmt::format("There is no cpio header (070701 or 070702) {}.", where());
    const auto header = parse_header(whole.subspan(at, kHeaderSize));
    if (!header)
      return fmt::format("The cpio header {} has a field that is no hexadecimal number.", where());
    if (header->name_size == 0 || header->name_size > kMaxName)
      return fmt::format("The cpio header {} gives a name of {} bytes; 1 to {} are possible.",
                         where(), header->name_size, kMaxName);
    const std::size_t data_at = align4(at + kHeaderSize + header->name_size);
    if (data_at > whole.size() || header->file_size > whole.size() - data_at)
      return fmt::format("The cpio entry {} is longer than what is left of the archive.", where());
    const std::string_view raw(reinterpret_cast<const char *>(whole.data()) + at + kHeaderSize,
                               header->name_size);
    if (raw.find('\0') != raw.size() - 1)
      return fmt::format("The name of the cpio entry {} does not end where its size says.",
                         where());
    const std::string_view stored = raw.substr(0, raw.size() - 1);
    const Bytes data = whole.subspan(data_at, header->file_size);
    const std::size_t next = std::min(align4(data_at + header->file_size), whole.size());
    if (stored == "TRAILER!!!") {
      bytes = whole.subspan(next);
      return {};
    }
    const auto name = clean_name(stored);
    if (!name)
      return fmt::format("The name '{}' of the cpio entry {} leads out of the archive.", stored,
                         where());
    if (header->has_checksum && !checksum_fits(data, header->check))
      return fmt::format("The checksum of '{}' in the cpio archive is wrong.", stored);
    if ((header->mode & kTypeMask) == kTypeLink && (data.empty() || data.size() > kMaxName - 1))
      return fmt::format("The symbolic link '{}' in the cpio archive has a target of {} bytes.",
                         stored, data.size());
    if (!name->empty()) {
      const CpioEntry entry{*name,
                            header->mode,
                            header->uid,
                            header->gid,
                            header->nlink,
                            header->mtime,
                            header->inode,
                            header->device_major,
                            header->device_minor,
                            header->rdev_major,
                            header->rdev_minor,
                            data};
      if (auto taken = sink(entry); !taken)
        return fmt::format("'{}' from the cpio archive cannot be created: {}.", stored,
                           errno_text(taken.error()));
    }
    at = next;
  }
}

// Unpacks one gzip member; `bytes` loses what it took. The error is a sentence.
std::string inflate_member(Bytes &bytes, std::uint64_t limit, std::vector<std::byte> &out) {
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK)
    return "There is not enough memory to unpack the compressed archive.";
  // zlib does not write to its input; its interface has no const.
  stream.next_in = reinterpret_cast<Bytef *>(const_cast<std::byte *>(bytes.data()));
  std::size_t left = bytes.size();
  int status = Z_OK;
  std::string error;
  while (status != Z_STREAM_END) {
    if (stream.avail_in == 0) {
      const std::size_t piece = std::min<std::size_t>(left, 1u << 30);
      stream.avail_in = static_cast<uInt>(piece);
      left -= piece;
    }
    const std::size_t had = out.size();
    if (had >= limit) {
      error = fmt::format("The compressed archive unpacks to more than {} bytes.", limit);
      break;
    }
    const std::size_t room =
        std::min<std::size_t>({std::max<std::size_t>(had, 256ul * 1024), limit - had, 1u << 28});
    out.resize(had + room);
    stream.next_out = reinterpret_cast<Bytef *>(out.data() + had);
    stream.avail_out = static_cast<uInt>(room);
    status = inflate(&stream, Z_NO_FLUSH);
    out.resize(had + room - stream.avail_out);
    const bool stuck = status == Z_BUF_ERROR && stream.avail_in == 0 && left == 0;
    if (stuck || (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)) {
      error = stuck ? "The compressed archive ends too early."
                    : fmt::format("The compressed archive is damaged: {}.",
                                  stream.msg ? stream.msg : "not gzip");
      break;
    }
  }
  bytes = bytes.subspan(bytes.size() - left - stream.avail_in);
  inflateEnd(&stream);
  return error;
}

void skip_zeroes(Bytes &bytes) {
  std::size_t n = 0;
  while (n < bytes.size() && bytes[n] == std::byte{0}) ++n;
  bytes = bytes.subspan(n);
}

// Archives one after the other without compression.
std::string parse_plain(Bytes &bytes, std::size_t base, const CpioSink &sink) {
  const std::size_t total = bytes.size();
  while (is_archive(bytes)) {
    if (std::string error = parse_archive(bytes, base + total - bytes.size(), sink); !error.empty())
      return error;
    skip_zeroes(bytes);
  }
  return {};
}

}  // namespace

std::string parse_cpio(Bytes archive, std::uint64_t max_unpacked, const CpioSink &sink) {
  Bytes rest = archive;
  std::uint64_t budget = max_unpacked;
  skip_zeroes(rest);
  if (rest.empty()) return "The initial root file system is empty: it has no cpio archive.";
  while (!rest.empty()) {
    const std::size_t base = archive.size() - rest.size();
    if (is_archive(rest)) {
      if (std::string error = parse_plain(rest, base, sink); !error.empty()) return error;
    } else if (is_gzip(rest)) {
      std::vector<std::byte> unpacked;
      if (std::string error = inflate_member(rest, budget, unpacked); !error.empty()) return error;
      budget -= unpacked.size();
      Bytes inner(unpacked);
      skip_zeroes(inner);
      if (std::string error = parse_plain(inner, 0, sink); !error.empty()) return error;
      if (!inner.empty())
        return "What the compressed archive holds is no cpio archive (070701 or 070702).";
    } else {
      return fmt::format(
          "At byte {} there is neither a cpio archive (070701 or 070702) nor gzip data.", base);
    }
    skip_zeroes(rest);
  }
  return {};
}

}  // namespace cowbird
