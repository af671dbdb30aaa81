# Compiler settings of the whole tree and the helper functions its CMakeLists use.
option(COWBIRD_TESTS "Build the tests" ON)
option(COWBIRD_SANITIZE "AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
option(COWBIRD_LOCK_RANKS "Check the order in which locks are taken" OFF)
option(COWBIRD_FUZZ "Build the fuzz targets with libFuzzer (clang only)" OFF)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

# Files of one target compiled in batches, which halves the time of a build from nothing. With ccache, whose
# results are a file's, it is off.
if(CCACHE_PROGRAM)
  option(COWBIRD_UNITY "Compile the files of a target in batches" OFF)
else()
  option(COWBIRD_UNITY "Compile the files of a target in batches" ON)
endif()
if(COWBIRD_UNITY)
  set(CMAKE_UNITY_BUILD ON)
  set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)
endif()

# The sanitizers name lines in their reports; the rest of what a debugger wants would double the build.
add_compile_options(-Wall -Wextra -Werror -Wshadow -fno-omit-frame-pointer $<IF:$<BOOL:${COWBIRD_SANITIZE}>,-g1,-g>
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor> $<$<COMPILE_LANGUAGE:CXX>:-Woverloaded-virtual>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wthread-safety>)
endif()
if(COWBIRD_LOCK_RANKS)
  add_compile_definitions(COWBIRD_LOCK_RANKS)
endif()
if(COWBIRD_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "COWBIRD_FUZZ needs clang: its libFuzzer is what finds new inputs.")
  endif()
  # The sanitizers' runtime is what the coverage of fuzzer-no-link needs.
  set(COWBIRD_SANITIZE ON)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(COWBIRD_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined
    # gcc sees false ones through the sanitizers' instrumentation.
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  add_link_options(-fsanitize=address,undefined)
endif()

# cowbird_library(AREA source...): the object library cowbird-AREA, with core/ as include root.
function(cowbird_library area)
  add_library(cowbird-${area} OBJECT ${ARGN})
  target_include_directories(cowbird-${area} PUBLIC ${CMAKE_SOURCE_DIR}/core ${CMAKE_SOURCE_DIR}/sdk/include)
  target_link_libraries(cowbird-${area} PUBLIC fmt::fmt Threads::Threads)
  set_property(GLOBAL APPEND PROPERTY COWBIRD_AREAS cowbird-${area})
endfunction()
