# Included by CMake as soon as llama.cpp's build enters the project ggml.
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
