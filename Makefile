# A thin front to CMake: installs what is missing, builds, runs.
#
#   make run      build and open the workbench
#   make test     build with sanitizers and run every test
#   make build    optimised program at build/windrow
#   make bench    how fast this machine trains
#   make dist     relocatable folder dist/windrow
#   make install  program, presets and manual page under PREFIX (and DESTDIR)
#   make torture  the tests again, many times over
#   make format, make clean

PREFIX  ?= /usr/local
DESTDIR ?=
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
CMAKE   ?= cmake

# package=what shows that it is there: a program (@name), <a header> or a pkg-config module
BUILD_NEEDS := pkg-config=pkg-config-program libncurses-dev=ncursesw libcjson-dev=libcjson \
               libsentencepiece-dev=sentencepiece 'libdnnl-dev=<dnnl.h>' libxxhash-dev=libxxhash \
               liburing-dev=liburing liblapack-dev=lapack
TEST_NEEDS  := $(BUILD_NEEDS) libcmocka-dev=cmocka libvterm-dev=vterm libopenmpi-dev=ompi-c openmpi-bin=ompi-c tmux=@tmux

.PHONY: build run test bench dist install torture format clean deps deps-test
.DEFAULT_GOAL := build

# Says what is missing, then installs it. Never asks: without the right to install, it prints the
# command and stops.
define install_needs
@set -u; missing=; \
for need in $(1); do \
    package=$${need%%=*}; sign=$${need#*=}; \
    case $$sign in \
    pkg-config-program) command -v pkg-config >/dev/null 2>&1 && continue ;; \
    @*) command -v "$${sign#@}" >/dev/null 2>&1 && continue ;; \
    \<*) printf '#include %s\n' "$$sign" | $(CC) -E -x c - >/dev/null 2>&1 && continue ;; \
    *) pkg-config --exists "$$sign" >/dev/null 2>&1 && continue ;; \
    esac; \
    missing="$$missing $$package"; \
done; \
[ -n "$$missing" ] || exit 0; \
echo "Missing packages:$$missing"; \
install="apt-get install -y --no-install-recommends$$missing"; \
if ! command -v apt-get >/dev/null 2>&1; then \
    echo "There is no apt-get here. Please install what corresponds to these Debian packages."; \
    exit 1; \
fi; \
if [ "$$(id -u)" = 0 ]; then as_root=env; \
elif sudo -n true >/dev/null 2>&1; then as_root="sudo -n env"; \
else echo "Installing needs root. Please run: sudo $$install"; exit 1; fi; \
echo "Installing them: $$install"; \
$$as_root DEBIAN_FRONTEND=noninteractive $$install </dev/null >/dev/null 2>&1 || { \
    echo "Refreshing the package lists first: apt-get update"; \
    $$as_root apt-get update -q </dev/null && \
    $$as_root DEBIAN_FRONTEND=noninteractive $$install </dev/null; }
endef

deps:
	$(call install_needs,$(BUILD_NEEDS))

deps-test:
	$(call install_needs,$(TEST_NEEDS))

# Warnings are errors in `make test` alone: another compiler's new warning must not stop a user.
build: deps
	@mkdir -p build
	@$(CMAKE) -S . -B build -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF \
	    -DWINDROW_WERROR=OFF $(CMAKE_FLAGS) \
	    >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@$(CMAKE) --build build --parallel $(JOBS)

run: build
	@./build/windrow

test: deps-test
	$(CMAKE) -S . -B build-test -DCMAKE_BUILD_TYPE=Debug -DWINDROW_SANITIZE=address,undefined \
	    $(CMAKE_FLAGS)
	$(CMAKE) --build build-test --parallel $(JOBS)
	$(CMAKE) -E chdir build-test ctest --parallel 2 --output-on-failure --no-tests=error

torture: deps-test
	$(CMAKE) -S . -B build-test -DCMAKE_BUILD_TYPE=Debug -DWINDROW_SANITIZE=address,undefined \
	    $(CMAKE_FLAGS)
	$(CMAKE) --build build-test --parallel $(JOBS)
	WINDROW_TORTURE=1 $(CMAKE) -E chdir build-test ctest --parallel 2 --output-on-failure \
	    --repeat until-fail:5 --timeout 7200

bench: build
	@$(CMAKE) --build build --parallel $(JOBS) --target bench_ops bench_train bench_gpu \
	    bench_history bench_ranks bench_ui
	@./build/tests/bench/bench_ops
	@GOMP_SPINCOUNT=20000 ./build/tests/bench/bench_train
	@PYTHON='$(PYTHON)' sh tests/bench/compare.sh ./build/tests/bench/bench_train
	@sh tests/bench/bench_steps.sh ./build/windrow
	@./build/tests/bench/bench_history
	@sh tests/bench/bench_ranks.sh ./build/bench_ranks
	@if [ -x build/tests/bench/bench_ui ]; then ./build/tests/bench/bench_ui ./build/windrow; \
	    else echo "bench_ui needs libvterm-dev"; fi
	@./build/tests/bench/bench_gpu || [ $$? -eq 77 ]
	@'$(or $(PYTHON),python3)' tests/bench/bench_gpu.py --ours ./build/tests/bench/bench_gpu \
	    || [ $$? -eq 77 ] || echo "no comparison on a GPU"

dist: deps-test
	$(CMAKE) -S . -B build-dist -DCMAKE_BUILD_TYPE=Release -DWINDROW_NATIVE=OFF \
	    -DWINDROW_WERROR=OFF $(CMAKE_FLAGS)
	$(CMAKE) --build build-dist --parallel $(JOBS)
	$(CMAKE) --build build-dist --target dist

install: build
	$(if $(DESTDIR),DESTDIR=$(DESTDIR)) $(CMAKE) --install build --prefix $(PREFIX)

format:
	@command -v clang-format >/dev/null || { echo "clang-format is not installed"; exit 1; }
	find app engine kernels tokenizer tests -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' | xargs clang-format -i

clean:
	rm -rf build build-test build-dist dist
