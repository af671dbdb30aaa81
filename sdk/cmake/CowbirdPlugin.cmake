# cowbird_add_plugin(NAME SOURCES file... [LIBS library...] [TARGET target] [OUTPUT directory])
#
# The plugin NAME.so: a module that exports nothing but its descriptor, and that does not link when a symbol
# is missing. TARGET is the CMake target's name (default: cowbird-plugin-NAME).
set(COWBIRD_PLUGIN_MAP "${CMAKE_CURRENT_LIST_DIR}/cowbird-plugin.map")

function(cowbird_add_plugin name)
  cmake_parse_arguments(arg "" "TARGET;OUTPUT" "SOURCES;LIBS" ${ARGN})
  if(NOT arg_TARGET)
    set(arg_TARGET cowbird-plugin-${name})
  endif()
  add_library(${arg_TARGET} MODULE ${arg_SOURCES})
  target_link_libraries(${arg_TARGET} PRIVATE cowbird::sdk ${arg_LIBS})
  set_target_properties(${arg_TARGET} PROPERTIES PREFIX "" OUTPUT_NAME ${name} POSITION_INDEPENDENT_CODE ON
    C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    LINK_DEPENDS "${COWBIRD_PLUGIN_MAP}")
  target_link_options(${arg_TARGET} PRIVATE "LINKER:--version-script=${COWBIRD_PLUGIN_MAP}" LINKER:-z,defs)
  if(arg_OUTPUT)
    set_target_properties(${arg_TARGET} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${arg_OUTPUT}")
  endif()
endfunction()
