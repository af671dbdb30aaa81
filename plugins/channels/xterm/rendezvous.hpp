// What the plugin `xterm` and its helper program, which runs in the window, say to each other on a
// stream socket: the helper sends one byte with the descriptor of its terminal (SCM_RIGHTS), then
// kResized for each change of the window's size. Either end closing ends the window.
#pragma once

namespace channels {

inline constexpr char kHere = 'H';
inline constexpr char kResized = 'W';
inline constexpr char kHelperName[] = "cowbird-xterm-helper";  // beside the plugin's file

}  // namespace channels
