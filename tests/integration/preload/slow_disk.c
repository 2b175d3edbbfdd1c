/* SPDX-License-Identifier: Apache-2.0
 *
 * To be preloaded into a node: fdatasync() waits as long as the file named by KEYWAY_STALL_FILE exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int fdatasync(int descriptor) {
  static int (*real)(int);
  const char *stall = getenv("KEYWAY_STALL_FILE");
  if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  while (stall != NULL && access(stall, F_OK) == 0) usleep(10000);
  return real(descriptor);
}
