# Fills SOURCE/dist/windrow from a finished build folder:
#   windrow, windrow.1, lib/ (what it and the tests link, but for the C library), presets/,
#   tests/ (programs, data and run.sh; gpu/run for machines with a GPU), README.md, LICENSE
# and SOURCE/dist/windrow.tar.gz with the same, to carry.
set(target ${SOURCE}/dist/windrow)
file(REMOVE_RECURSE ${target})
file(MAKE_DIRECTORY ${target}/lib ${target}/tests)

# Without those of the screens (ui), which a machine with a GPU tells nothing new about: carried for
# a run of ten minutes, the folder is to stay below 64 MiB when packed.
file(GLOB candidates ${BUILD}/tests/*)
set(tests)
foreach(candidate ${candidates})
    if(candidate MATCHES "/(kernels|tokenizer|engine_[a-z]+|app)_test_[a-z0-9_]+$" AND
       NOT IS_DIRECTORY ${candidate})
        list(APPEND tests ${candidate})
    endif()
endforeach()

file(GET_RUNTIME_DEPENDENCIES
    EXECUTABLES ${BUILD}/windrow ${tests}
    RESOLVED_DEPENDENCIES_VAR libraries
    UNRESOLVED_DEPENDENCIES_VAR unresolved
    POST_EXCLUDE_REGEXES "/lib(c|m|dl|rt|pthread|util|resolv)\\.so" "/ld-linux")
if(unresolved)
    message(FATAL_ERROR "libraries not found: ${unresolved}")
endif()
# LAPACK as it is written, 36 MB smaller than inside an OpenBLAS that this machine happens to prefer:
# it is asked for small matrices only.
foreach(library lapack blas)
    list(FILTER libraries EXCLUDE REGEX "/lib${library}\\.so")
    file(GLOB reference /usr/lib/*/${library}/lib${library}.so.3)
    list(APPEND libraries ${reference})
endforeach()
list(FILTER libraries EXCLUDE REGEX "/libopenblas")
file(COPY ${libraries} DESTINATION ${target}/lib FOLLOW_SYMLINK_CHAIN)
file(COPY ${BUILD}/windrow ${BUILD}/windrow.1 DESTINATION ${target})
# The module for MPI, which is that of the machine where it runs.
if(EXISTS ${BUILD}/lib/windrow_mpi.so)
    file(COPY ${BUILD}/lib/windrow_mpi.so DESTINATION ${target}/lib)
endif()
file(COPY ${tests} DESTINATION ${target}/tests)
if(EXISTS ${BUILD}/tests/gpu_ops)
    file(COPY ${SOURCE}/tests/gpu/run DESTINATION ${target}/tests/gpu)
    file(COPY ${BUILD}/tests/gpu_ops DESTINATION ${target}/tests/gpu)
    file(RENAME ${target}/tests/gpu/gpu_ops ${target}/tests/gpu/ops)
    if(EXISTS ${BUILD}/tests/bench/bench_gpu)
        file(COPY ${BUILD}/tests/bench/bench_gpu ${SOURCE}/tests/bench/bench_gpu.py
            DESTINATION ${target}/tests/gpu)
    endif()
endif()
file(COPY ${BUILD}/tests/fake ${BUILD}/tests/fake_nccl DESTINATION ${target}/tests)
# Without what only a debugger reads.
find_program(STRIP strip)
file(GLOB_RECURSE programs ${target}/windrow ${target}/tests/*_test_* ${target}/tests/gpu/ops
    ${target}/tests/gpu/bench_gpu)
if(STRIP)
    execute_process(COMMAND ${STRIP} --strip-debug ${programs} COMMAND_ERROR_IS_FATAL ANY)
endif()
file(COPY ${SOURCE}/presets DESTINATION ${target})
if(IS_DIRECTORY ${SOURCE}/tests/data)
    file(COPY ${SOURCE}/tests/data DESTINATION ${target}/tests PATTERN ui EXCLUDE)
endif()
foreach(text README.md LICENSE)
    if(EXISTS ${SOURCE}/${text})
        file(COPY ${SOURCE}/${text} DESTINATION ${target})
    endif()
endforeach()
file(WRITE ${target}/tests/run.sh [=[#!/bin/sh
# Runs every test program of this folder and counts.
cd "$(dirname "$0")/.." || exit 2
passed=0 failed=
for test in tests/*_test_*; do
    if "$test" >"/tmp/windrow-test.$$" 2>&1; then
        passed=$((passed + 1))
    else
        failed="$failed $test"
        cat "/tmp/windrow-test.$$"
    fi
    rm -f "/tmp/windrow-test.$$"
done
echo "$passed test programs passed"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
]=])
file(CHMOD ${target}/tests/run.sh PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE
    GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
execute_process(COMMAND ${CMAKE_COMMAND} -E tar czf windrow.tar.gz windrow
    WORKING_DIRECTORY ${SOURCE}/dist COMMAND_ERROR_IS_FATAL ANY)
file(SIZE ${target}.tar.gz bytes)
math(EXPR megabytes "${bytes} / 1000000")
message(STATUS "filled ${target}, packed ${target}.tar.gz (${megabytes} MB)")
