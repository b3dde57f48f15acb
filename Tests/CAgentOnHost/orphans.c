// SPDX-License-Identifier: Apache-2.0

#include "CAgentOnHost.h"

#include <errno.h>
#include <sys/prctl.h>

int agent_on_host_take_orphans(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 ? errno : 0; }
