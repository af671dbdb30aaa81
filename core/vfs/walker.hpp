// The walk from a name to a path, step by step; shared by the lookups (namei.cpp), open
// (namei_open.cpp) and the calls that change names (namei_modify.cpp). Internal to vfs/.
#pragma once

#include <string>
#include <string_view>

#include "vfs/mount.hpp"
#include "vfs/path.hpp"

namespace cowbird {

class Walker {
 public:
  static constexpr int kMaxLinks = 40;

  Walker(const WalkContext &walk, LookupFlag flags);

  // Takes the name and finds where it starts. NoEnt for "" (unless EmptyPath), NameTooLong.
  Result<void> begin(std::string_view name);
  // Goes through all components but the last. Afterwards at() is the directory, and last() its
  // name there: a normal name, ".", "..", or "" when the name was only slashes or empty.
  Result<void> to_parent();
  // The name ended with a slash.
  bool trailing_slash() const { return trailing_slash_; }
  std::string_view last() const { return last_; }
  const Path &at() const { return current_; }
  // Steps to "", "." or ".." as the last component.
  Result<void> step_dots(std::string_view name);
  // Steps to a child, through what is mounted there; links are not followed.
  Result<void> step_into(Ref<Dentry> child);
  // Where step_into would lead; checks NoXDev.
  Result<Path> peek(const Ref<Dentry> &child);
  // `link` is what last() led to: goes on with its target, so that to_parent() can be called again.
  // A magic link leads to its target at once: then `arrived` is set and at() is the target.
  Result<void> follow_link(const Path &link, bool &arrived);
  // The search permission of at(), for its children.
  Result<void> check_search() const;

  const WalkContext &walk() const { return walk_; }
  LookupFlag flags() const { return flags_; }

 private:
  Result<void> dotdot();
  const WalkContext &walk_;
  LookupFlag flags_;
  Path current_;
  const Path *root_;
  std::string target_;     // what is left to walk after a link; owns `rest_` then
  std::string_view rest_;  // not walked yet
  std::string last_storage_;
  std::string_view last_;
  bool trailing_slash_ = false;
  int links_ = 0;
};

// The child's dentry with the parent's lock held by the caller.
Result<Ref<Dentry>> lookup_child_locked(Dentry &parent, std::string_view name);
// The whole walk; the last link is followed with LookupFlag::Follow.
Result<Path> walk_to(Walker &walker, std::string_view name);
// Permission to add or remove names in a directory: write and search, writable mount.
Result<void> check_directory_change(const Path &directory, const Credentials &credentials);
// The sticky rule for removing or renaming `victim`; Perm, IsDir, NotDir.
Result<void> check_may_delete(const Inode &directory, const Inode &victim,
                              const Credentials &credentials);

}  // namespace cowbird
