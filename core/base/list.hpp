// Intrusive doubly linked list: the link lives in the element, so that insertion and removal never
// allocate. A ListNode unlinks itself when it is destroyed. Not synchronised: the lock that
// protects the list protects its nodes' links too. Anyone may include this header.
#pragma once

#include <cstddef>
#include <iterator>

namespace cowbird {

class ListNode {
 public:
  ListNode() = default;
  ListNode(const ListNode &) = delete;
  ListNode &operator=(const ListNode &) = delete;
  ~ListNode() { unlink(); }

  bool linked() const { return next_ != this; }
  void unlink() {
    prev_->next_ = next_;
    next_->prev_ = prev_;
    prev_ = next_ = this;
  }

 private:
  template <typename T, ListNode T::*Link>
  friend class List;
  friend struct DebugLayout;
// Nodes on the stack are fine, their destructor unlinks them; g++ 12 does not see that.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdangling-pointer"
#endif
  void insert_before(ListNode &position) {
    prev_ = position.prev_;
    next_ = &position;
    prev_->next_ = this;
    position.prev_ = this;
  }
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
  ListNode *prev_ = this;
  ListNode *next_ = this;
};

// List<Thread, &Thread::run_link_> queue;  The list does not own its elements.
template <typename T, ListNode T::*Link>
class List {
 public:
  class iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = T *;
    using reference = T &;
    iterator() = default;
    explicit iterator(ListNode *node) : node_(node) {}
    T &operator*() const { return *owner(node_); }
    T *operator->() const { return owner(node_); }
    iterator &operator++() {
      node_ = node_->next_;
      return *this;
    }
    iterator operator++(int) {
      iterator old = *this;
      ++*this;
      return old;
    }
    bool operator==(const iterator &other) const { return node_ == other.node_; }

   private:
    friend class List;
    ListNode *node_ = nullptr;
  };

  bool empty() const { return !head_.linked(); }
  void push_back(T &element) { (element.*Link).insert_before(head_); }
  void push_front(T &element) { (element.*Link).insert_before(*head_.next_); }
  // `before` must be in this list.
  void insert_before(T &before, T &element) { (element.*Link).insert_before(before.*Link); }
  static void remove(T &element) { (element.*Link).unlink(); }
  T *front() { return empty() ? nullptr : owner(head_.next_); }
  T *back() { return empty() ? nullptr : owner(head_.prev_); }
  T *pop_front() {
    T *element = front();
    if (element) remove(*element);
    return element;
  }
  iterator begin() { return iterator(head_.next_); }
  iterator end() { return iterator(&head_); }
  // Linear; for reports and tests.
  std::size_t size() {
    std::size_t n = 0;
    for (auto it = begin(); it != end(); ++it) ++n;
    return n;
  }

 private:
  friend class iterator;
  static T *owner(ListNode *node) {
    // The offset of the link member, computed as offsetof would for a pointer to member.
    alignas(T) static char probe[sizeof(T)];
    const auto offset = reinterpret_cast<char *>(&(reinterpret_cast<T *>(probe)->*Link)) - probe;
    return reinterpret_cast<T *>(reinterpret_cast<char *>(node) - offset);
  }
  ListNode head_;
};

}  // namespace cowbird
