/* The failing file system of the base's tests, for this folder too. */
#include "engine/base/faults.c" /* NOLINT: one helper, two folders */
