# SPDX-License-Identifier: Apache-2.0
# Compile options and the three kinds of targets: library, plugin, test.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(KEYWAY_PLUGIN_DIR ${CMAKE_BINARY_DIR}/lib/keyway/plugins)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")

find_program(KEYWAY_CCACHE ccache)
if(KEYWAY_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${KEYWAY_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${KEYWAY_CCACHE})
endif()

add_library(keyway_options INTERFACE)
target_compile_options(keyway_options INTERFACE -Wall -Wextra -Wno-missing-field-initializers
  $<$<BOOL:${KEYWAY_WERROR}>:-Werror> -fstack-protector-strong)
target_link_options(keyway_options INTERFACE -Wl,-z,relro -Wl,-z,now)
if(KEYWAY_SANITIZE STREQUAL "address")
  target_compile_options(keyway_options INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
    -Wno-maybe-uninitialized)  # gcc 12 warns of Abseil's inlined vector there.
  target_link_options(keyway_options INTERFACE -fsanitize=address,undefined)
elseif(KEYWAY_SANITIZE STREQUAL "thread")
  target_compile_options(keyway_options INTERFACE -fsanitize=thread -Wno-tsan)
  target_link_options(keyway_options INTERFACE -fsanitize=thread)
endif()

# The C ABI headers: all that a plugin and the kernel share.
add_library(keyway_sdk INTERFACE)
target_include_directories(keyway_sdk INTERFACE ${CMAKE_SOURCE_DIR}/sdk/include ${CMAKE_SOURCE_DIR}/sdk/cpp)

# keyway_plugin(NAME storage-lmdb SOURCES ... LIBS ...): the loadable plugin, and `NAME_static`, the
# same sources for static linking and for tests (entry: kw_plugin_entry_<name with underscores>).
function(keyway_plugin)
  cmake_parse_arguments(P "" "NAME" "SOURCES;LIBS" ${ARGN})
  string(REPLACE "-" "_" identifier ${P_NAME})
  add_library(${P_NAME} MODULE ${P_SOURCES})
  target_link_libraries(${P_NAME} PRIVATE keyway_options keyway_sdk ${P_LIBS} Threads::Threads)
  set(script ${CMAKE_SOURCE_DIR}/cmake/plugin.version)
  target_link_options(${P_NAME} PRIVATE -Wl,--version-script=${script} $<$<STREQUAL:${KEYWAY_SANITIZE},>:-Wl,-z,defs>)
  set_target_properties(${P_NAME} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${KEYWAY_PLUGIN_DIR}
    LINK_DEPENDS ${script})
  add_library(${P_NAME}_static STATIC EXCLUDE_FROM_ALL ${P_SOURCES})
  target_compile_definitions(${P_NAME}_static PRIVATE KW_STATIC_PLUGINS)
  target_link_libraries(${P_NAME}_static PUBLIC keyway_options keyway_sdk ${P_LIBS} Threads::Threads)
endfunction()

# keyway_test(NAME raft_test SOURCES ... LIBS ...): one GoogleTest binary, run by ctest.
function(keyway_test)
  cmake_parse_arguments(T "" "NAME;TIMEOUT" "SOURCES;LIBS" ${ARGN})
  if(NOT KEYWAY_TESTS)
    return()
  endif()
  add_executable(${T_NAME} ${T_SOURCES})
  target_link_libraries(${T_NAME} PRIVATE keyway_options ${T_LIBS} GTest::gtest_main Threads::Threads)
  set_target_properties(${T_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${T_NAME} COMMAND ${T_NAME})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  if(KEYWAY_SANITIZE)
    math(EXPR T_TIMEOUT "8 * ${T_TIMEOUT}")
  endif()
  set_tests_properties(${T_NAME} PROPERTIES TIMEOUT ${T_TIMEOUT}
    ENVIRONMENT "LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/sanitizers/lsan.supp")
endfunction()
