# What `cmake --install --component cpp` installs: library, headers, and what finds them, which is
# lstmcoreConfig.cmake for CMake and lstmcore.pc for pkg-config. All can be moved together.
install(TARGETS lstmcore EXPORT lstmcoreTargets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT cpp
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT cpp)
install(DIRECTORY cpp/include/lstmcore DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT cpp)

# ---- CMake --------------------------------------------------------------------------------------

set(config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/lstmcore)
install(EXPORT lstmcoreTargets NAMESPACE lstmcore:: DESTINATION ${config_folder} COMPONENT cpp)
# A shared library brings what it needs; whoever links a static one has to link that as well.
set(needs_threads TRUE)
set(needs_openmp FALSE)
if(BUILD_SHARED_LIBS)
    set(needs_threads FALSE)
elseif(NOT openmp_version STREQUAL "none")
    set(needs_openmp TRUE)
endif()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/lstmcoreConfig.cmake @ONLY CONTENT [=[
include(CMakeFindDependencyMacro)
set(THREADS_PREFER_PTHREAD_FLAG ON)
if(@needs_threads@)
    find_dependency(Threads)
endif()
if(@needs_openmp@)
    find_dependency(OpenMP COMPONENTS CXX)
endif()
include("${CMAKE_CURRENT_LIST_DIR}/lstmcoreTargets.cmake")
]=])
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lstmcoreConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/lstmcoreConfig.cmake
              ${PROJECT_BINARY_DIR}/lstmcoreConfigVersion.cmake
    DESTINATION ${config_folder} COMPONENT cpp)

# ---- pkg-config ---------------------------------------------------------------------------------

file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
set(pc_libs "-L\${libdir} -llstmcore")
set(pc_flags "-I\${includedir}")
if(BUILD_SHARED_LIBS)
    string(APPEND pc_flags " -DLSTMCORE_SHARED")
else()
    string(APPEND pc_libs " -pthread")
    if(needs_openmp)
        string(APPEND pc_libs " ${OpenMP_CXX_FLAGS}")
    endif()
endif()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/lstmcore.pc @ONLY CONTENT [=[
prefix=${pcfiledir}/@pc_prefix@
libdir=${prefix}/@CMAKE_INSTALL_LIBDIR@
includedir=${prefix}/@CMAKE_INSTALL_INCLUDEDIR@

Name: lstmcore
Description: RNN, LSTM and GRU layers for the CPU
Version: @PROJECT_VERSION@
Cflags: @pc_flags@
Libs: @pc_libs@
]=])
install(FILES ${PROJECT_BINARY_DIR}/lstmcore.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT cpp)
