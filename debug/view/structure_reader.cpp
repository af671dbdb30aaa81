#include "debug/view/structure_reader.hpp"

#include <algorithm>
#include <unordered_set>

namespace cowbird::debug {
namespace {

// libstdc++: a std::string is a pointer, a length and 16 bytes that hold a short text or the
// capacity; a std::vector is begin, end, end of storage.
constexpr std::uint32_t kStringLength = 8;
constexpr std::uint32_t kStringInline = 16;
constexpr std::size_t kInlineBytes = 16;
// _Rb_tree: a comparison object, then the header node, then the count. A node is colour, parent,
// left, right, value.
constexpr std::uint32_t kMapHeader = 8;
constexpr std::uint32_t kMapCount = 40;
struct MapNode {
  std::uint64_t colour, parent, left, right;
};
// _Hashtable: buckets, their number, the first node's pointer, the count. A node is next, value.
constexpr std::uint32_t kHashFirst = 16;
constexpr std::uint32_t kHashCount = 24;
constexpr std::uint32_t kHashValue = 8;

}  // namespace

std::optional<std::string> Blob::inline_string(std::uint32_t offset) const {
  const auto data = get<std::uint64_t>(offset);
  const auto length = get<std::uint64_t>(offset + kStringLength);
  if (data != address_ + offset + kStringInline || length >= kInlineBytes) return std::nullopt;
  const auto text = get<std::array<char, kInlineBytes>>(offset + kStringInline);
  return std::string(text.data(), length);
}

std::string StructureReader::string(std::uint64_t address) {
  struct {
    std::uint64_t data, length;
  } header{};
  if (!bytes(address, std::as_writable_bytes(std::span(&header, 1)))) return {};
  if (header.length > kMaxString) {
    ++damage_;
    header.length = kMaxString;
  }
  std::string text(header.length, '\0');
  if (header.length != 0 && !bytes(header.data, std::as_writable_bytes(std::span(text)))) return {};
  return text;
}

std::string StructureReader::c_string(std::uint64_t address, std::size_t limit) {
  std::string text;
  constexpr std::uint64_t kChunk = 64;
  while (text.size() < limit) {
    // Up to a multiple of the chunk, so that no read crosses into a page that is not there.
    std::array<char, kChunk> chunk{};
    const std::uint64_t at = address + text.size();
    const std::size_t length = kChunk - at % kChunk;
    if (!bytes(at, std::as_writable_bytes(std::span(chunk).first(length)))) return text;
    const auto *const end = std::find(chunk.data(), chunk.data() + length, '\0');
    text.append(chunk.data(), static_cast<std::size_t>(end - chunk.data()));
    if (end != chunk.data() + length) return text;
  }
  ++damage_;
  return text.substr(0, limit);
}

std::vector<std::uint64_t> StructureReader::vector(std::uint64_t address, std::size_t size) {
  struct {
    std::uint64_t begin, end;
  } header{};
  if (!bytes(address, std::as_writable_bytes(std::span(&header, 1)))) return {};
  const std::uint64_t length = header.end - header.begin;
  if (header.end < header.begin || length % size != 0 || length / size > kMaxElements) {
    ++damage_;
    return {};
  }
  std::vector<std::uint64_t> elements;
  elements.reserve(length / size);
  for (std::uint64_t at = header.begin; at < header.end; at += size) elements.push_back(at);
  return elements;
}

std::vector<std::uint64_t> StructureReader::pointer_vector(std::uint64_t address) {
  std::vector<std::uint64_t> elements = vector(address, sizeof(std::uint64_t));
  if (elements.empty()) return elements;
  std::vector<std::uint64_t> values(elements.size());
  if (!bytes(elements.front(), std::as_writable_bytes(std::span(values)))) return {};
  return values;
}

std::vector<std::uint64_t> StructureReader::map(std::uint64_t address) {
  const std::uint64_t header = address + kMapHeader;
  const auto count = value<std::uint64_t>(address + kMapCount);
  if (count > kMaxElements) {
    ++damage_;
    return {};
  }
  std::vector<std::uint64_t> values;
  // In order, with the way back on a stack of our own: the parents' pointers need not be right.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> way;  // node, its right child
  std::uint64_t node = value<MapNode>(header).parent;
  while ((node != 0 || !way.empty()) && values.size() < count) {
    while (node != 0) {
      MapNode links{};
      if (!bytes(node, std::as_writable_bytes(std::span(&links, 1)))) return values;
      if (way.size() > 64) {  // a balanced tree of kMaxElements is not so deep
        ++damage_;
        return values;
      }
      way.emplace_back(node, links.right);
      node = links.left;
    }
    values.push_back(way.back().first + sizeof(MapNode));
    node = way.back().second;
    way.pop_back();
  }
  if (values.size() != count) ++damage_;
  return values;
}

std::vector<std::uint64_t> StructureReader::hash_map(std::uint64_t address) {
  const auto count = value<std::uint64_t>(address + kHashCount);
  if (count > kMaxElements) {
    ++damage_;
    return {};
  }
  std::vector<std::uint64_t> values;
  std::uint64_t node = pointer(address + kHashFirst);
  while (node != 0 && values.size() < count) {
    values.push_back(node + kHashValue);
    std::uint64_t next = 0;
    if (!bytes(node, std::as_writable_bytes(std::span(&next, 1)))) {
      values.pop_back();
      return values;
    }
    node = next;
  }
  if (values.size() != count || node != 0) ++damage_;
  return values;
}

std::vector<std::uint64_t> StructureReader::list(std::uint64_t head, std::uint32_t link,
                                                 std::uint32_t next) {
  std::vector<std::uint64_t> objects;
  std::unordered_set<std::uint64_t> seen;
  std::uint64_t node = pointer(head + next);
  while (node != head) {
    if (node == 0 || objects.size() >= kMaxElements || !seen.insert(node).second) {
      ++damage_;
      break;
    }
    std::uint64_t following = 0;
    if (!bytes(node + next, std::as_writable_bytes(std::span(&following, 1)))) break;
    objects.push_back(node - link);
    node = following;
  }
  return objects;
}

}  // namespace cowbird::debug
