# Compiles the .cu files if there is an nvcc that works; sets WINDROW_CUDA, CUDA_OBJECTS,
# CUDA_LIBRARIES and CUDA_INCLUDE. -DCMAKE_CUDA_COMPILER=NOTFOUND builds without.
#
# The commands are written out, not left to CMake's CUDA language: that one would link every program
# through nvcc, which does not know our flags.
set(CUDA_OBJECTS)
set(CUDA_LIBRARIES)
set(WINDROW_CUDA OFF)
if(NOT DEFINED CMAKE_CUDA_COMPILER)
    find_program(NVCC nvcc)
elseif(CMAKE_CUDA_COMPILER)
    set(NVCC ${CMAKE_CUDA_COMPILER})
else()
    set(NVCC NVCC-NOTFOUND)
endif()

# Real code for A100, for L4 and RTX 40, and for H100 and H200; later devices translate the PTX.
set(CUDA_FLAGS -std=c++17 -O3 -fmad=false -I${CMAKE_SOURCE_DIR}
    -gencode arch=compute_80,code=[sm_80,sm_89] -gencode arch=compute_90,code=[sm_90,compute_90]
    -Xcompiler=-fno-exceptions,-fno-rtti,-fno-threadsafe-statics,-fPIC,-fvisibility=hidden,-Wall,-Wextra)
if(WINDROW_WERROR)
    list(APPEND CUDA_FLAGS -Werror all-warnings)
endif()

if(NVCC)
    get_filename_component(CUDA_ROOT ${NVCC} REALPATH)
    get_filename_component(CUDA_ROOT ${CUDA_ROOT} DIRECTORY)
    get_filename_component(CUDA_ROOT ${CUDA_ROOT} DIRECTORY)
    find_library(CUDART_STATIC cudart_static HINTS ${CUDA_ROOT} /usr/local/cuda
        PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib targets/sbsa-linux/lib)
    find_path(CUDA_INCLUDE cublasLt.h HINTS ${CUDA_ROOT} /usr/local/cuda
        PATH_SUFFIXES include targets/x86_64-linux/include targets/sbsa-linux/include)
    if(NOT WINDROW_CUDA_WORKS STREQUAL NVCC)
        set(trial ${CMAKE_CURRENT_BINARY_DIR}/trial.cu)
        file(WRITE ${trial} "__global__ void f(int *x) { *x = 1; }\n"
            "void g(int *x) { f<<<1, 1>>>(x); }\n")
        execute_process(COMMAND ${NVCC} ${CUDA_FLAGS} -c ${trial} -o ${trial}.o
            RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
        if(failed)
            message(STATUS "nvcc does not work, building without CUDA: ${said}")
        else()
            set(WINDROW_CUDA_WORKS ${NVCC} CACHE INTERNAL "the nvcc that compiled a trial")
        endif()
    endif()
    if(WINDROW_CUDA_WORKS STREQUAL NVCC AND CUDART_STATIC AND CUDA_INCLUDE)
        set(WINDROW_CUDA ON)
    endif()
endif()

if(WINDROW_CUDA)
    message(STATUS "CUDA kernels: ${NVCC}")
    file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cu)
    file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/cuda)
    foreach(source ${CUDA_SOURCES})
        get_filename_component(name ${source} NAME_WE)
        set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/${name}.o)
        add_custom_command(OUTPUT ${object}
            COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/compile.sh
                ${CMAKE_CURRENT_BINARY_DIR}/cuda/${name}.log
                ${NVCC} ${CUDA_FLAGS} -Xptxas -v -MD -MF ${object}.d -MT ${object}
                -c ${source} -o ${object}
            DEPENDS ${source} ${CMAKE_CURRENT_LIST_DIR}/compile.sh
            DEPFILE ${object}.d COMMENT "Compiling kernels/cuda/${name}.cu" VERBATIM)
        list(APPEND CUDA_OBJECTS ${object})
    endforeach()
    set_source_files_properties(${CUDA_OBJECTS} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
    set(CUDA_LIBRARIES ${CUDART_STATIC} Threads::Threads ${CMAKE_DL_LIBS} rt)
else()
    message(STATUS "CUDA kernels: none (no nvcc that works)")
endif()

# cuDNN is opened at run time; its headers may be there, with the toolkit, the system or Python's
# package of it.
if(WINDROW_CUDA)
    file(GLOB python_cudnn /usr/lib/python3*/site-packages/nvidia/cudnn/include
        /usr/local/lib/python3*/*-packages/nvidia/cudnn/include
        $ENV{VIRTUAL_ENV}/lib/python3*/site-packages/nvidia/cudnn/include)
    find_path(CUDNN_INCLUDE cudnn_graph.h HINTS ${CUDA_INCLUDE} ${CUDA_ROOT}/include
        /usr/local/cuda/include ${python_cudnn})
    if(CUDNN_INCLUDE)
        message(STATUS "cuDNN headers: ${CUDNN_INCLUDE}")
    else()
        message(STATUS "cuDNN headers: none, attention by our own kernels alone")
    endif()
endif()
set(WINDROW_CUDA ${WINDROW_CUDA} PARENT_SCOPE)
