/* How many CPUs this process may keep busy, whatever the machine has. Plain file reading; no thread is started. */
#ifndef AK_CORE_QUOTA_H
#define AK_CORE_QUOTA_H

/* CPUs in the affinity mask of the calling thread; at least 1. */
int ak_cpus_affinity(void);

/* CPU quota of the process's own control group and its ancestors, rounded up to whole CPUs; 0 = no limit. Reads
 * <root>/proc/self/cgroup, <root>/proc/self/mountinfo and the mounted trees (versions 1 and 2); root is "" except in
 * tests. Unreadable files count as no limit. */
int ak_cgroup_quota(const char *root);

#endif
