#define _GNU_SOURCE /* sched_getaffinity and CPU_COUNT_S */
#include "quota.h"
#include <sched.h>
#include <stdio.h>
#include <string.h>

int ak_cpus_affinity(void)
{
    /* One cpu_set_t ends at 1024 CPUs and the kernel refuses a mask narrower than its own: room for 65,536. On the
     * stack, because an allocation here would be one more that can fail in the middle of a call. */
    cpu_set_t sets[64];
    memset(sets, 0, sizeof sets);
    if (sched_getaffinity(0, sizeof sets, sets) != 0) return 1;
    int count = CPU_COUNT_S(sizeof sets, sets);
    return count > 0 ? count : 1;
}

enum { PATH_BYTES = 1024, LINE_BYTES = 4096 };

/* One line without its newline, cut at the buffer's end (overlay mounts can be longer; the lines that matter here are
 * not). 0 at the end of the file. */
static int read_line(FILE *file, char *line)
{
    if (fgets(line, LINE_BYTES, file) == NULL) return 0;
    size_t length = strlen(line);
    if (length > 0 && line[length - 1] == '\n') {
        line[length - 1] = '\0';
    } else {
        int c;
        while ((c = fgetc(file)) != EOF && c != '\n') continue;
    }
    return 1;
}

/* Is `word` one of the comma-separated words of `list`? */
static int has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; p != NULL && *p != '\0';) {
        size_t length = strcspn(p, ",");
        if (length == n && strncmp(p, word, n) == 0) return 1;
        p += length;
        if (*p == ',') p++;
    }
    return 0;
}

/* The process's own groups: version 2 (a line "0::/path") and the version 1 hierarchy that holds the cpu controller
 * ("4:cpu,cpuacct:/path"). Empty when absent or too long. */
static void read_groups(const char *root, char *v1, char *v2)
{
    char line[LINE_BYTES];
    v1[0] = v2[0] = '\0';
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *file = fopen(line, "r");
    if (file == NULL) return;
    while (read_line(file, line)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (path == NULL || strlen(path + 1) >= PATH_BYTES) continue;
        *controllers++ = '\0';
        *path++ = '\0';
        if (strcmp(line, "0") == 0 && controllers[0] == '\0')
            strcpy(v2, path);
        else if (has_word(controllers, "cpu"))
            strcpy(v1, path);
    }
    fclose(file);
}

/* Whole CPUs of quota / period, rounded up; 0 when either says "no limit". */
static int cpus_of(long long quota, long long period)
{
    if (quota <= 0 || period <= 0) return 0;
    long long cpus = quota / period + (quota % period != 0);
    return cpus > 1 << 20 ? 0 : (int)cpus;
}

/* The number that a one-number file holds; -1 when it cannot be read. */
static long long read_number(const char *dir, const char *name)
{
    char path[2 * PATH_BYTES];
    long long value = -1;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) return -1;
    FILE *file = fopen(path, "r");
    if (file == NULL) return -1;
    if (fscanf(file, "%lld", &value) != 1) value = -1;
    fclose(file);
    return value;
}

static int limit_of_dir(const char *dir, int version)
{
    if (version == 1) return cpus_of(read_number(dir, "cpu.cfs_quota_us"), read_number(dir, "cpu.cfs_period_us"));

    char path[2 * PATH_BYTES];
    long long quota = 0, period = 0;
    if (snprintf(path, sizeof path, "%s/cpu.max", dir) >= (int)sizeof path) return 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    int found = fscanf(file, "%lld %lld", &quota, &period); /* "max 100000" stops at the first word */
    fclose(file);
    return found == 2 ? cpus_of(quota, period) : 0;
}

static int smaller_limit(int a, int b) { return a == 0 ? b : b == 0 ? a : a < b ? a : b; }

/* The smallest limit from the group's directory up to the mount point: a parent's quota binds its children. */
static int limit_of_tree(const char *root, const char *mount, const char *group, int version)
{
    char dir[PATH_BYTES * 3 / 2];
    int n = snprintf(dir, sizeof dir, "%s%s", root, mount);
    if (n < 0 || n >= (int)sizeof dir) return 0;
    size_t mount_length = (size_t)n;
    n = snprintf(dir + mount_length, sizeof dir - mount_length, "%s", strcmp(group, "/") == 0 ? "" : group);
    if (n < 0 || n >= (int)(sizeof dir - mount_length)) return 0;

    int limit = 0;
    for (;;) {
        limit = smaller_limit(limit, limit_of_dir(dir, version));
        char *slash = strrchr(dir, '/');
        if (slash == NULL || slash < dir + mount_length) return limit;
        *slash = '\0';
    }
}

int ak_cgroup_quota(const char *root)
{
    char v1[PATH_BYTES], v2[PATH_BYTES], line[LINE_BYTES];
    read_groups(root, v1, v2);
    snprintf(line, sizeof line, "%s/proc/self/mountinfo", root);
    FILE *file = fopen(line, "r");
    if (file == NULL) return 0;

    int limit = 0;
    while (read_line(file, line)) {
        /* 36 35 98:0 /root /mount/point rw,... optional fields - type source options */
        char mount_root[PATH_BYTES], mount[PATH_BYTES], type[32], options[512];
        char *tail = strstr(line, " - ");
        if (tail == NULL || sscanf(line, "%*s %*s %*s %1023s %1023s", mount_root, mount) != 2) continue;
        if (sscanf(tail + 3, "%31s %*s %511s", type, options) != 2) continue;

        int version = strcmp(type, "cgroup2") == 0 ? 2 : strcmp(type, "cgroup") == 0 && has_word(options, "cpu") ? 1 : 0;
        if (version == 0) continue;
        const char *group = version == 2 ? v2 : v1;
        /* Inside a container the mount shows only the subtree at mount_root; the group's name starts with it when
         * the names are the host's, and is already relative when the container has names of its own. */
        size_t prefix = strlen(mount_root);
        if (prefix > 1 && strncmp(group, mount_root, prefix) == 0 && (group[prefix] == '/' || group[prefix] == '\0'))
            group += prefix;
        limit = smaller_limit(limit, limit_of_tree(root, mount, group, version));
    }
    fclose(file);
    return limit;
}
